//! What the metadata server says of the instance.

use std::time::Duration;

use reqwest::StatusCode;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Where the server is when the environment does not say. By address: an appliance may have no
/// resolver yet (<https://cloud.google.com/compute/docs/metadata/querying-metadata>).
const HOST: &str = "169.254.169.254";

/// Asked when this is an instance, and when it may not be one: nobody waits longer to find out.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Nobody answered, or not as a metadata server does.
#[derive(Debug)]
struct Silent;

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
        self.ask(path).await.ok().flatten()
    }

    /// One value: none where there is none, and an error where nobody says so.
    async fn ask(&self, path: &str) -> Result<Option<String>, Silent> {
        let request = self
            .client
            .get(format!("{}/{path}", self.root))
            .header("Metadata-Flavor", "Google");
        let answer = request.send().await.map_err(|error| {
            tracing::debug!(path, %error, "no instance metadata");
            Silent
        })?;
        // Whoever does not say so is no metadata server, whatever it answers.
        let is_google = answer
            .headers()
            .get("Metadata-Flavor")
            .is_some_and(|flavor| flavor == "Google");
        let status = answer.status();
        if !is_google || !status.is_success() {
            tracing::debug!(path, %status, "no such instance metadata");
            let absent = is_google && status == StatusCode::NOT_FOUND;
            return if absent { Ok(None) } else { Err(Silent) };
        }
        let value = answer.text().await.map_err(|_| Silent)?;
        Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty()))
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
    /// take them for its own. `None` when the metadata server does not say it all: that it is silent is no
    /// reason to give addresses up.
    pub(super) async fn forwarded(&self) -> Option<Vec<String>> {
        let interfaces = self.get("instance/network-interfaces/").await?;
        let mut found = Vec::new();
        for interface in interfaces.lines().map(|line| line.trim_end_matches('/')) {
            for list in ["forwarded-ips", "forwarded-ipv6s"] {
                let folder = format!("instance/network-interfaces/{interface}/{list}/");
                let indices = self.ask(&folder).await.ok()?.unwrap_or_default();
                for index in indices.lines() {
                    let value = self.ask(&format!("{folder}{}", index.trim())).await;
                    found.extend(value.ok()?);
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
