//! The instance's own metadata, by IMDSv2 only.

use std::time::Duration;

use aws_config::imds;

/// The VPC this instance is in, or nothing when this is no instance.
pub(super) async fn own_vpc() -> Option<String> {
    if std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|value| value == "true") {
        return None;
    }
    let client = imds::Client::builder()
        .max_attempts(2)
        .connect_timeout(Duration::from_secs(1))
        .read_timeout(Duration::from_secs(1))
        .build();
    let mac = get(&client, "/latest/meta-data/mac").await?;
    let path = format!("/latest/meta-data/network/interfaces/macs/{mac}/vpc-id");
    get(&client, &path).await
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
