//! Which networks are served, and which projects have machines in them (Shared VPC).

use std::collections::BTreeSet;

use google_cloud_compute_v1::client::Projects;
use google_cloud_compute_v1::model::xpn_resource_id::Type;

use super::error::{call, incomplete};
use super::firewalls::{PAGE, PAGES_MAX};
use super::metadata::{Metadata, Own};
use crate::cloud::{CloudError, CloudErrorKind};
use crate::config::Gcp;

/// The served networks, as `PROJECT/NAME`.
///
/// # Errors
///
/// When neither the configuration nor the metadata server says which: a project may have networks
/// that are none of our business.
pub(super) async fn served(
    client: &Projects,
    config: &Gcp,
    metadata: &Metadata,
) -> Result<BTreeSet<String>, CloudError> {
    let needs_project =
        config.networks.is_empty() || config.networks.iter().any(|network| !network.contains('/'));
    let own = if needs_project && (config.project.is_none() || config.networks.is_empty()) {
        metadata.own().await
    } else {
        None
    };
    let project = match (&config.project, &own) {
        _ if !needs_project => None,
        (Some(project), _) => Some(project.clone()),
        (None, Some(own)) => Some(project_of_network(client, own).await?),
        (None, None) => None,
    };
    let names = if config.networks.is_empty() {
        own.iter().map(|own| own.network().to_owned()).collect()
    } else {
        config.networks.clone()
    };
    let qualified: Option<BTreeSet<String>> = names
        .iter()
        .map(|name| match (name.contains('/'), &project) {
            (true, _) => Some(name.clone()),
            (false, Some(project)) => Some(format!("{project}/{name}")),
            (false, None) => None,
        })
        .collect();
    match qualified {
        Some(networks) if !networks.is_empty() => Ok(networks),
        _ => Err(CloudError {
            call: "finding the network".to_owned(),
            kind: CloudErrorKind::Missing,
            detail: "there is no instance metadata: say `networks = [\"PROJECT/NAME\"]` in [gcp]"
                .to_owned(),
        }),
    }
}

/// The project that the instance's own network is in.
async fn project_of_network(client: &Projects, own: &Own) -> Result<String, CloudError> {
    const CALL: &str = "projects.getXpnHost";
    if own.owns_network() {
        return Ok(own.project.clone());
    }
    let host = client.get_xpn_host().set_project(&own.project);
    let host = call(CALL, 1, host.send()).await?;
    host.name.ok_or_else(|| incomplete(CALL, 1, "name"))
}

/// The service projects of a host project; none when it is no host.
pub(super) async fn attached(
    client: &Projects,
    host: &str,
) -> Result<BTreeSet<String>, CloudError> {
    const CALL: &str = "projects.getXpnResources";
    let mut found = BTreeSet::new();
    let mut token: Option<String> = None;
    for page in 1..=PAGES_MAX {
        let request = client
            .get_xpn_resources()
            .set_project(host)
            .set_max_results(PAGE)
            .set_or_clear_page_token(token);
        let answer = call(CALL, page, request.send()).await?;
        if answer.kind.as_deref() != Some("compute#projectsGetXpnResources") {
            return Err(incomplete(CALL, page, "projectsGetXpnResources"));
        }
        let is_project = |kind: &Option<Type>| kind.as_ref() == Some(&Type::Project);
        let projects = answer
            .resources
            .into_iter()
            .filter(|found| is_project(&found.r#type));
        found.extend(projects.filter_map(|found| found.id));
        token = answer.next_page_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(found);
        }
    }
    Err(incomplete(CALL, PAGES_MAX, "end"))
}
