//! What the metadata server says of the instance.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Where the server is when the environment does not say. By address: an appliance may have no
/// resolver yet (<https://cloud.google.com/compute/docs/metadata/querying-metadata>).
const HOST: &str = "169.254.169.254";

/// Asked when this is an instance, and when it may not be one: nobody waits longer to find out.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The metadata server.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    client: reqwest::Client,
    root: String,
}

impl Metadata {
    /// Of `GCE_METADATA_HOST`, as Google's own libraries have it, or of the usual address.
    pub(super) fn new() -> Self {
        let host = std::env::var("GCE_METADATA_HOST").unwrap_or_else(|_| HOST.to_owned());
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .no_proxy()
            .build();
        Self {
            client: client.unwrap_or_default(),
            root: format!("http://{host}/computeMetadata/v1"),
        }
    }

    /// One value, or nothing.
    pub(super) async fn get(&self, path: &str) -> Option<String> {
        let request = self
            .client
            .get(format!("{}/{path}", self.root))
            .header("Metadata-Flavor", "Google");
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(path, %error, "no instance metadata");
                return None;
            }
        };
        // Whoever does not say so is no metadata server, whatever it answers.
        let is_google = answer
            .headers()
            .get("Metadata-Flavor")
            .is_some_and(|flavor| flavor == "Google");
        if !is_google || !answer.status().is_success() {
            tracing::debug!(path, status = %answer.status(), "no such instance metadata");
            return None;
        }
        let value = answer.text().await.ok()?.trim().to_owned();
        Some(value).filter(|value| !value.is_empty())
    }

    /// The instance, or nothing when this is none.
    pub(super) async fn own(&self) -> Option<Own> {
        let zone = self.get("instance/zone").await?;
        Some(Own {
            project: self.get("project/project-id").await?,
            number: self.get("project/numeric-project-id").await?,
            zone: super::names::last(&zone).to_owned(),
            name: self.get("instance/name").await?,
            id: self.get("instance/id").await?,
            network: self.get("instance/network-interfaces/0/network").await?,
        })
    }

    /// Addresses that load balancers forward to any interface of the instance as they are; the guest has to
    /// take them for its own. `None` when the metadata server does not say which interfaces there are: that it
    /// is silent is no reason to give addresses up.
    pub(super) async fn forwarded(&self) -> Option<Vec<String>> {
        let interfaces = self.get("instance/network-interfaces/").await?;
        let mut found = Vec::new();
        for interface in interfaces.lines().map(|line| line.trim_end_matches('/')) {
            for list in ["forwarded-ips", "forwarded-ipv6s"] {
                let folder = format!("instance/network-interfaces/{interface}/{list}/");
                let Some(indices) = self.get(&folder).await else {
                    continue;
                };
                for index in indices.lines() {
                    let value = self.get(&format!("{folder}{}", index.trim())).await;
                    found.extend(value);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    /// Seconds by which our clock is ahead of the host's.
    pub(super) async fn clock_offset(&self) -> Option<i64> {
        let request = self
            .client
            .get(format!("{}/instance/id", self.root))
            .header("Metadata-Flavor", "Google");
        let answer = request.send().await.ok()?;
        let date = answer.headers().get("date")?.to_str().ok()?;
        let theirs = OffsetDateTime::parse(date, &Rfc2822).ok()?;
        Some((OffsetDateTime::now_utc() - theirs).whole_seconds())
    }

    /// The instance's external address, if it has one.
    pub(super) async fn external_address(&self) -> Option<String> {
        self.get("instance/network-interfaces/0/access-configs/0/external-ip")
            .await
    }
}

/// What an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    /// Its project.
    pub(super) project: String,
    /// That project's number.
    number: String,
    /// Its zone.
    pub(super) zone: String,
    /// Its name.
    pub(super) name: String,
    /// Its number.
    pub(super) id: String,
    /// Its first interface's network: `projects/NUMBER/networks/NAME`.
    network: String,
}

impl Own {
    /// The region its zone is in.
    pub(super) fn region(&self) -> &str {
        self.zone.rsplit_once('-').map_or("", |(region, _)| region)
    }

    /// The name of its network.
    pub(super) fn network(&self) -> &str {
        super::names::last(&self.network)
    }

    /// Whether its network is its project's own, and not one shared by a host project.
    pub(super) fn owns_network(&self) -> bool {
        super::names::network(&self.network)
            .is_some_and(|(project, _)| project == self.number || project == self.project)
    }
}
