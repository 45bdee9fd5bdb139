//! Calls of AWS's services: by their generated clients, EC2 and CloudWatch Logs; by one signed
//! request and its whole answer, the few actions of Auto Scaling, SSM and Secrets Manager.
//!
//! Both go through the SDK's runtime (connections, time-outs, signatures) with the same
//! credentials, and neither tries again by itself: how often a service is asked is decided here,
//! where the deployment's share of it is known.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
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
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use serde_json::Value;

use super::credentials::Kept;
use super::error::{ServiceError, classify, short};
use super::service::{Protocol, Service};
use super::whole::Whole;
use crate::cloud::{CloudError, CloudErrorKind};

/// How long one attempt may take.
const ATTEMPT_TIME: Duration = Duration::from_secs(20);

/// How long a connection may take.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// Before the only second attempt after a hiccup; anything longer is for the next reading.
const SECOND_ATTEMPT: Duration = Duration::from_millis(200);

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

/// All of a good answer.
#[derive(Clone)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
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
    credentials: SharedCredentialsProvider,
    exchanges: Rc<RefCell<HashMap<String, Exchange>>>,
    ec2: aws_sdk_ec2::Client,
    logs: aws_sdk_cloudwatchlogs::Client,
}

impl Caller {
    /// With the instance's own credentials, or whose ever the environment has.
    pub(super) fn new(sdk: &SdkConfig) -> Self {
        Self::build(
            Rc::new(sdk.clone()),
            sdk.credentials_provider(),
            Rc::default(),
        )
    }

    /// With those of another account.
    pub(super) fn with_credentials(&self, provider: SharedCredentialsProvider) -> Self {
        Self::build(
            Rc::clone(&self.sdk),
            Some(provider),
            Rc::clone(&self.exchanges),
        )
    }

    fn build(
        sdk: Rc<SdkConfig>,
        provider: Option<SharedCredentialsProvider>,
        exchanges: Rc<RefCell<HashMap<String, Exchange>>>,
    ) -> Self {
        let credentials = Kept::shared(provider);
        let clients = SdkConfig::clone(&sdk)
            .into_builder()
            .credentials_provider(credentials.clone())
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        let ec2 = aws_sdk_ec2::config::Builder::from(&clients)
            .interceptor(Whole)
            .build();
        Self {
            region: sdk.region().map(ToString::to_string).unwrap_or_default(),
            ec2: aws_sdk_ec2::Client::from_conf(ec2),
            logs: aws_sdk_cloudwatchlogs::Client::new(&clients),
            sdk,
            credentials,
            exchanges,
        }
    }

    /// Calls an action of EC2.
    pub(super) async fn ec2<T, E: ProvideErrorMetadata + Error + Send + Sync + 'static>(
        &self,
        action: &str,
        call: impl AsyncFn(&aws_sdk_ec2::Client) -> Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, CloudError> {
        self.ready(action, &self.region).await?;
        twice(action, async || call(&self.ec2).await).await
    }

    /// Calls an action of CloudWatch Logs.
    pub(super) async fn logs<T, E: ProvideErrorMetadata + Error + Send + Sync + 'static>(
        &self,
        action: &str,
        call: impl AsyncFn(&aws_sdk_cloudwatchlogs::Client) -> Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, CloudError> {
        self.ready(action, &self.region).await?;
        twice(action, async || call(&self.logs).await).await
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
        let body = request.to_string().into_bytes();
        let answer = self
            .exchange(service, action, region, headers.into(), body)
            .await?;
        if answer.bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.bytes).map_err(|error| CloudError {
            call: action.to_owned(),
            kind: CloudErrorKind::Incomplete,
            detail: error.to_string(),
        })
    }

    async fn exchange(
        &self,
        service: Service,
        action: &str,
        region: &str,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    ) -> Result<Body, CloudError> {
        let credentials = self.ready(action, region).await?;
        let endpoint = service.endpoint(&self.sdk, region);
        let exchange = self.exchange_with(&endpoint);
        let name = service.name;
        twice(action, async || {
            let signed = signed(&endpoint, name, region, &credentials, &headers, &body)
                .map_err(SdkError::construction_failure)?;
            exchange.invoke(signed).await
        })
        .await
    }

    /// Connections to one end point, made once.
    fn exchange_with(&self, endpoint: &str) -> Exchange {
        let mut exchanges = self.exchanges.borrow_mut();
        if let Some(exchange) = exchanges.get(endpoint) {
            return exchange.clone();
        }
        let exchange: Exchange = Operation::builder()
            .service_name("aws")
            .operation_name("call")
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(endpoint)
            .no_auth()
            .no_retry()
            .sleep_impl(TokioSleep::new())
            .timeout_config(timeouts())
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

    /// What every call needs: a region, and credentials that last a while yet.
    async fn ready(&self, action: &str, region: &str) -> Result<Credentials, CloudError> {
        if region.is_empty() {
            return Err(refused(action, "no region: set AWS_REGION or [aws] region"));
        }
        let found = self.credentials.provide_credentials().await;
        found.map_err(|error| CloudError {
            call: action.to_owned(),
            kind: CloudErrorKind::Credentials,
            detail: short(&DisplayErrorContext(&error).to_string()),
        })
    }
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIME)
        .operation_attempt_timeout(ATTEMPT_TIME)
        .build()
}

/// Calls, and once more after a hiccup.
async fn twice<T, E: ProvideErrorMetadata + Error + Send + Sync + 'static>(
    action: &str,
    call: impl AsyncFn() -> Result<T, SdkError<E, HttpResponse>>,
) -> Result<T, CloudError> {
    let first = call().await.map_err(|error| classify(action, &error));
    match first {
        Err(error) if error.kind == CloudErrorKind::Unavailable => {
            tokio::time::sleep(SECOND_ATTEMPT).await;
            call().await.map_err(|error| classify(action, &error))
        }
        other => other,
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
        })
    } else {
        let error = ServiceError::read(body);
        Err(OrchestratorError::operation(error))
    }
}

fn refused(action: &str, why: &str) -> CloudError {
    CloudError {
        call: action.to_owned(),
        kind: CloudErrorKind::Refused,
        detail: why.to_owned(),
    }
}
