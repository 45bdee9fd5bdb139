//! An account as large as DESIGN promises to serve: too large to be made in moto object by object.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::pages;

/// Interfaces in it at first.
pub const INTERFACES: usize = 5_000;
/// Groups, each in use by as many interfaces as any other.
pub const GROUPS: usize = 500;
/// Egress rules of each group.
pub const RULES_PER_GROUP: usize = 40;

/// The account; one of its descriptions can be edited, and interfaces can be added.
#[derive(Debug)]
pub(super) struct Large {
    /// It has one of so many of its interfaces and groups.
    part: usize,
    edited: Mutex<String>,
    added: AtomicUsize,
    /// Pages as they were written last: writing one takes longer than sending it.
    written: Mutex<HashMap<String, Arc<Written>>>,
}

/// The items of one page, and the number of the item that follows it.
#[derive(Debug)]
struct Written(String, Option<usize>);

impl Large {
    /// An account with one of `part` of the interfaces and groups of the largest one.
    pub(super) fn new(part: usize) -> Self {
        Self {
            part,
            edited: Mutex::default(),
            added: AtomicUsize::default(),
            written: Mutex::default(),
        }
    }

    /// Interfaces in it at first, and groups.
    fn size(&self) -> (usize, usize) {
        (INTERFACES / self.part, GROUPS / self.part)
    }

    /// Has the first rule of the first group allow this name.
    pub(super) fn edit(&self, name: &str) {
        name.clone_into(&mut self.edited.lock().unwrap_or_else(PoisonError::into_inner));
        self.forget();
    }

    /// Adds an interface, and says which address it has.
    pub(super) fn launch(&self) -> Ipv4Addr {
        let number = self.size().0 + self.added.fetch_add(1, Ordering::Relaxed);
        self.forget();
        address(number)
    }

    fn forget(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.clear();
    }

    /// One page of an action's answer, from this item on; with the number of the item that follows it.
    pub(super) fn page(
        &self,
        action: &str,
        arguments: &[(String, String)],
        (start, size): (usize, usize),
    ) -> Option<(String, Option<usize>)> {
        let (set, _) = pages::listing(action)?;
        let key = format!("{arguments:?} {start}");
        // Held while a page is made, so that none made before an edit is kept after it.
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let known = written.get(&key).cloned();
        let page = match known {
            Some(page) => page,
            None => {
                let page = Arc::new(self.make(action, arguments, (start, size))?);
                written.insert(key, Arc::clone(&page));
                page
            }
        };
        drop(written);
        let Written(items, next) = &*page;
        let id = request_id(action, start);
        let body = format!(
            "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>{id}</requestId>\
             <{set}>{items}</{set}>"
        );
        Some((body, *next))
    }

    fn make(
        &self,
        action: &str,
        arguments: &[(String, String)],
        (start, size): (usize, usize),
    ) -> Option<Written> {
        let all = self.items(action, arguments);
        let end = start.saturating_add(size).min(all.len());
        let page = all.get(start..end)?.iter();
        let items = page.map(|item| self.write(item)).collect();
        Some(Written(items, (end < all.len()).then_some(end)))
    }

    fn items(&self, action: &str, arguments: &[(String, String)]) -> Vec<Item> {
        let groups = || wanted(arguments, self.size().1);
        let all = self.size().0 + self.added.load(Ordering::Relaxed);
        match action {
            "DescribeNetworkInterfaces" => match asked_for(arguments) {
                Some(numbers) => numbers
                    .filter(|number| *number < all)
                    .map(Item::Interface)
                    .collect(),
                None => (0..all).map(Item::Interface).collect(),
            },
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
            Item::Interface(number) => interface(number, self.size().1),
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
fn wanted(arguments: &[(String, String)], groups: usize) -> Vec<usize> {
    let values = arguments
        .iter()
        .filter(|(key, _)| key.starts_with("Filter.1.Value"))
        .filter_map(|(_, value)| usize::from_str_radix(value.strip_prefix("sg-")?, 16).ok())
        .filter(|group| *group < groups);
    values.collect()
}

fn gid(group: usize) -> String {
    format!("sg-{group:017x}")
}

/// Interfaces whose addresses a filter asks for; `None` without one.
fn asked_for(arguments: &[(String, String)]) -> Option<impl Iterator<Item = usize>> {
    let (name, _) = arguments
        .iter()
        .find(|(_, value)| value == "addresses.private-ip-address")?;
    let values = name.replace("Name", "Value");
    let values = arguments
        .iter()
        .filter(move |(key, _)| key.starts_with(&values));
    let addresses = values.filter_map(|(_, value)| value.parse::<Ipv4Addr>().ok());
    Some(addresses.map(|address| (address.to_bits() & 0xff_ffff) as usize))
}

fn address(number: usize) -> Ipv4Addr {
    let bits = u32::try_from(number).unwrap_or_default();
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 0, 0, 0)) | bits)
}

/// As EC2 writes one of an instance, with the parts that take the most room.
fn interface(number: usize, groups: usize) -> String {
    let address = address(number);
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
        gid(number % groups)
    )
}

/// No two answers have the same id.
fn request_id(action: &str, start: usize) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{action}-{start}-{}", now.unwrap_or_default().as_nanos())
}
