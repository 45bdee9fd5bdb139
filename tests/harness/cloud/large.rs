//! An account as large as DESIGN promises to serve: too large to be made in moto object by object.

use std::sync::{Mutex, PoisonError};

use super::pages;

/// Interfaces in it.
pub const INTERFACES: usize = 5_000;
/// Groups, each in use by as many interfaces as any other.
pub const GROUPS: usize = 500;
/// Egress rules of each group.
pub const RULES_PER_GROUP: usize = 40;

/// The account; one of its descriptions can be edited.
#[derive(Debug, Default)]
pub(super) struct Large {
    edited: Mutex<String>,
}

impl Large {
    /// Has the first rule of the first group allow this name.
    pub(super) fn edit(&self, name: &str) {
        name.clone_into(&mut self.edited.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// One page of an action's answer, from this item on; with the number of the item that follows it.
    pub(super) fn page(
        &self,
        action: &str,
        arguments: &[(String, String)],
        (start, size): (usize, usize),
    ) -> Option<(String, Option<usize>)> {
        let (set, _) = pages::listing(action)?;
        let all = Self::items(action, arguments);
        let end = start.saturating_add(size).min(all.len());
        let items: String = all
            .get(start..end)?
            .iter()
            .map(|item| self.write(item))
            .collect();
        let next = (end < all.len()).then_some(end);
        let id = request_id(action, start);
        let body = format!(
            "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>{id}</requestId>\
             <{set}>{items}</{set}>"
        );
        Some((body, next))
    }

    fn items(action: &str, arguments: &[(String, String)]) -> Vec<Item> {
        let groups = || wanted(arguments);
        match action {
            "DescribeNetworkInterfaces" => (0..INTERFACES).map(Item::Interface).collect(),
            "DescribeSecurityGroups" => groups().into_iter().map(Item::Group).collect(),
            "DescribeSecurityGroupRules" => groups()
                .into_iter()
                .flat_map(|group| (0..RULES_PER_GROUP).map(move |rule| Item::Rule(group, rule)))
                .collect(),
            _ => vec![Item::Vpc],
        }
    }

    fn description(&self, group: usize, rule: usize) -> String {
        let edited = self.edited.lock().unwrap_or_else(PoisonError::into_inner);
        match (group, rule, edited.as_str()) {
            (0, 0, name) if !name.is_empty() => format!("postern:tls:{name}"),
            _ => format!("postern:tls:h{rule}.g{group}.example.com"),
        }
    }

    fn write(&self, item: &Item) -> String {
        match *item {
            Item::Vpc => {
                "<item><vpcId>vpc-1</vpcId><cidrBlock>10.0.0.0/8</cidrBlock></item>".to_owned()
            }
            Item::Interface(number) => interface(number),
            Item::Group(group) => {
                let mut ranges = String::new();
                for rule in 0..RULES_PER_GROUP {
                    let description = self.description(group, rule);
                    ranges += &format!(
                        "<item><cidrIp>198.18.{rule}.0/24</cidrIp><description>{description}</description></item>"
                    );
                }
                format!(
                    "<item><ownerId>123456789012</ownerId><groupId>{}</groupId><groupName>g{group}</groupName>\
                     <vpcId>vpc-1</vpcId><ipPermissions/><ipPermissionsEgress><item><ipProtocol>tcp</ipProtocol>\
                     <fromPort>443</fromPort><toPort>443</toPort><groups/><ipRanges>{ranges}</ipRanges><ipv6Ranges/>\
                     <prefixListIds/></item></ipPermissionsEgress></item>",
                    gid(group)
                )
            }
            Item::Rule(group, rule) => format!(
                "<item><securityGroupRuleId>sgr-{:017x}</securityGroupRuleId><groupId>{}</groupId>\
                 <groupOwnerId>123456789012</groupOwnerId><isEgress>true</isEgress><ipProtocol>tcp</ipProtocol>\
                 <fromPort>443</fromPort><toPort>443</toPort><cidrIpv4>198.18.{rule}.0/24</cidrIpv4>\
                 <description>{}</description></item>",
                group * RULES_PER_GROUP + rule,
                gid(group),
                self.description(group, rule)
            ),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Item {
    Vpc,
    Interface(usize),
    Group(usize),
    Rule(usize, usize),
}

/// Groups that a filter asks for; all without one.
fn wanted(arguments: &[(String, String)]) -> Vec<usize> {
    let values = arguments
        .iter()
        .filter(|(key, _)| key.starts_with("Filter.1.Value"))
        .filter_map(|(_, value)| usize::from_str_radix(value.strip_prefix("sg-")?, 16).ok())
        .filter(|group| *group < GROUPS);
    values.collect()
}

fn gid(group: usize) -> String {
    format!("sg-{group:017x}")
}

/// As EC2 writes one of an instance, with the parts that take the most room.
fn interface(number: usize) -> String {
    let address = format!(
        "10.{}.{}.{}",
        number >> 16,
        (number >> 8) & 255,
        number & 255
    );
    format!(
        "<item><networkInterfaceId>eni-{number:017x}</networkInterfaceId><subnetId>subnet-1</subnetId><vpcId>vpc-1</vpcId>\
         <availabilityZone>eu-west-1a</availabilityZone><description/><ownerId>123456789012</ownerId>\
         <requesterManaged>false</requesterManaged><status>in-use</status><macAddress>02:00:00:00:00:01</macAddress>\
         <privateIpAddress>{address}</privateIpAddress><privateDnsName>ip-{number}.eu-west-1.compute.internal</privateDnsName>\
         <sourceDestCheck>true</sourceDestCheck><groupSet><item><groupId>{}</groupId><groupName>g</groupName></item></groupSet>\
         <attachment><attachmentId>eni-attach-{number:017x}</attachmentId><instanceId>i-{number:017x}</instanceId>\
         <instanceOwnerId>123456789012</instanceOwnerId><deviceIndex>0</deviceIndex><status>attached</status>\
         <deleteOnTermination>true</deleteOnTermination></attachment><tagSet/><privateIpAddressesSet><item>\
         <privateIpAddress>{address}</privateIpAddress><primary>true</primary></item></privateIpAddressesSet>\
         <ipv6AddressesSet/><interfaceType>interface</interfaceType></item>",
        gid(number % GROUPS)
    )
}

/// No two answers have the same id.
fn request_id(action: &str, start: usize) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{action}-{start}-{}", now.unwrap_or_default().as_nanos())
}
