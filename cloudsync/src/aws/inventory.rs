//! Interfaces of the served VPCs: whose addresses are in which groups.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use roxmltree::Node;

use super::call::Caller;
use super::pages::{FILTER_VALUES_MAX, Listing, Pages, filter};
use super::xml;
use crate::cloud::{CloudError, CloudErrorKind, Interface};

const INTERFACES: Listing = Listing {
    action: "DescribeNetworkInterfaces",
    set: "networkInterfaceSet",
};

const VPCS: Listing = Listing {
    action: "DescribeVpcs",
    set: "vpcSet",
};

/// An interface and the account it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owned {
    /// The interface.
    pub(super) interface: Interface,
    /// The account's id; empty when the service does not say.
    pub(super) owner: String,
}

/// Every interface of these VPCs, and how many pages that took.
pub(super) async fn interfaces(
    caller: &Caller,
    pages: &Pages<Owned>,
    vpcs: &[String],
) -> Result<(Vec<Owned>, u32), CloudError> {
    let read = pages
        .read(caller, INTERFACES, &vpc_filter(1, vpcs), owned)
        .await?;
    let count = u32::try_from(read.len()).unwrap_or(u32::MAX);
    let found = read.iter().flat_map(|page| page.iter().cloned());
    Ok((consistent(found)?, count))
}

/// The interfaces of these VPCs that have one of these addresses. There is no filter for delegated
/// prefixes (DescribeNetworkInterfaces, API reference).
pub(super) async fn interfaces_with(
    caller: &Caller,
    vpcs: &[String],
    addresses: &[IpAddr],
) -> Result<Vec<Owned>, CloudError> {
    let families = [
        (
            "addresses.private-ip-address",
            IpAddr::is_ipv4 as fn(&IpAddr) -> bool,
        ),
        ("ipv6-addresses.ipv6-address", IpAddr::is_ipv6),
    ];
    let mut found = Vec::new();
    for (name, is_of_family) in families {
        let values = addresses.iter().filter(|address| is_of_family(address));
        let values: Vec<String> = values.map(IpAddr::to_string).collect();
        for values in values.chunks(FILTER_VALUES_MAX) {
            let mut arguments = vpc_filter(1, vpcs);
            let number = if vpcs.is_empty() { 1 } else { 2 };
            arguments.extend(filter(number, name, values));
            let read = Pages::default()
                .read(caller, INTERFACES, &arguments, owned)
                .await?;
            found.extend(read.iter().flat_map(|page| page.iter().cloned()));
        }
    }
    consistent(found.into_iter())
}

/// One interface.
fn owned(node: Node<'_, '_>) -> Result<Owned, &'static str> {
    let id = xml::text(node, "networkInterfaceId").ok_or("interface id")?;
    let instance = xml::child(node, "attachment")
        .and_then(|attachment| xml::text(attachment, "instanceId"))
        .filter(|instance| !instance.is_empty());
    let addresses = xml::text(node, "privateIpAddress")
        .into_iter()
        .chain(
            xml::items(node, "privateIpAddressesSet")
                .filter_map(|item| xml::text(item, "privateIpAddress")),
        )
        .chain(
            xml::items(node, "ipv6AddressesSet").filter_map(|item| xml::text(item, "ipv6Address")),
        );
    let prefixes = xml::items(node, "ipv4PrefixSet")
        .filter_map(|item| xml::text(item, "ipv4Prefix"))
        .chain(xml::items(node, "ipv6PrefixSet").filter_map(|item| xml::text(item, "ipv6Prefix")));
    let mut nets: Vec<IpNet> = addresses
        .filter_map(|text| text.parse::<IpAddr>().ok().map(IpNet::from))
        .chain(prefixes.filter_map(|text| text.parse::<IpNet>().ok()))
        .collect();
    nets.sort_unstable();
    nets.dedup();
    let mut groups: Vec<String> = xml::items(node, "groupSet")
        .filter_map(|item| xml::text(item, "groupId").map(ToOwned::to_owned))
        .collect();
    groups.sort_unstable();
    Ok(Owned {
        interface: Interface {
            instance: instance.unwrap_or(id).to_owned(),
            id: id.to_owned(),
            nets,
            groups,
        },
        owner: xml::text(node, "ownerId").unwrap_or_default().to_owned(),
    })
}

/// Refuses a reading in which something moved from one page to the next: one interface in two
/// states, or an address that two interfaces have at once within what one page after the other
/// said.
pub(super) fn consistent(found: impl Iterator<Item = Owned>) -> Result<Vec<Owned>, CloudError> {
    let mut by_id: BTreeMap<String, Owned> = BTreeMap::new();
    for owned in found {
        let before = by_id.insert(owned.interface.id.clone(), owned);
        let Some(before) = before else { continue };
        let id = &before.interface.id;
        if by_id.get(id).map(|now| &now.interface) != Some(&before.interface) {
            return Err(CloudError {
                call: INTERFACES.action.to_owned(),
                kind: CloudErrorKind::Inconsistent,
                detail: format!("{id} is on two pages in two states"),
            });
        }
    }
    Ok(by_id.into_values().collect())
}

/// Every network of these VPCs, both families.
pub(super) async fn networks(caller: &Caller, vpcs: &[String]) -> Result<Vec<IpNet>, CloudError> {
    let read = Pages::default()
        .read(caller, VPCS, &vpc_filter(1, vpcs), |node| {
            Ok(networks_of(node))
        })
        .await?;
    let networks = read.iter().flat_map(|page| page.iter().flatten());
    let mut networks: Vec<IpNet> = networks.copied().collect();
    networks.sort_unstable();
    networks.dedup();
    Ok(networks)
}

/// The networks of one VPC, those being taken away left out.
fn networks_of(vpc: Node<'_, '_>) -> Vec<IpNet> {
    let blocks = |set: &'static str, block: &'static str, state: &'static str| {
        xml::items(vpc, set)
            .filter(move |item| {
                let state = xml::child(*item, state).and_then(|state| xml::text(state, "state"));
                state.is_none_or(|state| state == "associated")
            })
            .filter_map(move |item| xml::text(item, block))
    };
    xml::text(vpc, "cidrBlock")
        .into_iter()
        .chain(blocks(
            "cidrBlockAssociationSet",
            "cidrBlock",
            "cidrBlockState",
        ))
        .chain(blocks(
            "ipv6CidrBlockAssociationSet",
            "ipv6CidrBlock",
            "ipv6CidrBlockState",
        ))
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// A filter for these VPCs; none for all.
fn vpc_filter(number: usize, vpcs: &[String]) -> Vec<(String, String)> {
    if vpcs.is_empty() {
        return Vec::new();
    }
    filter(number, "vpc-id", vpcs.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(item: &str) -> Owned {
        let document = roxmltree::Document::parse(item).unwrap();
        owned(document.root_element()).unwrap()
    }

    #[test]
    fn every_kind_of_address_is_read() {
        let found = read(
            "<item><networkInterfaceId>eni-1</networkInterfaceId><ownerId>222222222222</ownerId>\
             <attachment><instanceId>i-1</instanceId></attachment><privateIpAddress>10.0.0.5</privateIpAddress>\
             <privateIpAddressesSet><item><privateIpAddress>10.0.0.5</privateIpAddress></item>\
             <item><privateIpAddress>10.0.0.6</privateIpAddress></item></privateIpAddressesSet>\
             <ipv6AddressesSet><item><ipv6Address>2001:db8::5</ipv6Address></item></ipv6AddressesSet>\
             <ipv4PrefixSet><item><ipv4Prefix>10.0.1.16/28</ipv4Prefix></item></ipv4PrefixSet>\
             <ipv6PrefixSet><item><ipv6Prefix>2001:db8:0:0:1::/80</ipv6Prefix></item></ipv6PrefixSet>\
             <groupSet><item><groupId>sg-2</groupId></item><item><groupId>sg-1</groupId></item></groupSet></item>",
        );
        let nets: Vec<String> = found
            .interface
            .nets
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            nets,
            [
                "10.0.0.5/32",
                "10.0.0.6/32",
                "10.0.1.16/28",
                "2001:db8::5/128",
                "2001:db8:0:0:1::/80"
            ]
        );
        assert_eq!(found.interface.instance, "i-1");
        assert_eq!(found.interface.groups, ["sg-1", "sg-2"]);
        assert_eq!(found.owner, "222222222222");
    }

    #[test]
    fn an_interface_in_two_states_is_no_reading() {
        let interface = |address: &str| {
            read(&format!(
                "<item><networkInterfaceId>eni-1</networkInterfaceId><privateIpAddress>{address}</privateIpAddress></item>"
            ))
        };
        let same = [interface("10.0.0.5"), interface("10.0.0.5")];
        assert_eq!(consistent(same.into_iter()).unwrap().len(), 1);
        let moved = [interface("10.0.0.5"), interface("10.0.0.6")];
        assert_eq!(
            consistent(moved.into_iter()).unwrap_err().kind,
            CloudErrorKind::Inconsistent
        );
    }
}
