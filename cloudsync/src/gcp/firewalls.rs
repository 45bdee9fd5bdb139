//! VPC firewall rules of one project that carry an annotation.

use google_cloud_compute_v1::client::Firewalls;
use google_cloud_compute_v1::model::Firewall;
use google_cloud_compute_v1::model::firewall::Direction;
use ipnet::IpNet;
use policy::annotation::{Standing, compares_prefix, is_annotation};

use super::error::{call, incomplete};
use super::names;
use crate::cloud::CloudError;

/// Objects to ask for at a time: the most the service gives.
pub(super) const PAGE: u32 = 500;

/// Pages after which an answer is taken for one that never ends.
pub(super) const PAGES_MAX: u32 = 1_000;

/// An annotated firewall rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FirewallRule {
    /// The project it is in.
    pub(super) project: String,
    /// Its name, unique within the project.
    pub(super) name: String,
    /// Its number.
    pub(super) id: String,
    /// Its network, as [`names::qualified`] writes it.
    pub(super) network: String,
    /// Whether it allows anything out.
    pub(super) standing: Standing,
    /// What the author wrote.
    pub(super) description: String,
    /// Protocols and ports.
    pub(super) allowed: Vec<Allowed>,
    /// Destinations that are compared: one at most, unless the annotation is about addresses.
    pub(super) destinations: Vec<Option<IpNet>>,
    /// Only machines with one of these tags, when there are any.
    pub(super) tags: Vec<String>,
    /// Only machines that run as one of these accounts, when there are any.
    pub(super) accounts: Vec<String>,
}

/// One protocol with one range of ports, as [`crate::cloud::DescribedRule`] has them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Allowed {
    /// `tcp`, `udp`, `all`, `icmp`, a number.
    pub(super) protocol: String,
    /// First and last port; -1 for all.
    pub(super) ports: (i32, i32),
}

/// Every annotated rule of a project, and how many pages that took.
pub(super) async fn list(
    client: &Firewalls,
    project: &str,
) -> Result<(Vec<FirewallRule>, u32), CloudError> {
    const CALL: &str = "firewalls.list";
    let mut found = Vec::new();
    let mut token: Option<String> = None;
    for page in 1..=PAGES_MAX {
        let request = client
            .list()
            .set_project(project)
            .set_max_results(PAGE)
            .set_or_clear_page_token(token);
        let answer = call(CALL, page, request.send()).await?;
        // An empty list has no `items`; its kind is always there.
        if answer.kind.as_deref() != Some("compute#firewallList") {
            return Err(incomplete(CALL, page, "firewallList"));
        }
        if let Some(warning) = &answer.warning {
            let code = warning.code.as_ref().and_then(|code| code.name());
            if code != Some(NOTHING_HERE) {
                let detail = warning.message.as_deref().or(code).unwrap_or("a warning");
                return Err(incomplete(CALL, page, &format!("whole answer: {detail}")));
            }
        }
        for raw in &answer.items {
            let rule = rule(project, raw).map_err(|what| incomplete(CALL, page, what))?;
            found.extend(rule);
        }
        token = answer.next_page_token.filter(|token| !token.is_empty());
        if token.is_none() {
            found.sort_unstable();
            found.dedup();
            return Ok((found, page));
        }
    }
    Err(incomplete(CALL, PAGES_MAX, "end"))
}

/// The code of the one warning that takes nothing away.
pub(super) const NOTHING_HERE: &str = "NO_RESULTS_ON_PAGE";

/// One rule, when it is annotated; the name of what is missing when it is only half there.
fn rule(project: &str, raw: &Firewall) -> Result<Option<FirewallRule>, &'static str> {
    let description = raw.description.clone().unwrap_or_default();
    if !is_annotation(&description) {
        return Ok(None);
    }
    let network = raw.network.as_deref().and_then(names::qualified);
    let standing = standing(raw)?;
    Ok(Some(FirewallRule {
        project: project.to_owned(),
        name: raw.name.clone().ok_or("name")?,
        id: raw.id.ok_or("id")?.to_string(),
        network: network.ok_or("network")?,
        standing,
        allowed: allowed(raw)?,
        destinations: destinations(&description, &raw.destination_ranges)?,
        description,
        tags: raw.target_tags.clone(),
        accounts: raw.target_service_accounts.clone(),
    }))
}

/// A rule without a direction is for ingress
/// (<https://cloud.google.com/compute/docs/reference/rest/v1/firewalls>: "The default is INGRESS").
fn standing(raw: &Firewall) -> Result<Standing, &'static str> {
    match &raw.direction {
        Some(Direction::Egress) => {}
        Some(Direction::Ingress) | None => return Ok(Standing::Ingress),
        _ => return Err("direction"),
    }
    Ok(match (raw.disabled, raw.denied.is_empty()) {
        (_, false) => Standing::Deny,
        (Some(true), true) => Standing::Disabled,
        (Some(false) | None, true) => Standing::Active,
    })
}

/// Protocols and ports of a rule; those of a rule that denies or is for ingress say nothing.
fn allowed(raw: &Firewall) -> Result<Vec<Allowed>, &'static str> {
    let mut found = Vec::new();
    for entry in &raw.allowed {
        let protocol = entry.ip_protocol.clone().ok_or("IPProtocol")?;
        let protocol = protocol.to_ascii_lowercase();
        if entry.ports.is_empty() {
            found.push(Allowed {
                protocol: protocol.clone(),
                ports: (-1, -1),
            });
        }
        for text in &entry.ports {
            let ports = ports(text).ok_or("ports")?;
            found.push(Allowed {
                protocol: protocol.clone(),
                ports,
            });
        }
    }
    if raw.allowed.is_empty() {
        found.push(Allowed {
            protocol: "all".to_owned(),
            ports: (-1, -1),
        });
    }
    // What no annotation can be about is a fault only where there is nothing else.
    let is_usable =
        |entry: &Allowed| matches!(&*entry.protocol, "tcp" | "6" | "udp" | "17" | "all");
    if found.iter().any(is_usable) {
        found.retain(is_usable);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// `443` or `8000-8100`.
fn ports(text: &str) -> Option<(i32, i32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first: u16 = first.parse().ok()?;
    let last: u16 = last.parse().ok()?;
    (first <= last).then_some((first.into(), last.into()))
}

/// The destinations to compare. Only `address` compares them; for every other kind several would
/// only multiply the rule.
fn destinations(description: &str, ranges: &[String]) -> Result<Vec<Option<IpNet>>, &'static str> {
    let parsed: Vec<Option<IpNet>> = ranges.iter().map(|range| net(range)).collect();
    match parsed.as_slice() {
        found if found.iter().any(Option::is_none) => Err("destinationRanges"),
        [] => Ok(vec![None]),
        [one] => Ok(vec![*one]),
        several if compares_prefix(description) => Ok(several.to_vec()),
        _ => Ok(vec![None]),
    }
}

/// A prefix, or an address as one.
pub(super) fn net(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| {
            text.parse()
                .ok()
                .map(|address: std::net::IpAddr| address.into())
        })
        .map(|net: IpNet| net.trunc())
}

#[cfg(test)]
mod tests {
    use google_cloud_compute_v1::model::firewall::{Allowed as RawAllowed, Denied};

    use super::*;

    fn raw(description: &str) -> Firewall {
        Firewall::new()
            .set_name("web")
            .set_id(7_u64)
            .set_network("https://www.googleapis.com/compute/v1/projects/p/global/networks/n")
            .set_description(description)
            .set_direction(Direction::Egress)
            .set_destination_ranges(["0.0.0.0/0"])
            .set_allowed([RawAllowed::new().set_ip_protocol("tcp").set_ports(["443"])])
    }

    #[test]
    fn several_entries_and_port_ranges_are_each_their_own() {
        let several = raw("postern:tls:a.example.com").set_allowed([
            RawAllowed::new()
                .set_ip_protocol("TCP")
                .set_ports(["443", "8000-8100"]),
            RawAllowed::new().set_ip_protocol("udp"),
            RawAllowed::new().set_ip_protocol("icmp"),
        ]);
        let rule = rule("p", &several).unwrap().unwrap();
        let ports: Vec<_> = rule.allowed.iter().map(|allowed| allowed.ports).collect();
        assert_eq!(ports, [(443, 443), (8_000, 8_100), (-1, -1)]);
        assert_eq!(rule.destinations, [Some("0.0.0.0/0".parse().unwrap())]);
    }

    #[test]
    fn a_rule_that_denies_is_disabled_or_is_for_ingress_allows_nothing() {
        let of = |raw: Firewall| rule("p", &raw).unwrap().unwrap().standing;
        let annotated = || raw("postern:tls:a.example.com");
        assert_eq!(of(annotated()), Standing::Active);
        assert_eq!(of(annotated().set_disabled(true)), Standing::Disabled);
        assert_eq!(
            of(annotated().set_direction(Direction::Ingress)),
            Standing::Ingress
        );
        let denies = annotated()
            .set_allowed(Vec::<RawAllowed>::new())
            .set_denied([Denied::new().set_ip_protocol("all")]);
        assert_eq!(of(denies), Standing::Deny);
    }

    #[test]
    fn half_a_rule_is_no_rule() {
        let mut half = raw("postern:tls:a.example.com");
        half.network = None;
        assert_eq!(rule("p", &half), Err("network"));
        let odd = raw("postern:tls:a.example.com")
            .set_allowed([RawAllowed::new().set_ip_protocol("tcp").set_ports(["80-x"])]);
        assert_eq!(rule("p", &odd), Err("ports"));
        let elsewhere = raw("postern:tls:a.example.com").set_destination_ranges(["10.0.0.0/33"]);
        assert_eq!(rule("p", &elsewhere), Err("destinationRanges"));
        assert_eq!(rule("p", &raw("allows the web")), Ok(None));
    }

    #[test]
    fn several_destinations_are_kept_where_they_are_compared() {
        let ranges = ["198.51.100.0/24", "203.0.113.0/24"];
        let names = raw("postern:tls:a.example.com").set_destination_ranges(ranges);
        assert_eq!(rule("p", &names).unwrap().unwrap().destinations, [None]);
        let addresses = raw("discriminat:Address: ntp").set_destination_ranges(ranges);
        assert_eq!(
            rule("p", &addresses).unwrap().unwrap().destinations.len(),
            2
        );
    }
}
