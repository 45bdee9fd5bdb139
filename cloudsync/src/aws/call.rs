//! One signed request to one service, and its whole answer.
//!
//! The generated clients know thousands of actions where this program uses a dozen: EC2's alone
//! takes minutes to build and reads every answer into objects, changed or not. So requests go
//! through the SDK's own runtime (connections, time-outs, credentials, signatures) and answers
//! come back as text, which a reader compares before it understands it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::display::DisplayErrorContext;
use serde_json::Value;
use tokio::sync::Mutex;

use super::error::{self, ServiceError};
use super::service::{Protocol, Service};
use crate::cloud::{CloudError, CloudErrorKind};

/// How long one attempt may take.
const ATTEMPT_TIME: Duration = Duration::from_secs(20);

/// How long a connection may take.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// Before the only second attempt after a hiccup; anything longer is for the next reading.
const SECOND_ATTEMPT: Duration = Duration::from_millis(200);

/// Credentials that end sooner are replaced.
const CREDENTIALS_LEFT: Duration = Duration::from_secs(300);

/// A request as it goes out.
#[derive(Clone)]
struct Signed {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither signatures nor secrets belong in a log.
        f.debug_struct("Signed")
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

type Exchange = Operation<Signed, Body, ServiceError>;

/// A good answer.
#[derive(Clone)]
pub(super) struct Body {
    /// All of it.
    pub(super) bytes: Vec<u8>,
    /// When the service sent it, by its own clock.
    pub(super) date: Option<String>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A secret may be in it.
        write!(f, "Body({} bytes)", self.bytes.len())
    }
}

/// Calls services with the credentials of one account.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    sdk: Rc<SdkConfig>,
    region: String,
    provider: Option<SharedCredentialsProvider>,
    credentials: Rc<Mutex<Option<Credentials>>>,
    exchanges: Rc<RefCell<HashMap<String, Exchange>>>,
}

impl Caller {
    /// With the instance's own credentials, or whose ever the environment has.
    pub(super) fn new(sdk: &SdkConfig) -> Self {
        let region = sdk.region().map(ToString::to_string).unwrap_or_default();
        Self {
            provider: sdk.credentials_provider(),
            sdk: Rc::new(sdk.clone()),
            region,
            credentials: Rc::default(),
            exchanges: Rc::default(),
        }
    }

    /// With those of another account.
    pub(super) fn with_credentials(&self, provider: SharedCredentialsProvider) -> Self {
        Self {
            provider: Some(provider),
            credentials: Rc::default(),
            ..self.clone()
        }
    }

    /// The region of the deployment.
    pub(super) fn region(&self) -> &str {
        &self.region
    }

    /// Asks a service that speaks the Query protocol.
    pub(super) async fn query(
        &self,
        service: Service,
        action: &str,
        arguments: &[(String, String)],
    ) -> Result<Body, CloudError> {
        let Protocol::Query { version } = service.protocol else {
            return Err(refused(action, "not a service of this protocol"));
        };
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", action)
            .append_pair("Version", version);
        for (key, value) in arguments {
            form.append_pair(key, value);
        }
        let headers = [(
            "content-type".to_owned(),
            "application/x-www-form-urlencoded".to_owned(),
        )];
        let body = form.finish().into_bytes();
        self.exchange(service, action, &self.region, headers.into(), body)
            .await
    }

    /// Asks a service that speaks JSON, in the deployment's region or another.
    pub(super) async fn json(
        &self,
        service: Service,
        action: &str,
        region: Option<&str>,
        request: &Value,
    ) -> Result<Value, CloudError> {
        let body = request.to_string().into_bytes();
        let answer = self.json_bytes(service, action, region, body).await?;
        if answer.bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.bytes).map_err(|error| CloudError {
            call: action.to_owned(),
            kind: CloudErrorKind::Incomplete,
            detail: error.to_string(),
        })
    }

    /// As [`Caller::json`], with a request that is text already and an answer left as it is.
    pub(super) async fn json_bytes(
        &self,
        service: Service,
        action: &str,
        region: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Body, CloudError> {
        let Protocol::Json { target } = service.protocol else {
            return Err(refused(action, "not a service of this protocol"));
        };
        let headers = [
            (
                "content-type".to_owned(),
                "application/x-amz-json-1.1".to_owned(),
            ),
            ("x-amz-target".to_owned(), format!("{target}.{action}")),
        ];
        let region = region.unwrap_or(&self.region);
        self.exchange(service, action, region, headers.into(), body)
            .await
    }

    async fn exchange(
        &self,
        service: Service,
        action: &str,
        region: &str,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    ) -> Result<Body, CloudError> {
        if region.is_empty() {
            return Err(CloudError {
                call: action.to_owned(),
                kind: CloudErrorKind::Refused,
                detail: "no region: set AWS_REGION or [aws] region".to_owned(),
            });
        }
        let endpoint = service.endpoint(&self.sdk, region);
        let exchange = self.exchange_with(&endpoint);
        let credentials = self.credentials(action).await?;
        let mut tries = 1;
        loop {
            let signed = signed(
                &endpoint,
                service.name,
                region,
                &credentials,
                &headers,
                &body,
            );
            let signed = signed.map_err(|why| refused(action, &why))?;
            match exchange.invoke(signed).await {
                Ok(body) => return Ok(body),
                Err(error) => {
                    let error = understand(action, &error);
                    if error.kind != CloudErrorKind::Unavailable || tries > 1 {
                        return Err(error);
                    }
                    tries += 1;
                    tokio::time::sleep(SECOND_ATTEMPT).await;
                }
            }
        }
    }

    /// Connections to one end point, made once.
    fn exchange_with(&self, endpoint: &str) -> Exchange {
        let mut exchanges = self.exchanges.borrow_mut();
        if let Some(exchange) = exchanges.get(endpoint) {
            return exchange.clone();
        }
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIME)
            .operation_attempt_timeout(ATTEMPT_TIME)
            .build();
        let exchange: Exchange = Operation::builder()
            .service_name("aws")
            .operation_name("call")
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(endpoint)
            .no_auth()
            .no_retry()
            .sleep_impl(TokioSleep::new())
            .timeout_config(timeouts)
            .with_connection_poisoning()
            .serializer(|signed: Signed| {
                let mut request = HttpRequest::new(SdkBody::from(signed.body));
                request.set_method("POST")?;
                request.set_uri("/")?;
                for (name, value) in signed.headers {
                    request.headers_mut().insert(name, value);
                }
                Ok(request)
            })
            .deserializer(answer)
            .build();
        exchanges.insert(endpoint.to_owned(), exchange.clone());
        exchange
    }

    /// Credentials that last a while yet.
    async fn credentials(&self, action: &str) -> Result<Credentials, CloudError> {
        let mut kept = self.credentials.lock().await;
        let left = |credentials: &Credentials, least: Duration| {
            credentials
                .expiry()
                .is_none_or(|end| end > SystemTime::now() + least)
        };
        if let Some(credentials) = kept.as_ref().filter(|kept| left(kept, CREDENTIALS_LEFT)) {
            return Ok(credentials.clone());
        }
        let missing = |detail: String| CloudError {
            call: action.to_owned(),
            kind: CloudErrorKind::Credentials,
            detail,
        };
        let provider = self
            .provider
            .as_ref()
            .ok_or_else(|| missing("no credentials are configured".to_owned()))?;
        match provider.provide_credentials().await {
            Ok(fresh) => Ok(kept.insert(fresh).clone()),
            Err(error) => match kept.as_ref().filter(|kept| left(kept, Duration::ZERO)) {
                Some(still_good) => Ok(still_good.clone()),
                None => Err(missing(short(&DisplayErrorContext(&error).to_string()))),
            },
        }
    }
}

/// The headers of a request with its signature (AWS Signature Version 4) among them.
fn signed(
    endpoint: &str,
    service: &str,
    region: &str,
    credentials: &Credentials,
    headers: &[(String, String)],
    body: &[u8],
) -> Result<Signed, String> {
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let url = format!("{}/", endpoint.trim_end_matches('/'));
    let named = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let request = SignableRequest::new("POST", url, named, SignableBody::Bytes(body));
    let request = request.map_err(|error| error.to_string())?;
    let output = sign(request, &parameters).map_err(|error| error.to_string())?;
    let (instructions, _) = output.into_parts();
    let mut headers = headers.to_vec();
    let added = instructions.headers();
    headers.extend(added.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let agent = concat!("postern-cloudsync/", env!("CARGO_PKG_VERSION"));
    headers.push(("user-agent".to_owned(), agent.to_owned()));
    Ok(Signed {
        headers,
        body: body.to_vec(),
    })
}

/// A good answer's body, or what the service says is wrong.
fn answer(response: &HttpResponse) -> Result<Body, OrchestratorError<ServiceError>> {
    let body = response.body().bytes().unwrap_or_default();
    let status = response.status();
    if status.is_success() {
        Ok(Body {
            bytes: body.to_vec(),
            date: response.headers().get("date").map(ToOwned::to_owned),
        })
    } else {
        let error = ServiceError::read(status.as_u16(), body);
        Err(OrchestratorError::operation(error))
    }
}

/// What a failed exchange means to us.
fn understand(action: &str, error: &SdkError<ServiceError, HttpResponse>) -> CloudError {
    let (kind, detail) = match error {
        SdkError::ServiceError(context) => {
            let error = context.err();
            (error::kind(&error.code, error.status), error.to_string())
        }
        SdkError::ConstructionFailure(_) => (CloudErrorKind::Refused, String::new()),
        SdkError::ResponseError(_) => (CloudErrorKind::Incomplete, String::new()),
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | _ => {
            (CloudErrorKind::Unavailable, String::new())
        }
    };
    let detail = if detail.is_empty() {
        short(&DisplayErrorContext(error).to_string())
    } else {
        detail
    };
    CloudError {
        call: action.to_owned(),
        kind,
        detail,
    }
}

fn refused(action: &str, why: &str) -> CloudError {
    CloudError {
        call: action.to_owned(),
        kind: CloudErrorKind::Refused,
        detail: why.to_owned(),
    }
}

/// The beginning of a long story.
fn short(text: &str) -> String {
    text.chars().take(400).collect()
}
