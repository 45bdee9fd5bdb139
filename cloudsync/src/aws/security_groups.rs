//! Rules of exactly the groups in use, with their ids.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, SecurityGroupRule};
use ipnet::IpNet;
use policy::annotation::Standing;

use super::error::{classify, incomplete};
use super::inventory::{FILTER_VALUES_MAX, PAGES_MAX};
use crate::cloud::{CloudError, CloudErrorKind, DescribedRule, Interface, Unreadable};

/// Rules to ask for at a time: the most the service gives.
const PAGE: i32 = 1_000;

/// Every rule of these groups, and how many pages that took.
///
/// The service has no filter for egress; rules for ingress are read too, and an annotation on
/// one is a fault.
pub(super) async fn rules(
    ec2: &Client,
    groups: &BTreeSet<String>,
) -> Result<(Vec<DescribedRule>, u32), CloudError> {
    let mut found = BTreeMap::new();
    let mut pages = 0;
    let groups: Vec<&String> = groups.iter().collect();
    for chunk in groups.chunks(FILTER_VALUES_MAX) {
        pages += rules_of(ec2, group_filter(chunk), &mut found).await?;
    }
    Ok((found.into_values().collect(), pages))
}

async fn rules_of(
    ec2: &Client,
    filter: Filter,
    found: &mut BTreeMap<String, DescribedRule>,
) -> Result<u32, CloudError> {
    const CALL: &str = "DescribeSecurityGroupRules";
    let mut token = None;
    for page in 1..=PAGES_MAX {
        let answer = ec2
            .describe_security_group_rules()
            .filters(filter.clone())
            .max_results(PAGE)
            .set_next_token(token)
            .send()
            .await
            .map_err(|error| classify(CALL, page, error))?;
        let Some(rules) = answer.security_group_rules else {
            return Err(incomplete(CALL, page, "securityGroupRuleSet"));
        };
        for raw in &rules {
            let rule = rule(raw).ok_or_else(|| incomplete(CALL, page, "rule id or direction"))?;
            note(found, rule)?;
        }
        token = answer.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(page);
        }
    }
    Err(incomplete(CALL, PAGES_MAX, "end"))
}

/// Keeps a rule; one that is on two pages in two states makes the reading worthless.
fn note(
    found: &mut BTreeMap<String, DescribedRule>,
    rule: DescribedRule,
) -> Result<(), CloudError> {
    match found.insert(rule.rule.clone(), rule) {
        Some(before) if found.get(&before.rule) != Some(&before) => Err(CloudError {
            call: "DescribeSecurityGroupRules".to_owned(),
            kind: CloudErrorKind::Inconsistent,
            detail: format!("{} is on two pages in two states", before.rule),
        }),
        Some(_) | None => Ok(()),
    }
}

/// One rule; `None` when it lacks an id, its group, or which way it goes.
fn rule(raw: &SecurityGroupRule) -> Option<DescribedRule> {
    let cidr = raw
        .cidr_ipv4()
        .or_else(|| raw.cidr_ipv6())
        .filter(|text| !text.is_empty());
    Some(DescribedRule {
        gid: raw.group_id()?.to_owned(),
        rule: raw.security_group_rule_id()?.to_owned(),
        standing: if raw.is_egress()? {
            Standing::Active
        } else {
            Standing::Ingress
        },
        protocol: raw.ip_protocol().unwrap_or_default().to_owned(),
        ports: (raw.from_port().unwrap_or(-1), raw.to_port().unwrap_or(-1)),
        cidr: cidr.and_then(|text| text.parse::<IpNet>().ok()),
        description: raw.description().unwrap_or_default().to_owned(),
    })
}

/// Groups in use that do not exist, among those no rule was found of.
///
/// A group without a rule is rare and legal. A group that is used and not there is either one
/// that was deleted while we read, or one of another account.
pub(super) async fn missing(
    ec2: &Client,
    groups: &BTreeSet<String>,
    rules: &[DescribedRule],
) -> Result<Vec<String>, CloudError> {
    const CALL: &str = "DescribeSecurityGroups";
    let with_rules: BTreeSet<&String> = rules.iter().map(|rule| &rule.gid).collect();
    let doubtful: Vec<&String> = groups
        .iter()
        .filter(|gid| !with_rules.contains(gid))
        .collect();
    let mut missing: BTreeSet<&String> = doubtful.iter().copied().collect();
    for chunk in doubtful.chunks(FILTER_VALUES_MAX) {
        // At most as many groups as asked for, so one page holds them all.
        let answer = ec2
            .describe_security_groups()
            .filters(group_filter(chunk))
            .max_results(PAGE)
            .send()
            .await
            .map_err(|error| classify(CALL, 1, error))?;
        let Some(found) = answer.security_groups else {
            return Err(incomplete(CALL, 1, "securityGroupInfo"));
        };
        let there: BTreeSet<&str> = found.iter().filter_map(|group| group.group_id()).collect();
        missing.retain(|gid| !there.contains(gid.as_str()));
    }
    Ok(missing.into_iter().cloned().collect())
}

/// The faults that missing groups become when reading again did not bring them back.
pub(super) fn unreadable(missing: Vec<String>, interfaces: &[Interface]) -> Vec<Unreadable> {
    let report = |gid: String| Unreadable {
        used_by: interfaces
            .iter()
            .filter(|interface| interface.groups.contains(&gid))
            .map(|interface| interface.id.clone())
            .collect(),
        gid,
        why: "these credentials see no such group; is it owned by another account?".to_owned(),
    };
    missing.into_iter().map(report).collect()
}

/// A filter for these groups.
fn group_filter(groups: &[&String]) -> Filter {
    let values = groups.iter().map(|gid| (*gid).clone()).collect();
    Filter::builder()
        .name("group-id")
        .set_values(Some(values))
        .build()
}
