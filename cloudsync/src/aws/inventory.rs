//! Interfaces of the served VPCs: whose addresses are in which groups.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use aws_sdk_ec2::operation::describe_network_interfaces::{
    DescribeNetworkInterfaces, DescribeNetworkInterfacesOutput,
};
use aws_sdk_ec2::operation::describe_vpcs::{DescribeVpcs, DescribeVpcsOutput};
use aws_sdk_ec2::types::{Filter, NetworkInterface, Vpc, VpcCidrBlockState, VpcCidrBlockStateCode};
use aws_smithy_runtime_api::client::interceptors::context::Output;
use ipnet::IpNet;

use super::call::Caller;
use super::pages::{Ask, FILTER_VALUES_MAX, Listing, PAGE, Page, Pages, are_same, filter};
use super::reader::Decoder;
use crate::cloud::{CloudError, CloudErrorKind, Interface};

/// An interface and the account it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owned {
    /// The interface.
    pub(super) interface: Interface,
    /// The account's id; empty when the service does not say.
    pub(super) owner: String,
}

struct Interfaces;

impl Listing for Interfaces {
    type Item = Owned;
    const ACTION: &'static str = "DescribeNetworkInterfaces";
    const SET: &'static str = "networkInterfaceSet";

    fn decoder() -> Decoder {
        Decoder::of(&DescribeNetworkInterfaces::new(), |token| {
            let output = DescribeNetworkInterfacesOutput::builder();
            Output::erase(output.set_next_token(token).build())
        })
    }

    async fn page(caller: &Caller, ask: Ask<'_>) -> Result<Page<Owned>, CloudError> {
        let answer = caller.ec2(Self::ACTION, async |ec2| {
            ec2.describe_network_interfaces()
                .set_filters(ask.filters())
                .max_results(PAGE)
                .set_next_token(ask.token.clone())
                .customize()
                .interceptor(ask.reader())
                .send()
                .await
        });
        let answer = answer.await?;
        Ok(Page {
            items: answer
                .network_interfaces
                .map(|found| found.iter().map(owned).collect()),
            token: answer.next_token,
        })
    }
}

/// Every interface of some VPCs, as one reading found them.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pages: Vec<Rc<Vec<Owned>>>,
    /// The interfaces; the same ones as the last time when no page changed.
    pub(super) interfaces: Rc<Vec<Owned>>,
}

impl Listed {
    /// How many pages that took.
    pub(super) fn calls(&self) -> u32 {
        u32::try_from(self.pages.len()).unwrap_or(u32::MAX)
    }
}

/// Every interface of these VPCs.
pub(super) async fn interfaces(
    caller: &Caller,
    pages: &Pages<Owned>,
    vpcs: &[String],
    last: Option<&Listed>,
) -> Result<Listed, CloudError> {
    let read = pages.read::<Interfaces>(caller, &vpc_filter(vpcs)).await?;
    if let Some(last) = last.filter(|last| are_same(&last.pages, &read)) {
        return Ok(last.clone());
    }
    let found = read.iter().flat_map(|page| page.iter().cloned());
    let interfaces = Rc::new(consistent(found)?);
    Ok(Listed {
        pages: read,
        interfaces,
    })
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
            let mut filters = vpc_filter(vpcs);
            filters.push(filter(name, values));
            let read = Pages::default()
                .read::<Interfaces>(caller, &filters)
                .await?;
            found.extend(read.iter().flat_map(|page| page.iter().cloned()));
        }
    }
    consistent(found.into_iter())
}

/// One interface.
fn owned(raw: &NetworkInterface) -> Result<Owned, &'static str> {
    let id = raw.network_interface_id().ok_or("interface id")?;
    let instance = raw
        .attachment()
        .and_then(|attachment| attachment.instance_id())
        .filter(|instance| !instance.is_empty());
    let secondary = raw.private_ip_addresses().iter();
    let v6 = raw.ipv6_addresses().iter();
    let addresses = raw
        .private_ip_address()
        .into_iter()
        .chain(secondary.filter_map(|found| found.private_ip_address()))
        .chain(v6.filter_map(|found| found.ipv6_address()));
    let v4_prefixes = raw.ipv4_prefixes().iter();
    let v6_prefixes = raw.ipv6_prefixes().iter();
    let prefixes = v4_prefixes
        .filter_map(|found| found.ipv4_prefix())
        .chain(v6_prefixes.filter_map(|found| found.ipv6_prefix()));
    let mut nets: Vec<IpNet> = addresses
        .filter_map(|text| text.parse::<IpAddr>().ok().map(IpNet::from))
        .chain(prefixes.filter_map(|text| text.parse::<IpNet>().ok()))
        .collect();
    nets.sort_unstable();
    nets.dedup();
    let groups = raw.groups().iter();
    let mut groups: Vec<String> = groups
        .filter_map(|group| group.group_id().map(ToOwned::to_owned))
        .collect();
    groups.sort_unstable();
    Ok(Owned {
        interface: Interface {
            instance: instance.unwrap_or(id).to_owned(),
            id: id.to_owned(),
            nets,
            groups,
        },
        owner: raw.owner_id().unwrap_or_default().to_owned(),
    })
}

/// Refuses a reading in which something moved from one page to the next: one interface in two
/// states. An address that went from one interface to another between their two pages is both's
/// until the next reading, with a fault (DESIGN, section 4.3: equal prefixes add up).
pub(super) fn consistent(found: impl Iterator<Item = Owned>) -> Result<Vec<Owned>, CloudError> {
    let mut by_id: BTreeMap<String, Owned> = BTreeMap::new();
    for owned in found {
        let before = by_id.insert(owned.interface.id.clone(), owned);
        let Some(before) = before else { continue };
        let id = &before.interface.id;
        if by_id.get(id).map(|now| &now.interface) != Some(&before.interface) {
            return Err(CloudError {
                call: Interfaces::ACTION.to_owned(),
                kind: CloudErrorKind::Inconsistent,
                detail: format!("{id} is on two pages in two states"),
            });
        }
    }
    Ok(by_id.into_values().collect())
}

struct Networks;

impl Listing for Networks {
    type Item = Vec<IpNet>;
    const ACTION: &'static str = "DescribeVpcs";
    const SET: &'static str = "vpcSet";

    fn decoder() -> Decoder {
        Decoder::of(&DescribeVpcs::new(), |token| {
            Output::erase(DescribeVpcsOutput::builder().set_next_token(token).build())
        })
    }

    async fn page(caller: &Caller, ask: Ask<'_>) -> Result<Page<Vec<IpNet>>, CloudError> {
        let answer = caller.ec2(Self::ACTION, async |ec2| {
            ec2.describe_vpcs()
                .set_filters(ask.filters())
                .max_results(PAGE)
                .set_next_token(ask.token.clone())
                .customize()
                .interceptor(ask.reader())
                .send()
                .await
        });
        let answer = answer.await?;
        let items = answer
            .vpcs
            .map(|found| Ok(found.iter().map(networks_of).collect()));
        let token = answer.next_token;
        Ok(Page { items, token })
    }
}

/// Every network of these VPCs, both families.
pub(super) async fn networks(caller: &Caller, vpcs: &[String]) -> Result<Vec<IpNet>, CloudError> {
    let read = Pages::default()
        .read::<Networks>(caller, &vpc_filter(vpcs))
        .await?;
    let networks = read.iter().flat_map(|page| page.iter().flatten());
    let mut networks: Vec<IpNet> = networks.copied().collect();
    networks.sort_unstable();
    networks.dedup();
    Ok(networks)
}

/// The networks of one VPC, those being taken away left out.
fn networks_of(vpc: &Vpc) -> Vec<IpNet> {
    let is_there = |state: Option<&VpcCidrBlockState>| {
        let state = state.and_then(|state| state.state());
        state.is_none_or(|state| *state == VpcCidrBlockStateCode::Associated)
    };
    let v4 = vpc.cidr_block_association_set().iter();
    let v4 = v4.filter(|found| is_there(found.cidr_block_state()));
    let v6 = vpc.ipv6_cidr_block_association_set().iter();
    let v6 = v6.filter(|found| is_there(found.ipv6_cidr_block_state()));
    vpc.cidr_block()
        .into_iter()
        .chain(v4.filter_map(|found| found.cidr_block()))
        .chain(v6.filter_map(|found| found.ipv6_cidr_block()))
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// A filter for these VPCs; none for all.
fn vpc_filter(vpcs: &[String]) -> Vec<Filter> {
    if vpcs.is_empty() {
        return Vec::new();
    }
    vec![filter("vpc-id", vpcs)]
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{
        GroupIdentifier, Ipv4PrefixSpecification, Ipv6PrefixSpecification,
        NetworkInterfaceAttachment, NetworkInterfaceIpv6Address, NetworkInterfacePrivateIpAddress,
        VpcCidrBlockAssociation,
    };

    use super::*;

    #[test]
    fn every_kind_of_address_is_read() {
        let secondary = |text: &str| {
            let address = NetworkInterfacePrivateIpAddress::builder();
            address.private_ip_address(text).build()
        };
        let raw = NetworkInterface::builder()
            .network_interface_id("eni-1")
            .owner_id("222222222222")
            .attachment(
                NetworkInterfaceAttachment::builder()
                    .instance_id("i-1")
                    .build(),
            )
            .private_ip_address("10.0.0.5")
            .private_ip_addresses(secondary("10.0.0.5"))
            .private_ip_addresses(secondary("10.0.0.6"))
            .ipv6_addresses(
                NetworkInterfaceIpv6Address::builder()
                    .ipv6_address("2001:db8::5")
                    .build(),
            )
            .ipv4_prefixes(
                Ipv4PrefixSpecification::builder()
                    .ipv4_prefix("10.0.1.16/28")
                    .build(),
            )
            .ipv6_prefixes(
                Ipv6PrefixSpecification::builder()
                    .ipv6_prefix("2001:db8:0:0:1::/80")
                    .build(),
            )
            .groups(GroupIdentifier::builder().group_id("sg-2").build())
            .groups(GroupIdentifier::builder().group_id("sg-1").build())
            .build();
        let found = owned(&raw).unwrap();
        let nets = found.interface.nets.iter();
        let nets: Vec<String> = nets.map(ToString::to_string).collect();
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
        assert!(owned(&NetworkInterface::builder().build()).is_err());
    }

    #[test]
    fn an_interface_in_two_states_is_no_reading() {
        let interface = |address: &str| {
            let raw = NetworkInterface::builder();
            let raw = raw
                .network_interface_id("eni-1")
                .private_ip_address(address);
            owned(&raw.build()).unwrap()
        };
        let same = [interface("10.0.0.5"), interface("10.0.0.5")];
        assert_eq!(consistent(same.into_iter()).unwrap().len(), 1);
        let moved = [interface("10.0.0.5"), interface("10.0.0.6")];
        assert_eq!(
            consistent(moved.into_iter()).unwrap_err().kind,
            CloudErrorKind::Inconsistent
        );
    }

    #[test]
    fn a_network_being_taken_away_is_not_served() {
        let association = |cidr: &str, state: VpcCidrBlockStateCode| {
            VpcCidrBlockAssociation::builder()
                .cidr_block(cidr)
                .cidr_block_state(VpcCidrBlockState::builder().state(state).build())
                .build()
        };
        let vpc = Vpc::builder()
            .cidr_block("10.0.0.0/16")
            .cidr_block_association_set(association(
                "10.1.0.0/16",
                VpcCidrBlockStateCode::Associated,
            ))
            .cidr_block_association_set(association(
                "10.2.0.0/16",
                VpcCidrBlockStateCode::Disassociating,
            ))
            .build();
        let networks = ["10.0.0.0/16", "10.1.0.0/16"].map(|net| net.parse().unwrap());
        assert_eq!(networks_of(&vpc), networks);
    }
}
