//! Machines and their addresses, of one project, over all zones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use google_cloud_compute_v1::client::Instances;
use google_cloud_compute_v1::model::{Instance, NetworkInterface};
use ipnet::IpNet;

use super::error::{call, incomplete};
use super::firewalls::{NOTHING_HERE, PAGE, PAGES_MAX, net};
use super::names;
use crate::cloud::{CloudError, CloudErrorKind};

const CALL: &str = "instances.aggregatedList";

/// Part of the network that a machine with IPv6 has for itself
/// (<https://cloud.google.com/compute/docs/ip-addresses>: "a /96 range").
const V6_PREFIX: u8 = 96;

/// One network interface of one machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nic {
    /// Where the machine is.
    pub(super) scope: Scope,
    /// The machine's name.
    pub(super) instance: String,
    /// The interface's name: `nic0`.
    pub(super) name: String,
    /// Its network, as [`names::qualified`] writes it.
    pub(super) network: String,
    /// The machine's network tags.
    pub(super) tags: Vec<String>,
    /// The accounts the machine runs as.
    pub(super) accounts: Vec<String>,
    /// Addresses, alias ranges and IPv6 ranges.
    pub(super) nets: Vec<IpNet>,
}

/// A zone of a project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scope {
    /// The project.
    pub(super) project: String,
    /// The zone.
    pub(super) zone: String,
}

impl Scope {
    /// The region the zone is in.
    pub(super) fn region(&self) -> &str {
        self.zone.rsplit_once('-').map_or("", |(region, _)| region)
    }
}

impl Nic {
    /// What tells it from every other.
    pub(super) fn id(&self) -> String {
        let Scope { project, zone } = &self.scope;
        format!("{project}/{zone}/{}/{}", self.instance, self.name)
    }
}

/// What one project said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Inventory {
    /// Interfaces.
    pub(super) nics: Vec<Nic>,
    /// Zones that could not say, and why: what was known of them stays.
    pub(super) silent: BTreeMap<Scope, String>,
    /// Pages it took.
    pub(super) pages: u32,
}

/// Every interface of a project.
pub(super) async fn list(client: &Instances, project: &str) -> Result<Inventory, CloudError> {
    read(client, project, None).await
}

/// The interfaces of a project that have one of these IPv4 addresses.
///
/// Alias ranges and IPv6 ranges are not addresses the service can be asked for; whoever does not
/// find one here has to read everything.
pub(super) async fn with_addresses(
    client: &Instances,
    project: &str,
    addresses: &[IpAddr],
) -> Result<Inventory, CloudError> {
    let clauses: Vec<String> = addresses
        .iter()
        .filter(|address| address.is_ipv4())
        .map(|address| format!("(networkInterfaces.networkIP = \"{address}\")"))
        .collect();
    if clauses.is_empty() {
        return Ok(Inventory::default());
    }
    read(client, project, Some(clauses.join(" OR "))).await
}

async fn read(
    client: &Instances,
    project: &str,
    filter: Option<String>,
) -> Result<Inventory, CloudError> {
    let mut inventory = Inventory::default();
    let mut token: Option<String> = None;
    for page in 1..=PAGES_MAX {
        let request = client
            .aggregated_list()
            .set_project(project)
            .set_max_results(PAGE)
            .set_or_clear_filter(filter.clone())
            .set_or_clear_page_token(token);
        let answer = call(CALL, page, request.send()).await?;
        if answer.kind.as_deref() != Some("compute#instanceAggregatedList") {
            return Err(incomplete(CALL, page, "instanceAggregatedList"));
        }
        if let Some(warning) = &answer.warning {
            let code = warning.code.as_ref().and_then(|code| code.name());
            // Which zones are meant stands beside it, or nowhere.
            if code != Some(NOTHING_HERE) && answer.unreachables.is_empty() {
                let detail = warning.message.as_deref().or(code).unwrap_or("a warning");
                return Err(incomplete(CALL, page, &format!("whole answer: {detail}")));
            }
        }
        for unreachable in &answer.unreachables {
            let scope = scope(project, unreachable)
                .ok_or_else(|| incomplete(CALL, page, &format!("answer from {unreachable}")))?;
            inventory.silent.insert(scope, "unreachable".to_owned());
        }
        for (key, list) in &answer.items {
            let Some(scope) = scope(project, key) else {
                return Err(incomplete(CALL, page, "zone's name"));
            };
            if let Some(warning) = &list.warning {
                let code = warning.code.as_ref().and_then(|code| code.name());
                if code != Some(NOTHING_HERE) {
                    let detail = warning.message.as_deref().or(code).unwrap_or("a warning");
                    inventory.silent.insert(scope.clone(), detail.to_owned());
                }
            }
            for raw in &list.instances {
                let nics = nics(&scope, raw).map_err(|what| incomplete(CALL, page, what))?;
                inventory.nics.extend(nics);
            }
        }
        token = answer.next_page_token.filter(|token| !token.is_empty());
        if token.is_none() {
            inventory.pages = page;
            inventory.nics = consistent(inventory.nics)?;
            return Ok(inventory);
        }
    }
    Err(incomplete(CALL, PAGES_MAX, "end"))
}

/// The interfaces of some machines of a zone, or of all of them; and how many pages that took.
pub(super) async fn of_zone(
    client: &Instances,
    scope: &Scope,
    machines: Option<&BTreeSet<String>>,
) -> Result<(Vec<Nic>, u32), CloudError> {
    const CALL: &str = "instances.list";
    let clauses = machines.map(|names| {
        let clauses: Vec<String> = names
            .iter()
            .map(|name| format!("(name = \"{name}\")"))
            .collect();
        clauses.join(" OR ")
    });
    let mut found = Vec::new();
    let mut token: Option<String> = None;
    for page in 1..=PAGES_MAX {
        let request = client
            .list()
            .set_project(&scope.project)
            .set_zone(&scope.zone)
            .set_max_results(PAGE)
            .set_or_clear_filter(clauses.clone())
            .set_or_clear_page_token(token);
        let answer = call(CALL, page, request.send()).await?;
        if answer.kind.as_deref() != Some("compute#instanceList") {
            return Err(incomplete(CALL, page, "instanceList"));
        }
        if let Some(warning) = &answer.warning {
            let code = warning.code.as_ref().and_then(|code| code.name());
            if code != Some(NOTHING_HERE) {
                let detail = warning.message.as_deref().or(code).unwrap_or("a warning");
                return Err(incomplete(CALL, page, &format!("whole answer: {detail}")));
            }
        }
        for raw in &answer.items {
            found.extend(nics(scope, raw).map_err(|what| incomplete(CALL, page, what))?);
        }
        token = answer.next_page_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok((consistent(found)?, page));
        }
    }
    Err(incomplete(CALL, PAGES_MAX, "end"))
}

/// `zones/europe-west1-b`, or a URL that ends so.
fn scope(project: &str, key: &str) -> Option<Scope> {
    let zone = names::last(key);
    let is_zone = key
        .strip_suffix(zone)
        .is_some_and(|before| before == "zones/" || before.ends_with("/zones/"));
    (is_zone && !zone.is_empty()).then(|| Scope {
        project: project.to_owned(),
        zone: zone.to_owned(),
    })
}

/// The interfaces of one machine, or the name of what is missing.
fn nics(scope: &Scope, raw: &Instance) -> Result<Vec<Nic>, &'static str> {
    let instance = raw.name.clone().ok_or("name")?;
    let tags = raw.tags.as_ref().map(|tags| tags.items.clone());
    let accounts: Vec<String> = raw
        .service_accounts
        .iter()
        .filter_map(|account| account.email.clone())
        .collect();
    let nic = |raw: &NetworkInterface| {
        Ok(Nic {
            scope: scope.clone(),
            instance: instance.clone(),
            name: raw.name.clone().ok_or("interface name")?,
            network: raw
                .network
                .as_deref()
                .and_then(names::qualified)
                .ok_or("network")?,
            tags: tags.clone().unwrap_or_default(),
            accounts: accounts.clone(),
            nets: nets(raw)?,
        })
    };
    raw.network_interfaces.iter().map(nic).collect()
}

/// Everything an interface may send from.
fn nets(raw: &NetworkInterface) -> Result<Vec<IpNet>, &'static str> {
    let mut nets = Vec::new();
    if let Some(address) = &raw.network_ip {
        nets.push(net(address).ok_or("networkIP")?);
    }
    for alias in raw.alias_ip_ranges.iter().chain(&raw.alias_ipv_6_ranges) {
        let range = alias.ip_cidr_range.as_deref();
        nets.push(range.and_then(net).ok_or("ipCidrRange")?);
    }
    let internal = raw
        .ipv_6_address
        .as_deref()
        .map(|address| (address, raw.internal_ipv_6_prefix_length));
    let external = raw.ipv_6_access_configs.iter().filter_map(|config| {
        let address = config.external_ipv_6.as_deref()?;
        Some((address, config.external_ipv_6_prefix_length))
    });
    for (address, length) in internal.into_iter().chain(external) {
        let address: IpAddr = address.parse().map_err(|_| "ipv6Address")?;
        let length = length.map_or(Ok(V6_PREFIX), u8::try_from);
        let length = length.map_err(|_| "ipv6PrefixLength")?;
        let net = IpNet::new(address, length).map_err(|_| "ipv6PrefixLength")?;
        nets.push(net.trunc());
    }
    nets.sort_unstable();
    nets.dedup();
    Ok(nets)
}

/// Refuses a reading in which one interface is on two pages in two states.
fn consistent(found: Vec<Nic>) -> Result<Vec<Nic>, CloudError> {
    let unique: BTreeSet<Nic> = found.into_iter().collect();
    let mut before: Option<String> = None;
    for nic in &unique {
        let id = nic.id();
        if before.as_ref() == Some(&id) {
            return Err(CloudError {
                call: CALL.to_owned(),
                kind: CloudErrorKind::Inconsistent,
                detail: format!("{id} is on two pages in two states"),
            });
        }
        before = Some(id);
    }
    Ok(unique.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use google_cloud_compute_v1::model::{AccessConfig, AliasIpRange, Tags};

    use super::*;

    fn here() -> Scope {
        scope("p", "zones/z").unwrap()
    }

    fn raw_nic(address: &str) -> NetworkInterface {
        NetworkInterface::new()
            .set_name("nic0")
            .set_network("https://www.googleapis.com/compute/v1/projects/p/global/networks/n")
            .set_network_ip(address)
    }

    #[test]
    fn an_interface_is_all_its_addresses_aliases_and_ranges() {
        let raw = raw_nic("10.0.0.5")
            .set_alias_ip_ranges([AliasIpRange::new().set_ip_cidr_range("10.4.1.0/24")])
            .set_ipv_6_address("fd20:1::5")
            .set_internal_ipv_6_prefix_length(96)
            .set_ipv_6_access_configs([AccessConfig::new()
                .set_external_ipv_6("2600:1900::1")
                .set_external_ipv_6_prefix_length(96)]);
        let wanted = [
            "10.0.0.5/32",
            "10.4.1.0/24",
            "2600:1900::/96",
            "fd20:1::/96",
        ];
        let wanted: Vec<IpNet> = wanted.iter().map(|net| net.parse().unwrap()).collect();
        assert_eq!(nets(&raw).unwrap(), wanted);
    }

    #[test]
    fn an_instance_without_tags_is_one_and_half_an_interface_is_none() {
        let instance = Instance::new()
            .set_name("vm")
            .set_network_interfaces([raw_nic("10.0.0.5")]);
        let found = nics(&here(), &instance).unwrap();
        assert_eq!(found[0].id(), "p/z/vm/nic0");
        assert!(found[0].tags.is_empty());
        let mut half = raw_nic("10.0.0.5");
        half.network = None;
        let instance = instance.set_network_interfaces([half]);
        assert_eq!(nics(&here(), &instance), Err("network"));
        let odd = raw_nic("10.0.0.500");
        assert_eq!(nets(&odd), Err("networkIP"));
    }

    #[test]
    fn an_interface_in_two_states_is_no_reading() {
        let of = |tag: &str| {
            let instance = Instance::new()
                .set_name("vm")
                .set_tags(Tags::new().set_items([tag]))
                .set_network_interfaces([raw_nic("10.0.0.5")]);
            nics(&here(), &instance).unwrap().remove(0)
        };
        assert_eq!(consistent(vec![of("a"), of("a")]).unwrap().len(), 1);
        let error = consistent(vec![of("a"), of("b")]).unwrap_err();
        assert_eq!(error.kind, CloudErrorKind::Inconsistent);
    }

    #[test]
    fn only_a_zone_is_a_zone() {
        assert_eq!(here().zone, "z");
        assert!(scope("p", "https://x/projects/p/zones/z").is_some());
        assert!(scope("p", "regions/r").is_none());
        assert!(scope("p", "zones/").is_none());
    }
}
