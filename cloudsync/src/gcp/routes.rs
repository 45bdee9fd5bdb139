//! Whether the default routes of a network lead to this appliance.

use google_cloud_compute_v1::client::Routes;
use google_cloud_compute_v1::model::Route;

use super::error::{call, incomplete};
use super::firewalls::{NOTHING_HERE, PAGE, PAGES_MAX};
use super::names;
use crate::cloud::CloudError;
use crate::preflight::Finding;

const CALL: &str = "routes.list";

/// Where everything goes that no other route is for.
const DEFAULT: &str = "0.0.0.0/0";

/// What a route has without one
/// (<https://cloud.google.com/compute/docs/reference/rest/v1/routes>: "The default value is 1000").
const PRIORITY: u32 = 1_000;

/// What this appliance is to a route.
#[derive(Debug, Clone, Default)]
pub(super) struct Here {
    /// `zones/ZONE/instances/NAME`.
    pub(super) instance: String,
    /// Its own addresses, and those that load balancers forward to it.
    pub(super) addresses: Vec<String>,
}

/// Every route of a project.
pub(super) async fn list(client: &Routes, project: &str) -> Result<Vec<Route>, CloudError> {
    let mut found = Vec::new();
    let mut token: Option<String> = None;
    for page in 1..=PAGES_MAX {
        let request = client
            .list()
            .set_project(project)
            .set_max_results(PAGE)
            .set_or_clear_page_token(token);
        let answer = call(CALL, page, request.send()).await?;
        if answer.kind.as_deref() != Some("compute#routeList") {
            return Err(incomplete(CALL, page, "routeList"));
        }
        let code = answer
            .warning
            .as_ref()
            .and_then(|warning| warning.code.as_ref());
        if code.is_some_and(|code| code.name() != Some(NOTHING_HERE)) {
            return Err(incomplete(CALL, page, "whole answer"));
        }
        found.extend(answer.items);
        token = answer.next_page_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(found);
        }
    }
    Err(incomplete(CALL, PAGES_MAX, "end"))
}

/// Where a route leads, as far as this appliance is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// Here.
    Here,
    /// To a load balancer of this name, which is not looked at: it may be ours.
    Balancer(String),
    /// To the internet, past every appliance.
    Past,
    /// Somewhere else.
    Elsewhere,
}

fn way(route: &Route, here: &Here) -> Way {
    let is_here = |address: &str| here.addresses.iter().any(|own| own == address);
    if let Some(instance) = &route.next_hop_instance
        && instance.ends_with(&format!("/{}", here.instance))
    {
        return Way::Here;
    }
    if route.next_hop_ip.as_deref().is_some_and(is_here) {
        return Way::Here;
    }
    if let Some(balancer) = &route.next_hop_ilb {
        return if is_here(balancer) {
            Way::Here
        } else {
            Way::Balancer(names::last(balancer).to_owned())
        };
    }
    match route.next_hop_gateway.as_deref().map(names::last) {
        Some("default-internet-gateway") => Way::Past,
        _ => Way::Elsewhere,
    }
}

fn priority(route: &Route) -> u32 {
    route.priority.unwrap_or(PRIORITY)
}

/// Whether traffic of a served network comes here, and whether another route takes it past.
pub(super) fn finding(routes: &[Route], network: &str, here: &Here) -> Finding {
    let check = format!("routes of {network}");
    let defaults = routes.iter().filter(|route| {
        route.dest_range.as_deref() == Some(DEFAULT)
            && route
                .network
                .as_deref()
                .and_then(names::qualified)
                .as_deref()
                == Some(network)
    });
    let mut ways: Vec<(&Route, Way)> = defaults.map(|route| (route, way(route, here))).collect();
    ways.sort_by_key(|(route, _)| priority(route));
    let leads = ways
        .iter()
        .find(|(_, way)| matches!(way, Way::Here | Way::Balancer(_)));
    let Some((leading, way)) = leads else {
        return Finding::bad(
            check,
            format!("no route for {DEFAULT} leads here: nothing comes through this appliance"),
            "make one with this instance, its internal address or its load balancer as the next hop",
        );
    };
    let name = leading.name.as_deref().unwrap_or_default();
    // One with tags that goes past is for machines that are meant to.
    let past = ways.iter().find(|(route, way)| {
        *way == Way::Past && route.tags.is_empty() && priority(route) <= priority(leading)
    });
    if let Some((past, _)) = past {
        let past = past.name.as_deref().unwrap_or_default();
        return Finding::bad(
            check,
            format!("route {past} takes traffic to the internet before {name} takes it here"),
            format!("give {name} a lower number as its priority than {past} has, or delete {past}"),
        );
    }
    let whom = if leading.tags.is_empty() {
        "every machine".to_owned()
    } else {
        format!("machines tagged {}", leading.tags.join(" or "))
    };
    let by = match way {
        Way::Balancer(balancer) => format!(", if load balancer {balancer} is this appliance's"),
        Way::Here | Way::Past | Way::Elsewhere => String::new(),
    };
    Finding::good(check, format!("{name} leads here for {whom}{by}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Outcome;

    const ROOT: &str = "https://www.googleapis.com/compute/v1/projects/p";

    fn route(name: &str, priority: u32) -> Route {
        Route::new()
            .set_name(name)
            .set_priority(priority)
            .set_dest_range(DEFAULT)
            .set_network(format!("{ROOT}/global/networks/n"))
    }

    fn gateway(priority: u32) -> Route {
        route("default", priority)
            .set_next_hop_gateway(format!("{ROOT}/global/gateways/default-internet-gateway"))
    }

    fn here() -> Here {
        Here {
            instance: "zones/z/instances/fw-1".into(),
            addresses: vec!["10.0.0.2".into(), "10.0.0.9".into()],
        }
    }

    fn of(routes: &[Route]) -> (Outcome, String) {
        let found = finding(routes, "p/n", &here());
        (found.outcome, found.detail)
    }

    #[test]
    fn an_instance_an_address_and_a_balancer_lead_here() {
        let ours = [
            route("r", 200).set_next_hop_instance(format!("{ROOT}/zones/z/instances/fw-1")),
            route("r", 200).set_next_hop_ip("10.0.0.2"),
            route("r", 200).set_next_hop_ilb("10.0.0.9"),
        ];
        for route in ours {
            let (outcome, detail) = of(&[gateway(1_000), route]);
            assert_eq!(
                (outcome, detail.as_str()),
                (Outcome::Good, "r leads here for every machine")
            );
        }
        let named = route("r", 200)
            .set_tags(["app"])
            .set_next_hop_ilb(format!("{ROOT}/regions/r/forwardingRules/lb"));
        let (outcome, detail) = of(&[gateway(1_000), named]);
        assert_eq!(outcome, Outcome::Good);
        assert!(
            detail.contains("tagged app") && detail.contains("balancer lb"),
            "{detail}"
        );
    }

    #[test]
    fn a_network_without_a_way_here_is_a_finding() {
        let elsewhere = [
            route("r", 200).set_next_hop_ip("10.0.0.3"),
            route("r", 200).set_next_hop_instance(format!("{ROOT}/zones/z/instances/not-fw-1")),
        ];
        for route in elsewhere {
            assert_eq!(of(&[gateway(1_000), route]).0, Outcome::Bad);
        }
        assert_eq!(of(&[]).0, Outcome::Bad);
    }

    #[test]
    fn a_gateway_that_comes_first_is_a_finding_unless_it_is_for_tagged_machines() {
        let ours = || route("r", 500).set_next_hop_ip("10.0.0.2");
        assert_eq!(of(&[ours(), gateway(500)]).0, Outcome::Bad);
        assert_eq!(of(&[ours(), gateway(501)]).0, Outcome::Good);
        let opted_out = gateway(100).set_tags(["bypass-postern"]);
        assert_eq!(of(&[ours(), opted_out]).0, Outcome::Good);
    }
}
