//! The instance's own metadata, by IMDSv2 only.

use std::time::Duration;

use aws_config::imds;

/// What an instance is told about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    /// Its id.
    pub(super) instance: String,
    /// Its first interface.
    pub(super) interface: String,
    /// The VPC that is in.
    pub(super) vpc: String,
    /// Whether that has a public IPv4 address.
    pub(super) is_public: bool,
}

impl Own {
    /// Asks; nothing when this is no instance.
    pub(super) async fn read() -> Option<Self> {
        if std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|value| value == "true") {
            return None;
        }
        let client = imds::Client::builder()
            .max_attempts(2)
            .connect_timeout(Duration::from_secs(1))
            .read_timeout(Duration::from_secs(1))
            .build();
        let mac = get(&client, "/latest/meta-data/mac").await?;
        let of_interface =
            |what: &str| format!("/latest/meta-data/network/interfaces/macs/{mac}/{what}");
        Some(Self {
            instance: get(&client, "/latest/meta-data/instance-id").await?,
            interface: get(&client, &of_interface("interface-id")).await?,
            vpc: get(&client, &of_interface("vpc-id")).await?,
            is_public: get(&client, &of_interface("public-ipv4s")).await.is_some(),
        })
    }
}

/// One value, or nothing.
async fn get(client: &imds::Client, path: &str) -> Option<String> {
    match client.get(path).await {
        Ok(value) => Some(value.as_ref().trim().to_owned()).filter(|value| !value.is_empty()),
        Err(error) => {
            tracing::debug!(path, %error, "no instance metadata");
            None
        }
    }
}
