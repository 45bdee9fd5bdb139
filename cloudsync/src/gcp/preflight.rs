//! What `preflight` looks at in GCP.

use std::rc::Rc;

use google_cloud_compute_v1::client::{Instances, Routes};

use super::error::call;
use super::logging::CloudLogging;
use super::metadata::{Metadata, Own};
use super::routes::{self, Here};
use super::secrets::Secrets;
use super::{ExternalAddress, Gcp, changes, projects, subnets, unusable};
use crate::cloud::{CloudError, CloudErrorKind, Store as _};
use crate::config::Config;
use crate::preflight::Finding;

/// A clock that is off by more than this makes certificates fail before long.
const CLOCK_SECONDS_MAX: i64 = 60;

/// The file with every permission, by section.
const FILE: &str = "cloudsync/packaging/gcp/permissions.json";

/// Every check but those of the policy itself.
pub(crate) async fn checks(config: &Rc<Config>, cloud: &Gcp) -> Vec<Finding> {
    let metadata = Metadata::new();
    let mut findings = cloud.permissions().await;
    findings.push(secrets(config).await);
    if config.logs.ship {
        findings.push(logs(config).await);
    }
    match metadata.own().await {
        Some(own) => {
            findings.extend(clock(&metadata).await);
            findings.push(address(config, &metadata).await);
            findings.push(cloud.forwards(&metadata, &own).await);
            findings.extend(cloud.routes(&metadata, &own).await);
        }
        None => findings.push(Finding::bad(
            "metadata",
            "no instance metadata: clock, external address, forwarding and routes are not looked at",
            "run this on the appliance, as user postern-sync",
        )),
    }
    findings
}

/// Whether a call went through, and who would let it.
fn permission(call: &str, project: &str, answer: Result<(), CloudError>) -> Finding {
    let check = format!("{call} in {project}");
    match answer {
        Ok(()) => Finding::good(check, "permitted"),
        Err(error) => {
            let fix = match error.kind {
                CloudErrorKind::Denied => {
                    format!("give the service account the permissions of {FILE} in {project}")
                }
                CloudErrorKind::Credentials => {
                    "attach a service account with the scope cloud-platform".to_owned()
                }
                CloudErrorKind::Unavailable => {
                    "let the appliance reach *.googleapis.com (Private Google Access)".to_owned()
                }
                CloudErrorKind::Missing => "correct the project or network in [gcp]".to_owned(),
                CloudErrorKind::Throttled => "try again in a minute".to_owned(),
                CloudErrorKind::Incomplete
                | CloudErrorKind::Refused
                | CloudErrorKind::Inconsistent => "report this".to_owned(),
            };
            Finding::bad(check, error.to_string(), fix)
        }
    }
}

impl Gcp {
    /// Each list that makes a policy, in each project it is asked of.
    async fn permissions(&self) -> Vec<Finding> {
        let hosts = self.known.borrow().network_projects();
        let mut findings = Vec::new();
        for host in hosts {
            let rules = super::firewalls::list(&self.firewalls, &host).await;
            findings.push(permission("firewalls.list", &host, rules.map(drop)));
            let found = subnets::list(&self.subnetworks, &host).await;
            findings.push(permission(
                "subnetworks.aggregatedList",
                &host,
                found.map(drop),
            ));
            let mut machines = vec![host.clone()];
            match &self.config.gcp.service_projects {
                Some(listed) => machines.extend(listed.iter().cloned()),
                None => {
                    let attached = projects::attached(&self.projects, &host).await;
                    machines.extend(attached.iter().flatten().cloned());
                    let attached = attached.map(drop);
                    findings.push(permission("projects.getXpnResources", &host, attached));
                }
            }
            for project in machines {
                let found = super::instances::list(&self.instances, &project).await;
                let some_zone = found.as_ref().ok().and_then(|found| found.nics.first());
                let some_zone = some_zone.map(|nic| nic.scope.clone());
                findings.push(permission(
                    "instances.aggregatedList",
                    &project,
                    found.map(drop),
                ));
                if let Some(scope) = some_zone {
                    let journal = changes::Journal::default();
                    let newest = changes::newest(&self.operations, &scope, &journal).await;
                    let newest = newest.map(drop);
                    findings.push(permission("zoneOperations.list", &project, newest));
                }
            }
        }
        findings
    }

    /// Whether each served network sends its machines' traffic here.
    async fn routes(&self, metadata: &Metadata, own: &Own) -> Vec<Finding> {
        let mut addresses = metadata.forwarded().await.unwrap_or_default();
        addresses.extend(metadata.get("instance/network-interfaces/0/ip").await);
        let here = Here {
            instance: format!("zones/{}/instances/{}", own.zone, own.name),
            addresses,
        };
        let mut builder = Routes::builder();
        if let Some(url) = &self.config.gcp.endpoint_url {
            builder = builder.with_endpoint(url);
        }
        let client = match builder.build().await.map_err(unusable) {
            Ok(client) => client,
            Err(error) => return vec![permission("routes.list", &own.project, Err(error))],
        };
        let networks = self.known.borrow().networks().clone();
        let mut findings = Vec::new();
        for network in networks {
            let (project, _) = network.split_once('/').unwrap_or((&network, ""));
            findings.push(match routes::list(&client, project).await {
                Ok(listed) => routes::finding(&listed, &network, &here),
                Err(error) => permission("routes.list", project, Err(error)),
            });
        }
        findings
    }

    /// Whether Google lets the instance forward what is neither from nor to itself.
    async fn forwards(&self, metadata: &Metadata, own: &Own) -> Finding {
        match can_forward(&self.instances, metadata, own).await {
            Ok(Some(true)) => Finding::good("forwarding", "canIpForward is set"),
            Ok(Some(false)) => Finding::bad(
                "forwarding",
                "canIpForward is not set: Google drops what clients send through this instance",
                "make the instance again from a template with can_ip_forward = true",
            ),
            Ok(None) => Finding::bad(
                "forwarding",
                "the instance does not find itself",
                "give the service account compute.instances.list in its own project",
            ),
            Err(error) => permission("instances.aggregatedList", &own.project, Err(error)),
        }
    }
}

/// What the API says of this instance's forwarding.
async fn can_forward(
    client: &Instances,
    metadata: &Metadata,
    own: &Own,
) -> Result<Option<bool>, CloudError> {
    let Some(address) = metadata.get("instance/network-interfaces/0/ip").await else {
        return Ok(None);
    };
    let request = client
        .aggregated_list()
        .set_project(&own.project)
        .set_filter(format!("(networkInterfaces.networkIP = \"{address}\")"));
    let answer = call("instances.aggregatedList", 1, request.send()).await?;
    let mut found = answer.items.values().flat_map(|list| &list.instances);
    let found = found.find(|found| found.name.as_ref() == Some(&own.name));
    Ok(found.map(|found| found.can_ip_forward.unwrap_or_default()))
}

/// Whether the preferences can be read; having none is as good.
async fn secrets(config: &Config) -> Finding {
    let names = config.preference_names();
    let store = match Secrets::new(config).await {
        Ok(store) => store,
        Err(error) => return permission("secrets.versions.access", "the own project", Err(error)),
    };
    for name in &names {
        match store.preferences(name).await {
            Ok(None) => {}
            Ok(Some(_)) => return Finding::good("preferences", format!("secret {name}")),
            Err(error) => {
                return Finding::bad(
                    "preferences",
                    error.to_string(),
                    format!("give the service account secretmanager.versions.access on {name}"),
                );
            }
        }
    }
    let listed = names.join(" nor ");
    Finding::good("preferences", format!("neither {listed}: defaults"))
}

/// Whether an entry would be taken.
async fn logs(config: &Config) -> Finding {
    let tried = match CloudLogging::new(config).await {
        Ok(sink) => sink.try_out().await,
        Err(error) => Err(error),
    };
    permission("entries.write", "the own project", tried)
}

/// The metadata server's clock is the host's.
async fn clock(metadata: &Metadata) -> Option<Finding> {
    let off = metadata.clock_offset().await?;
    Some(if off.abs() <= CLOCK_SECONDS_MAX {
        Finding::good("clock", "agrees with the host's")
    } else {
        Finding::bad(
            "clock",
            format!("{off} s away from the host's"),
            "let systemd-timesyncd or chrony reach metadata.google.internal",
        )
    })
}

/// Whether the instance can be seen by servers, or soon will.
async fn address(config: &Config, metadata: &Metadata) -> Finding {
    if let Some(address) = metadata.external_address().await {
        return Finding::good("external address", address);
    }
    let free = match ExternalAddress::new(config).await {
        Ok(Some(keeper)) => keeper.count_free().await,
        Ok(None) => Ok(0),
        Err(error) => Err(error),
    };
    match free {
        Ok(0) => Finding::bad(
            "external address",
            "the instance has none, and no reserved one is free with the label postern or discriminat",
            "reserve one in its region with that label, or route it through Cloud NAT and ignore this",
        ),
        Ok(count) => Finding::good(
            "external address",
            format!("{count} reserved ones are free"),
        ),
        Err(error) => permission("addresses.list", "the own project", Err(error)),
    }
}
