//! Secret Manager: preferences and external lists.

use google_cloud_secretmanager_v1::client::SecretManagerService;

use super::error::{call, incomplete};
use super::metadata::Metadata;
use super::unusable;
use policy::annotation::ListReference;

use crate::cloud::{CloudError, CloudErrorKind, Store};
use crate::config::Config;

const CALL: &str = "secrets.versions.access";

/// Where preferences and lists are kept.
#[derive(Debug)]
pub(crate) struct Secrets {
    client: SecretManagerService,
    /// The project of secrets that are called by their name alone.
    project: Option<String>,
}

impl Secrets {
    /// The secrets of the instance's own project, or of the configured one.
    pub(crate) async fn new(config: &Config) -> Result<Self, CloudError> {
        let mut builder = SecretManagerService::builder();
        if let Some(url) = &config.gcp.endpoint_url {
            builder = builder.with_endpoint(url);
        }
        let own = Metadata::new().own().await.map(|own| own.project);
        Ok(Self {
            client: builder.build().await.map_err(unusable)?,
            project: own.or_else(|| config.gcp.project.clone()),
        })
    }

    /// The newest version of a secret called by its name.
    async fn own(&self, name: &str) -> Result<String, CloudError> {
        let project = self.project.as_ref().ok_or_else(|| CloudError {
            call: format!("{CALL} {name}"),
            kind: CloudErrorKind::Missing,
            detail: "no project: there is no instance metadata and none in [gcp]".to_owned(),
        })?;
        self.access(&format!("projects/{project}/secrets/{name}"))
            .await
    }

    /// A version of a secret, the newest unless the path names another.
    async fn access(&self, path: &str) -> Result<String, CloudError> {
        let name = if path.contains("/versions/") {
            path.to_owned()
        } else {
            format!("{path}/versions/latest")
        };
        let place = format!("{CALL} {path}");
        let request = self.client.access_secret_version().set_name(&name);
        let answer = call(&place, 1, request.send()).await?;
        let payload = answer
            .payload
            .ok_or_else(|| incomplete(&place, 1, "payload"))?;
        if payload
            .data_crc32c
            .is_some_and(|sum| sum != i64::from(crc32c(&payload.data)))
        {
            return Err(incomplete(&place, 1, "payload with the right check sum"));
        }
        String::from_utf8(payload.data.to_vec()).map_err(|_| incomplete(&place, 1, "text"))
    }
}

impl Store for Secrets {
    async fn preferences(&self, name: &str) -> Result<Option<String>, CloudError> {
        match self.own(name).await {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind == CloudErrorKind::Missing => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, reference: &ListReference) -> Result<String, CloudError> {
        match reference {
            ListReference::Named(name) | ListReference::Secret(name) => self.own(name).await,
            ListReference::Project(path) => self.access(path).await,
            ListReference::Arn(arn) => Err(CloudError {
                call: format!("{CALL} {arn}"),
                kind: CloudErrorKind::Missing,
                detail: "this is a name of AWS's, and the deployment is on GCP".to_owned(),
            }),
        }
    }
}

/// Castagnoli's check sum, which Google computed over the payload that was stored. Of at most
/// 64 KiB every minute: bit by bit will do.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            let low = sum & 1;
            (sum >> 1) ^ (low * 0x82f6_3b78)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_sum_is_castagnolis() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
