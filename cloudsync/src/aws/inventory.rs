//! Interfaces of the served VPCs: whose addresses are in which groups.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, NetworkInterface, Vpc};
use ipnet::IpNet;

use super::error::{classify, incomplete};
use crate::cloud::{CloudError, CloudErrorKind, Interface};

/// Objects to ask for at a time: the most the service gives.
const PAGE: i32 = 1_000;

/// Values in one filter: the most the service takes.
pub(super) const FILTER_VALUES_MAX: usize = 200;

/// Pages after which an answer is taken for one that never ends.
pub(super) const PAGES_MAX: u32 = 1_000;

/// Every interface of these VPCs, and how many pages that took.
pub(super) async fn interfaces(
    ec2: &Client,
    vpcs: &[String],
) -> Result<(Vec<Interface>, u32), CloudError> {
    read(ec2, vpc_filter(vpcs).into_iter().collect()).await
}

/// The interfaces of these VPCs that have one of these addresses.
pub(super) async fn interfaces_with(
    ec2: &Client,
    vpcs: &[String],
    addresses: &[IpAddr],
) -> Result<Vec<Interface>, CloudError> {
    let mut found = Vec::new();
    let families = [
        (
            "addresses.private-ip-address",
            IpAddr::is_ipv4 as fn(&IpAddr) -> bool,
        ),
        ("ipv6-addresses.ipv6-address", IpAddr::is_ipv6),
    ];
    for (name, is_of_family) in families {
        let values: Vec<String> = addresses
            .iter()
            .filter(|address| is_of_family(address))
            .map(IpAddr::to_string)
            .collect();
        for values in values.chunks(FILTER_VALUES_MAX) {
            let filter = Filter::builder()
                .name(name)
                .set_values(Some(values.to_vec()))
                .build();
            let filters = vpc_filter(vpcs).into_iter().chain([filter]).collect();
            found.extend(read(ec2, filters).await?.0);
        }
    }
    Ok(found)
}

/// Every interface that passes these filters.
async fn read(ec2: &Client, filters: Vec<Filter>) -> Result<(Vec<Interface>, u32), CloudError> {
    const CALL: &str = "DescribeNetworkInterfaces";
    let mut found = Vec::new();
    let mut token = None;
    for page in 1..=PAGES_MAX {
        let answer = ec2
            .describe_network_interfaces()
            .set_filters(Some(filters.clone()).filter(|filters| !filters.is_empty()))
            .max_results(PAGE)
            .set_next_token(token)
            .send()
            .await
            .map_err(|error| classify(CALL, page, error))?;
        // An empty answer still has the set; one without it is half an answer.
        let Some(interfaces) = answer.network_interfaces else {
            return Err(incomplete(CALL, page, "networkInterfaceSet"));
        };
        for raw in &interfaces {
            found.push(interface(raw).ok_or_else(|| incomplete(CALL, page, "interface id"))?);
        }
        token = answer.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return consistent(found).map(|found| (found, page));
        }
    }
    Err(incomplete(CALL, PAGES_MAX, "end"))
}

/// One interface; `None` when it has no id.
fn interface(raw: &NetworkInterface) -> Option<Interface> {
    let id = raw.network_interface_id()?.to_owned();
    let instance = raw
        .attachment()
        .and_then(|attachment| attachment.instance_id());
    let secondary = raw
        .private_ip_addresses()
        .iter()
        .filter_map(|found| found.private_ip_address());
    let v6 = raw
        .ipv6_addresses()
        .iter()
        .filter_map(|found| found.ipv6_address());
    let addresses = raw
        .private_ip_address()
        .into_iter()
        .chain(secondary)
        .chain(v6);
    let v4_prefixes = raw
        .ipv4_prefixes()
        .iter()
        .filter_map(|found| found.ipv4_prefix());
    let v6_prefixes = raw
        .ipv6_prefixes()
        .iter()
        .filter_map(|found| found.ipv6_prefix());
    let mut nets: Vec<IpNet> = addresses
        .filter_map(|text| text.parse::<IpAddr>().ok().map(IpNet::from))
        .chain(
            v4_prefixes
                .chain(v6_prefixes)
                .filter_map(|text| text.parse::<IpNet>().ok()),
        )
        .collect();
    nets.sort_unstable();
    nets.dedup();
    let mut groups: Vec<String> = raw
        .groups()
        .iter()
        .filter_map(|group| group.group_id().map(ToOwned::to_owned))
        .collect();
    groups.sort_unstable();
    Some(Interface {
        instance: instance.unwrap_or(&id).to_owned(),
        id,
        nets,
        groups,
    })
}

/// Refuses a reading in which something moved from one page to the next: one interface in two
/// states, or an address that two instances have at once within what one page after the other
/// said.
fn consistent(found: Vec<Interface>) -> Result<Vec<Interface>, CloudError> {
    let mut by_id: BTreeMap<String, Interface> = BTreeMap::new();
    for interface in found {
        let before = by_id.insert(interface.id.clone(), interface);
        let Some(before) = before else { continue };
        if by_id.get(&before.id) != Some(&before) {
            return Err(CloudError {
                call: "DescribeNetworkInterfaces".to_owned(),
                kind: CloudErrorKind::Inconsistent,
                detail: format!("{} is on two pages in two states", before.id),
            });
        }
    }
    Ok(by_id.into_values().collect())
}

/// Puts interfaces just looked up in place of what was known of them and of their addresses.
pub(super) fn merge(known: &mut Vec<Interface>, found: Vec<Interface>) {
    let taken: HashMap<IpNet, &str> = found
        .iter()
        .flat_map(|interface| {
            interface
                .nets
                .iter()
                .map(|net| (*net, interface.id.as_str()))
        })
        .collect();
    known.retain_mut(|interface| {
        interface.nets.retain(|net| !taken.contains_key(net));
        !found.iter().any(|new| new.id == interface.id)
    });
    known.extend(found);
    known.sort_unstable();
}

/// Every network of these VPCs, both families.
pub(super) async fn networks(ec2: &Client, vpcs: &[String]) -> Result<Vec<IpNet>, CloudError> {
    const CALL: &str = "DescribeVpcs";
    let mut networks = Vec::new();
    let mut token = None;
    for page in 1..=PAGES_MAX {
        let answer = ec2
            .describe_vpcs()
            .set_filters(vpc_filter(vpcs).map(|filter| vec![filter]))
            .max_results(PAGE)
            .set_next_token(token)
            .send()
            .await
            .map_err(|error| classify(CALL, page, error))?;
        let Some(found) = answer.vpcs else {
            return Err(incomplete(CALL, page, "vpcSet"));
        };
        networks.extend(found.iter().flat_map(networks_of));
        token = answer.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            networks.sort_unstable();
            networks.dedup();
            return Ok(networks);
        }
    }
    Err(incomplete(CALL, PAGES_MAX, "end"))
}

/// The networks of one VPC.
fn networks_of(vpc: &Vpc) -> impl Iterator<Item = IpNet> {
    let v4 = vpc
        .cidr_block_association_set()
        .iter()
        .filter_map(|found| found.cidr_block());
    let v6 = vpc
        .ipv6_cidr_block_association_set()
        .iter()
        .filter_map(|found| found.ipv6_cidr_block());
    vpc.cidr_block()
        .into_iter()
        .chain(v4)
        .chain(v6)
        .filter_map(|text| text.parse().ok())
}

/// A filter for these VPCs; none for all.
fn vpc_filter(vpcs: &[String]) -> Option<Filter> {
    let filter = Filter::builder()
        .name("vpc-id")
        .set_values(Some(vpcs.to_vec()))
        .build();
    (!vpcs.is_empty()).then_some(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(id: &str, net: &str) -> Interface {
        Interface {
            id: id.into(),
            instance: format!("i-{id}"),
            nets: vec![net.parse().unwrap()],
            groups: vec!["sg-1".into()],
        }
    }

    #[test]
    fn an_interface_in_two_states_is_no_reading() {
        let same = vec![
            interface("eni-1", "10.0.0.5/32"),
            interface("eni-1", "10.0.0.5/32"),
        ];
        assert_eq!(consistent(same).unwrap().len(), 1);
        let moved = vec![
            interface("eni-1", "10.0.0.5/32"),
            interface("eni-1", "10.0.0.6/32"),
        ];
        assert_eq!(
            consistent(moved).unwrap_err().kind,
            CloudErrorKind::Inconsistent
        );
    }

    #[test]
    fn an_address_looked_up_leaves_its_former_owner() {
        let mut known = vec![
            interface("eni-1", "10.0.0.5/32"),
            interface("eni-2", "10.0.0.6/32"),
        ];
        merge(&mut known, vec![interface("eni-3", "10.0.0.5/32")]);
        let owners: Vec<&str> = known
            .iter()
            .filter(|found| found.nets.contains(&"10.0.0.5/32".parse().unwrap()))
            .map(|found| found.id.as_str())
            .collect();
        assert_eq!(owners, ["eni-3"]);
    }
}
