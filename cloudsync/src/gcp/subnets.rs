//! Subnets: which networks are served, and where connectors and services without machines live.

use google_cloud_compute_v1::client::Subnetworks;
use google_cloud_compute_v1::model::Subnetwork;
use ipnet::IpNet;

use super::error::{call, incomplete};
use super::firewalls::{NOTHING_HERE, PAGE, PAGES_MAX, net};
use super::names;
use crate::cloud::CloudError;

const CALL: &str = "subnetworks.aggregatedList";

/// One subnet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subnet {
    /// Its region.
    pub(super) region: String,
    /// Its name.
    pub(super) name: String,
    /// Its network, as [`names::qualified`] writes it.
    pub(super) network: String,
    /// Its ranges: primary, secondary, IPv6.
    pub(super) nets: Vec<IpNet>,
}

/// Every subnet of a project.
///
/// All or nothing: a region that cannot say would make its machines strangers.
pub(super) async fn list(client: &Subnetworks, project: &str) -> Result<Vec<Subnet>, CloudError> {
    let mut found = Vec::new();
    let mut token: Option<String> = None;
    for page in 1..=PAGES_MAX {
        let request = client
            .aggregated_list()
            .set_project(project)
            .set_max_results(PAGE)
            .set_or_clear_page_token(token);
        let answer = call(CALL, page, request.send()).await?;
        if answer.kind.as_deref() != Some("compute#subnetworkAggregatedList") {
            return Err(incomplete(CALL, page, "subnetworkAggregatedList"));
        }
        let warning = answer.warning.as_ref();
        let mut codes =
            vec![warning.map(|warning| warning.code.as_ref().and_then(|code| code.name()))];
        codes.extend(answer.items.values().map(|list| {
            let warning = list.warning.as_ref();
            warning.map(|warning| warning.code.as_ref().and_then(|code| code.name()))
        }));
        let is_partial = codes
            .iter()
            .flatten()
            .any(|code| *code != Some(NOTHING_HERE));
        if is_partial || !answer.unreachables.is_empty() {
            return Err(incomplete(CALL, page, "answer from every region"));
        }
        for raw in answer.items.values().flat_map(|list| &list.subnetworks) {
            found.push(subnet(raw).map_err(|what| incomplete(CALL, page, what))?);
        }
        token = answer.next_page_token.filter(|token| !token.is_empty());
        if token.is_none() {
            found.sort_unstable();
            found.dedup();
            return Ok(found);
        }
    }
    Err(incomplete(CALL, PAGES_MAX, "end"))
}

/// One subnet, or the name of what is missing.
fn subnet(raw: &Subnetwork) -> Result<Subnet, &'static str> {
    let secondary = raw
        .secondary_ip_ranges
        .iter()
        .map(|range| range.ip_cidr_range.as_deref());
    let ranges = [
        raw.ip_cidr_range.as_deref(),
        raw.ipv_6_cidr_range.as_deref(),
        raw.internal_ipv_6_prefix.as_deref(),
        raw.external_ipv_6_prefix.as_deref(),
    ];
    let texts = ranges.into_iter().chain(secondary).flatten();
    let nets: Option<Vec<IpNet>> = texts.filter(|text| !text.is_empty()).map(net).collect();
    Ok(Subnet {
        region: raw
            .region
            .as_deref()
            .map(names::last)
            .ok_or("region")?
            .to_owned(),
        name: raw.name.clone().ok_or("name")?,
        network: raw
            .network
            .as_deref()
            .and_then(names::qualified)
            .ok_or("network")?,
        nets: nets.ok_or("ipCidrRange")?,
    })
}
