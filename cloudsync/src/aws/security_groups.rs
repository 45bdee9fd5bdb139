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

use aws_sdk_ec2::operation::describe_security_group_rules::{
    DescribeSecurityGroupRules, DescribeSecurityGroupRulesOutput,
};
use aws_sdk_ec2::operation::describe_security_groups::{
    DescribeSecurityGroups, DescribeSecurityGroupsOutput,
};
use aws_sdk_ec2::types::{IpPermission, SecurityGroup, SecurityGroupRule};
use aws_smithy_runtime_api::client::interceptors::context::Output;
use ipnet::IpNet;
use policy::annotation::Standing;

use super::call::Caller;
use super::pages::{Ask, FILTER_VALUES_MAX, Listing, PAGE, Page, Pages, filter};
use super::reader::Decoder;
use crate::cloud::{CloudError, CloudErrorKind, DescribedRule};

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
    permissions: Rc<Vec<Permission>>,
}

/// A rule and what it permits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identified {
    rule: DescribedRule,
    permission: Permission,
}

#[derive(Debug)]
struct Known {
    permissions: Rc<Vec<Permission>>,
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
    /// Their rules, by group; of a group that did not change, the same ones as the last time.
    pub(super) rules: Vec<Rc<Vec<DescribedRule>>>,
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
        let mut pages = Vec::new();
        let mut calls = 0_u32;
        for (index, chunk) in gids.chunks(FILTER_VALUES_MAX).enumerate() {
            let known = Rc::clone(self.pages.borrow_mut().entry(index).or_default());
            let filters = [filter("group-id", chunk.iter().copied())];
            let read = known.read::<Descriptions>(caller, &filters).await?;
            calls = calls.saturating_add(count(read.len()));
            pages.extend(read);
        }
        let groups = pages.iter().flat_map(|page| page.iter());
        let described: BTreeMap<&str, &Rc<Vec<Permission>>> = groups
            .map(|group| (group.gid.as_str(), &group.permissions))
            .collect();
        let stale: Vec<&str> = described
            .iter()
            .filter(|(gid, permissions)| !self.is_settled(gid, permissions))
            .map(|(gid, _)| *gid)
            .collect();
        let rule_calls = self.read_rules(caller, &stale, &described).await?;
        // The first reading asks for everything once; a bucket holds that many.
        if self.has_read.replace(true) {
            calls = calls.max(rule_calls);
        }
        self.known
            .borrow_mut()
            .retain(|gid, _| described.contains_key(gid.as_str()));
        Ok(Rules {
            missing: gids
                .iter()
                .filter(|gid| !described.contains_key(**gid))
                .map(|gid| (*gid).to_owned())
                .collect(),
            rules: self.rules_of(described.keys().copied()),
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

    fn rules_of<G: AsRef<str>>(
        &self,
        gids: impl Iterator<Item = G>,
    ) -> Vec<Rc<Vec<DescribedRule>>> {
        let known = self.known.borrow();
        let rules = gids.filter_map(|gid| known.get(gid.as_ref()));
        rules.map(|known| Rc::clone(&known.rules)).collect()
    }

    /// Whether the rules of a group are known to be what it permits now.
    fn is_settled(&self, gid: &str, permissions: &Rc<Vec<Permission>>) -> bool {
        let mut known = self.known.borrow_mut();
        let Some(known) = known.get_mut(gid) else {
            return false;
        };
        if known.permissions != *permissions {
            return false;
        }
        // Those of the newest page: the very same ones the next time, which takes no time to compare.
        known.permissions = Rc::clone(permissions);
        known.read.elapsed() < IDS_AGE_MAX
            && (known.contradictions == 0 || known.contradictions > CONTRADICTIONS_MAX)
    }

    /// Reads the rules of these groups, and says how many calls that took.
    async fn read_rules(
        &self,
        caller: &Caller,
        gids: &[&str],
        described: &BTreeMap<&str, &Rc<Vec<Permission>>>,
    ) -> Result<u32, CloudError> {
        let mut calls = 0_u32;
        for chunk in gids.chunks(FILTER_VALUES_MAX) {
            let filters = [filter("group-id", chunk.iter().copied())];
            let pages = Pages::default()
                .read::<Identities>(caller, &filters)
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
                let permissions = described.get(*gid).map(|found| Rc::clone(found));
                self.settle(gid, permissions.unwrap_or_default(), rules);
            }
        }
        Ok(calls)
    }

    fn settle(
        &self,
        gid: &str,
        permissions: Rc<Vec<Permission>>,
        rules: BTreeMap<String, Identified>,
    ) {
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
            call: Identities::ACTION.to_owned(),
            kind: CloudErrorKind::Inconsistent,
            detail: format!("{} is on two pages in two states", before.rule.rule),
        }),
        Some(_) | None => Ok(()),
    }
}

struct Descriptions;

impl Listing for Descriptions {
    type Item = Described;
    const ACTION: &'static str = "DescribeSecurityGroups";
    const SET: &'static str = "securityGroupInfo";

    fn decoder() -> Decoder {
        Decoder::of(&DescribeSecurityGroups::new(), |token| {
            let output = DescribeSecurityGroupsOutput::builder();
            Output::erase(output.set_next_token(token).build())
        })
    }

    async fn page(caller: &Caller, ask: Ask<'_>) -> Result<Page<Described>, CloudError> {
        let answer = caller.ec2(Self::ACTION, async |ec2| {
            ec2.describe_security_groups()
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
                .security_groups
                .map(|found| found.iter().map(described).collect()),
            token: answer.next_token,
        })
    }
}

struct Identities;

impl Listing for Identities {
    type Item = Identified;
    const ACTION: &'static str = "DescribeSecurityGroupRules";
    const SET: &'static str = "securityGroupRuleSet";

    fn decoder() -> Decoder {
        Decoder::of(&DescribeSecurityGroupRules::new(), |token| {
            let output = DescribeSecurityGroupRulesOutput::builder();
            Output::erase(output.set_next_token(token).build())
        })
    }

    async fn page(caller: &Caller, ask: Ask<'_>) -> Result<Page<Identified>, CloudError> {
        let answer = caller.ec2(Self::ACTION, async |ec2| {
            ec2.describe_security_group_rules()
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
                .security_group_rules
                .map(|found| found.iter().map(identified).collect()),
            token: answer.next_token,
        })
    }
}

/// One group.
fn described(raw: &SecurityGroup) -> Result<Described, &'static str> {
    let gid = raw.group_id().ok_or("group id")?;
    let mut permissions = Vec::new();
    for (entries, is_egress) in [
        (raw.ip_permissions(), false),
        (raw.ip_permissions_egress(), true),
    ] {
        for entry in entries {
            permissions_of(entry, is_egress, &mut permissions);
        }
    }
    permissions.sort_unstable();
    Ok(Described {
        gid: gid.to_owned(),
        permissions: Rc::new(permissions),
    })
}

/// The single permissions within one entry of a group, which has many targets.
fn permissions_of(entry: &IpPermission, is_egress: bool, into: &mut Vec<Permission>) {
    let v4 = entry.ip_ranges().iter();
    let v6 = entry.ipv6_ranges().iter();
    let lists = entry.prefix_list_ids().iter();
    let groups = entry.user_id_group_pairs().iter();
    let targets = v4
        .map(|range| (range.cidr_ip(), range.description()))
        .chain(v6.map(|range| (range.cidr_ipv6(), range.description())))
        .chain(lists.map(|list| (list.prefix_list_id(), list.description())))
        .chain(groups.map(|group| (group.group_id(), group.description())));
    let ports = ports(entry.from_port(), entry.to_port());
    into.extend(targets.map(|(target, description)| {
        permission(is_egress, entry.ip_protocol(), ports, target, description)
    }));
}

/// Writes a permission so that the two calls write it alike.
fn permission(
    is_egress: bool,
    protocol: Option<&str>,
    (from, to): (i32, i32),
    target: Option<&str>,
    description: Option<&str>,
) -> Permission {
    let protocol = protocol.unwrap_or_default();
    let target = target.unwrap_or_default();
    let target = target
        .parse::<IpNet>()
        .map_or_else(|_| target.to_owned(), |net| net.to_string());
    let description = description.unwrap_or_default();
    format!("{is_egress} {protocol} {from} {to} {target} {description}")
}

/// First and last port; -1 where the service leaves them out.
fn ports(from: Option<i32>, to: Option<i32>) -> (i32, i32) {
    (from.unwrap_or(-1), to.unwrap_or(-1))
}

/// One rule.
fn identified(raw: &SecurityGroupRule) -> Result<Identified, &'static str> {
    fn given(text: Option<&str>) -> Option<&str> {
        text.filter(|text| !text.is_empty())
    }
    let egress = raw.is_egress().ok_or("direction of a rule")?;
    let group = raw.referenced_group_info();
    let cidr = given(raw.cidr_ipv4()).or_else(|| given(raw.cidr_ipv6()));
    let target = cidr
        .or_else(|| given(raw.prefix_list_id()))
        .or_else(|| group.and_then(|group| group.group_id()));
    let protocol = given(raw.ip_protocol());
    let ports = ports(raw.from_port(), raw.to_port());
    let description = given(raw.description());
    Ok(Identified {
        permission: permission(egress, protocol, ports, target, description),
        rule: DescribedRule {
            gid: given(raw.group_id()).ok_or("group id")?.to_owned(),
            rule: given(raw.security_group_rule_id())
                .ok_or("rule id")?
                .to_owned(),
            standing: if egress {
                Standing::Active
            } else {
                Standing::Ingress
            },
            protocol: protocol.unwrap_or_default().to_owned(),
            ports,
            cidr: cidr.and_then(|text| text.parse().ok()),
            description: description.unwrap_or_default().to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{
        IpRange, Ipv6Range, ReferencedSecurityGroup, UserIdGroupPair,
        builders::SecurityGroupRuleBuilder,
    };

    use super::*;

    #[test]
    fn both_calls_write_a_permission_alike() {
        const NOTE: &str = "postern:tls:a.example";
        let https = IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(443)
            .to_port(443)
            .ip_ranges(
                IpRange::builder()
                    .cidr_ip("0.0.0.0/0")
                    .description(NOTE)
                    .build(),
            )
            .ipv6_ranges(Ipv6Range::builder().cidr_ipv6("2001:DB8::/32").build());
        let peer = UserIdGroupPair::builder().group_id("sg-2").build();
        let all = IpPermission::builder()
            .ip_protocol("-1")
            .user_id_group_pairs(peer);
        let group = SecurityGroup::builder()
            .group_id("sg-1")
            .ip_permissions_egress(https.build())
            .ip_permissions_egress(all.build());
        let rule = |make: fn(SecurityGroupRuleBuilder) -> SecurityGroupRuleBuilder| {
            let raw = SecurityGroupRule::builder()
                .group_id("sg-1")
                .security_group_rule_id("sgr-1")
                .is_egress(true);
            identified(&make(raw).build()).unwrap().permission
        };
        let mut rules = [
            rule(|raw| {
                let raw = raw.ip_protocol("tcp").from_port(443).to_port(443);
                raw.cidr_ipv4("0.0.0.0/0").description(NOTE)
            }),
            rule(|raw| {
                let raw = raw.ip_protocol("tcp").from_port(443).to_port(443);
                raw.cidr_ipv6("2001:db8::/32")
            }),
            rule(|raw| {
                let group = ReferencedSecurityGroup::builder().group_id("sg-2").build();
                let raw = raw.ip_protocol("-1").from_port(-1).to_port(-1);
                raw.referenced_group_info(group)
            }),
        ];
        rules.sort_unstable();
        assert_eq!(*described(&group.build()).unwrap().permissions, rules);
    }

    #[test]
    fn a_rule_without_a_direction_is_no_rule() {
        let raw = SecurityGroupRule::builder().group_id("sg-1");
        let raw = raw.security_group_rule_id("sgr-1").build();
        assert_eq!(identified(&raw), Err("direction of a rule"));
    }
}
