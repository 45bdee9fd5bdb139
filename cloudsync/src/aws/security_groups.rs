//! Rules of exactly the groups in use, with their ids, read again where something changed.
//!
//! `DescribeSecurityGroups` says what the rules of two hundred groups are in one call;
//! `DescribeSecurityGroupRules`, which alone has the ids of rules, takes a call for every thousand
//! rules. So the first is asked each time, and the second about groups whose rules are others than
//! they were. Both must tell the same before a group counts as read.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use policy::annotation::Standing;
use roxmltree::Node;

use super::call::Caller;
use super::pages::{FILTER_VALUES_MAX, Listing, Pages, filter};
use super::xml;
use crate::cloud::{CloudError, CloudErrorKind, DescribedRule};

const GROUPS: Listing = Listing {
    action: "DescribeSecurityGroups",
    set: "securityGroupInfo",
};

const RULES: Listing = Listing {
    action: "DescribeSecurityGroupRules",
    set: "securityGroupRuleSet",
};

/// Readings of a group's rules that may contradict its permissions before they are believed: a
/// service that never agrees with itself is not asked for ever.
const CONTRADICTIONS_MAX: u32 = 5;

/// How long the ids of rules are taken for granted: a rule replaced by one that says the same is
/// noticed no later than this.
const IDS_AGE_MAX: Duration = Duration::from_secs(900);

/// One permission of a group, comparable between the two calls: direction, protocol, ports, target
/// and description.
type Permission = String;

/// A group as `DescribeSecurityGroups` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Described {
    gid: String,
    permissions: Vec<Permission>,
}

/// A rule and what it permits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identified {
    rule: DescribedRule,
    permission: Permission,
}

#[derive(Debug)]
struct Known {
    permissions: Vec<Permission>,
    rules: Rc<Vec<DescribedRule>>,
    /// How often the two calls have contradicted each other; 0 when they agree.
    contradictions: u32,
    read: Instant,
}

/// What the groups in use are.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pages: RefCell<HashMap<usize, Rc<Pages<Described>>>>,
    known: RefCell<HashMap<String, Known>>,
    has_read: Cell<bool>,
}

/// The rules of some groups.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Their rules.
    pub(super) rules: Vec<DescribedRule>,
    /// Groups these credentials do not see.
    pub(super) missing: BTreeSet<String>,
    /// Calls of the API that was asked most, to be expected the next time too.
    pub(super) calls: u32,
}

impl Groups {
    /// Every rule of these groups.
    pub(super) async fn read(
        &self,
        caller: &Caller,
        gids: &BTreeSet<String>,
    ) -> Result<Rules, CloudError> {
        let gids: Vec<&str> = gids.iter().map(String::as_str).collect();
        let mut described = BTreeMap::new();
        let mut calls = 0_u32;
        for (index, chunk) in gids.chunks(FILTER_VALUES_MAX).enumerate() {
            let pages = Rc::clone(self.pages.borrow_mut().entry(index).or_default());
            let arguments = filter(1, "group-id", chunk.iter().copied());
            let read = pages
                .read(caller, GROUPS, &arguments, self::described)
                .await?;
            calls = calls.saturating_add(count(read.len()));
            for group in read.iter().flat_map(|page| page.iter()) {
                described.insert(group.gid.clone(), group.permissions.clone());
            }
        }
        let stale: Vec<&str> = described
            .iter()
            .filter(|(gid, permissions)| !self.is_settled(gid, permissions))
            .map(|(gid, _)| gid.as_str())
            .collect();
        let rule_calls = self.read_rules(caller, &stale, &described).await?;
        // The first reading asks for everything once; a bucket holds that many.
        if self.has_read.replace(true) {
            calls = calls.max(rule_calls);
        }
        self.known
            .borrow_mut()
            .retain(|gid, _| described.contains_key(gid));
        Ok(Rules {
            missing: gids
                .iter()
                .filter(|gid| !described.contains_key(**gid))
                .map(|gid| (*gid).to_owned())
                .collect(),
            rules: self.rules_of(described.keys().map(String::as_str)),
            calls,
        })
    }

    /// What was read of these groups last.
    pub(super) fn last(&self, gids: &BTreeSet<String>) -> Rules {
        let known = self.known.borrow();
        let is_known = |gid: &&String| known.contains_key(gid.as_str());
        Rules {
            missing: gids.iter().filter(|gid| !is_known(gid)).cloned().collect(),
            rules: self.rules_of(gids.iter().map(String::as_str)),
            calls: 1,
        }
    }

    /// Rules of these groups, which somebody else's reading did not have; forgotten afterwards.
    pub(super) async fn look_up(
        caller: &Caller,
        gids: &BTreeSet<String>,
    ) -> Result<Rules, CloudError> {
        if gids.is_empty() {
            return Ok(Rules::default());
        }
        Self::default().read(caller, gids).await
    }

    fn rules_of<G: AsRef<str>>(&self, gids: impl Iterator<Item = G>) -> Vec<DescribedRule> {
        let known = self.known.borrow();
        let rules = gids.filter_map(|gid| known.get(gid.as_ref()));
        rules
            .flat_map(|known| known.rules.iter().cloned())
            .collect()
    }

    /// Whether the rules of a group are known to be what it permits now.
    fn is_settled(&self, gid: &str, permissions: &[Permission]) -> bool {
        self.known.borrow().get(gid).is_some_and(|known| {
            known.permissions == permissions
                && known.read.elapsed() < IDS_AGE_MAX
                && (known.contradictions == 0 || known.contradictions > CONTRADICTIONS_MAX)
        })
    }

    /// Reads the rules of these groups, and says how many calls that took.
    async fn read_rules(
        &self,
        caller: &Caller,
        gids: &[&str],
        described: &BTreeMap<String, Vec<Permission>>,
    ) -> Result<u32, CloudError> {
        let mut calls = 0_u32;
        for chunk in gids.chunks(FILTER_VALUES_MAX) {
            let arguments = filter(1, "group-id", chunk.iter().copied());
            let pages = Pages::default()
                .read(caller, RULES, &arguments, identified)
                .await?;
            calls = calls.saturating_add(count(pages.len()));
            let mut by_group: HashMap<&str, BTreeMap<String, Identified>> = HashMap::new();
            for found in pages.iter().flat_map(|page| page.iter()) {
                let Some(gid) = chunk.iter().find(|gid| **gid == found.rule.gid) else {
                    continue;
                };
                note(by_group.entry(gid).or_default(), found)?;
            }
            for gid in chunk {
                let rules = by_group.remove(gid).unwrap_or_default();
                let permissions = described.get(*gid).cloned().unwrap_or_default();
                self.settle(gid, permissions, rules);
            }
        }
        Ok(calls)
    }

    fn settle(&self, gid: &str, permissions: Vec<Permission>, rules: BTreeMap<String, Identified>) {
        let mut said: Vec<&Permission> = rules.values().map(|found| &found.permission).collect();
        said.sort_unstable();
        let agree = said.into_iter().eq(permissions.iter());
        let mut known = self.known.borrow_mut();
        let before = known.get(gid).map_or(0, |known| known.contradictions);
        let contradictions = if agree { 0 } else { before.saturating_add(1) };
        if contradictions > 0 {
            tracing::debug!(gid, contradictions, "its rules are not yet what it permits");
        }
        known.insert(
            gid.to_owned(),
            Known {
                permissions,
                rules: Rc::new(rules.into_values().map(|found| found.rule).collect()),
                contradictions,
                read: Instant::now(),
            },
        );
    }
}

fn count(pages: usize) -> u32 {
    u32::try_from(pages).unwrap_or(u32::MAX)
}

/// Keeps a rule; one that is on two pages in two states makes the reading worthless.
fn note(found: &mut BTreeMap<String, Identified>, rule: &Identified) -> Result<(), CloudError> {
    match found.insert(rule.rule.rule.clone(), rule.clone()) {
        Some(before) if before != *rule => Err(CloudError {
            call: RULES.action.to_owned(),
            kind: CloudErrorKind::Inconsistent,
            detail: format!("{} is on two pages in two states", before.rule.rule),
        }),
        Some(_) | None => Ok(()),
    }
}

/// One group.
fn described(node: Node<'_, '_>) -> Result<Described, &'static str> {
    let gid = xml::text(node, "groupId").ok_or("group id")?;
    let mut permissions = Vec::new();
    for (set, is_egress) in [("ipPermissions", false), ("ipPermissionsEgress", true)] {
        for item in xml::items(node, set) {
            permissions_of(item, is_egress, &mut permissions);
        }
    }
    permissions.sort_unstable();
    Ok(Described {
        gid: gid.to_owned(),
        permissions,
    })
}

/// The single permissions within one entry of a group, which has many targets.
fn permissions_of(item: Node<'_, '_>, is_egress: bool, into: &mut Vec<Permission>) {
    let targets = [
        ("ipRanges", "cidrIp"),
        ("ipv6Ranges", "cidrIpv6"),
        ("prefixListIds", "prefixListId"),
        ("groups", "groupId"),
    ];
    for (set, target) in targets {
        into.extend(xml::items(item, set).map(|entry| {
            let target = xml::text(entry, target).unwrap_or_default();
            permission(item, is_egress, target, xml::text(entry, "description"))
        }));
    }
}

/// Writes a permission so that the two calls write it alike.
fn permission(
    node: Node<'_, '_>,
    is_egress: bool,
    target: &str,
    description: Option<&str>,
) -> Permission {
    let protocol = xml::text(node, "ipProtocol").unwrap_or_default();
    let (from, to) = ports(node);
    let target = target
        .parse::<IpNet>()
        .map_or_else(|_| target.to_owned(), |net| net.to_string());
    let description = description.unwrap_or_default();
    format!("{is_egress} {protocol} {from} {to} {target} {description}")
}

/// First and last port; -1 where the service leaves them out.
fn ports(node: Node<'_, '_>) -> (i32, i32) {
    let port = |name| {
        xml::text(node, name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(-1)
    };
    (port("fromPort"), port("toPort"))
}

/// One rule.
fn identified(node: Node<'_, '_>) -> Result<Identified, &'static str> {
    let given = |name: &str| xml::text(node, name).filter(|text| !text.is_empty());
    let egress = match given("isEgress") {
        Some("true") => true,
        Some("false") => false,
        Some(_) | None => return Err("direction of a rule"),
    };
    let group = xml::child(node, "referencedGroupInfo");
    let cidr = given("cidrIpv4").or_else(|| given("cidrIpv6"));
    let target = cidr
        .or_else(|| given("prefixListId"))
        .or_else(|| group.and_then(|group| xml::text(group, "groupId")));
    let rule = DescribedRule {
        gid: given("groupId").ok_or("group id")?.to_owned(),
        rule: given("securityGroupRuleId").ok_or("rule id")?.to_owned(),
        standing: if egress {
            Standing::Active
        } else {
            Standing::Ingress
        },
        protocol: given("ipProtocol").unwrap_or_default().to_owned(),
        ports: ports(node),
        cidr: cidr.and_then(|text| text.parse().ok()),
        description: given("description").unwrap_or_default().to_owned(),
    };
    let permission = permission(
        node,
        egress,
        target.unwrap_or_default(),
        given("description"),
    );
    Ok(Identified { rule, permission })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_calls_write_a_permission_alike() {
        let group = "<item><groupId>sg-1</groupId><ipPermissionsEgress>\
            <item><ipProtocol>tcp</ipProtocol><fromPort>443</fromPort><toPort>443</toPort>\
            <ipRanges><item><cidrIp>0.0.0.0/0</cidrIp><description>postern:tls:a.example</description></item></ipRanges>\
            <ipv6Ranges><item><cidrIpv6>2001:DB8::/32</cidrIpv6></item></ipv6Ranges></item>\
            <item><ipProtocol>-1</ipProtocol><groups><item><groupId>sg-2</groupId></item></groups></item>\
            </ipPermissionsEgress></item>";
        let rule = |rest: &str| {
            let text = format!(
                "<item><groupId>sg-1</groupId><securityGroupRuleId>sgr-1</securityGroupRuleId>\
                 <isEgress>true</isEgress>{rest}</item>"
            );
            let document = roxmltree::Document::parse(&text).unwrap();
            identified(document.root_element()).unwrap().permission
        };
        let https = "<ipProtocol>tcp</ipProtocol><fromPort>443</fromPort><toPort>443</toPort>";
        let mut rules = [
            rule(&format!(
                "{https}<cidrIpv4>0.0.0.0/0</cidrIpv4><description>postern:tls:a.example</description>"
            )),
            rule(&format!("{https}<cidrIpv6>2001:db8::/32</cidrIpv6>")),
            rule(
                "<ipProtocol>-1</ipProtocol><fromPort>-1</fromPort><toPort>-1</toPort>\
                 <referencedGroupInfo><groupId>sg-2</groupId></referencedGroupInfo>",
            ),
        ];
        rules.sort_unstable();
        let document = roxmltree::Document::parse(group).unwrap();
        let group = described(document.root_element()).unwrap();
        assert_eq!(group.permissions, rules);
    }
}
