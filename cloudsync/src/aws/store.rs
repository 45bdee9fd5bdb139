//! Documents: SSM parameters and Secrets Manager secrets, ours and other accounts'.

use policy::annotation::ListReference;
use serde_json::{Value, json};

use super::call::Caller;
use super::error::incomplete;
use super::service::{SECRETS_MANAGER, SSM, Service};
use crate::cloud::{CloudError, CloudErrorKind, Store};

/// Where preferences and lists are kept.
#[derive(Debug)]
pub(crate) struct AwsStore {
    caller: Caller,
}

impl AwsStore {
    /// Reads with these credentials.
    pub(super) fn new(caller: Caller) -> Self {
        Self { caller }
    }

    /// A parameter by its name or, of another account, its ARN. A secure string is decrypted where
    /// the key's policy lets us.
    async fn parameter(&self, name: &str, region: Option<&str>) -> Result<String, CloudError> {
        const CALL: &str = "GetParameter";
        let request = json!({ "Name": name, "WithDecryption": true });
        let answer = self.ask(SSM, CALL, name, region, &request).await?;
        let value = answer.pointer("/Parameter/Value").and_then(Value::as_str);
        value
            .map(ToOwned::to_owned)
            .ok_or_else(|| incomplete(CALL, 1, "value"))
    }

    /// A secret by its name or ARN; one that is bytes is read as the text they are.
    async fn secret(&self, id: &str, region: Option<&str>) -> Result<String, CloudError> {
        const CALL: &str = "GetSecretValue";
        let request = json!({ "SecretId": id });
        let answer = self
            .ask(SECRETS_MANAGER, CALL, id, region, &request)
            .await?;
        if let Some(text) = answer.get("SecretString").and_then(Value::as_str) {
            return Ok(text.to_owned());
        }
        Err(incomplete(
            CALL,
            1,
            "text (store the list as text, not as binary)",
        ))
    }

    /// One call, whose error names the document.
    async fn ask(
        &self,
        service: Service,
        action: &str,
        document: &str,
        region: Option<&str>,
        request: &Value,
    ) -> Result<Value, CloudError> {
        let answer = self.caller.json(service, action, region, request).await;
        answer.map_err(|mut error| {
            error.call = format!("{action} {document}");
            error
        })
    }
}

impl Store for AwsStore {
    async fn preferences(&self, name: &str) -> Result<Option<String>, CloudError> {
        match self.parameter(name, None).await {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind == CloudErrorKind::Missing => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, reference: &ListReference) -> Result<String, CloudError> {
        match reference {
            ListReference::Named(name) => self.parameter(name, None).await,
            ListReference::Secret(name) => self.secret(name, None).await,
            ListReference::Arn(arn) => match parts(arn) {
                // A parameter of another account answers to its whole ARN, and only in its region.
                Some(("ssm", region, resource)) if resource.starts_with("parameter/") => {
                    self.parameter(arn, Some(region)).await
                }
                Some(("secretsmanager", region, resource)) if resource.starts_with("secret:") => {
                    self.secret(arn, Some(region)).await
                }
                Some(_) | None => Err(not_here(arn, "neither an SSM parameter nor a secret")),
            },
            ListReference::Project(name) => Err(not_here(name, "a secret of Google Cloud")),
        }
    }
}

/// Service, region and resource of an ARN: `arn:partition:service:region:account:resource`.
fn parts(arn: &str) -> Option<(&str, &str, &str)> {
    let mut parts = arn.splitn(6, ':').skip(2);
    let (service, region, _account, resource) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some((service, region, resource)).filter(|_| !region.is_empty())
}

fn not_here(name: &str, what: &str) -> CloudError {
    CloudError {
        call: format!("reading {name}"),
        kind: CloudErrorKind::Refused,
        detail: format!("{name} is {what}"),
    }
}
