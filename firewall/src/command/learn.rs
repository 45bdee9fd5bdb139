//! `postern learn`: an allowlist from what see-thru saw.

use std::collections::{BTreeMap, BTreeSet};

use ipc::record::{FlowCat, FlowLineV1, FlowOutcome};
use policy::Name;
use policy::annotation::AWS_DESCRIPTION_CHARS_MAX;

use super::review::each_line;
use crate::cli::{Failure, Finding, LearnArgs, LearnFormat, print};

/// What one description may speak of: a kind of entry on one port.
type Lane = (&'static str, u16);

/// Prints rules for every name that only see-thru let pass; exit code 1 when some flow claimed
/// no name, so that no rule by name can replace see-thru.
pub(crate) fn run(args: &LearnArgs) -> Result<Finding, Failure> {
    let mut lanes: BTreeMap<Lane, BTreeSet<Name>> = BTreeMap::new();
    let mut nameless = BTreeSet::new();
    each_line(&args.logs, |value| {
        let Ok(line) = serde_json::from_value::<FlowLineV1>(value) else {
            return;
        };
        if !is_wanted(&line, args.gid.as_deref()) {
            return;
        }
        match (kind(&line), Name::parse(line.dhost.as_str().as_bytes())) {
            (Some(kind), Ok(name)) => {
                lanes.entry((kind, line.dpt)).or_default().insert(name);
            }
            _ => drop(nameless.insert((line.proto.as_str().to_owned(), line.dst, line.dpt))),
        }
    })?;
    let rules: Vec<(u16, String)> = lanes
        .into_iter()
        .flat_map(|((kind, port), names)| {
            pack(kind, &names)
                .into_iter()
                .map(move |description| (port, description))
        })
        .collect();
    print(&match args.format {
        LearnFormat::Annotation => annotations(&rules),
        LearnFormat::Terraform => terraform(&rules),
        LearnFormat::Inventory => inventory(&rules, args.gid.as_deref().unwrap_or("learnt")),
    });
    for (proto, address, port) in &nameless {
        tracing::warn!(proto, %address, port, "claimed no name: needs an address rule");
    }
    Ok(if nameless.is_empty() {
        Finding::None
    } else {
        Finding::Some
    })
}

fn is_wanted(line: &FlowLineV1, gid: Option<&str>) -> bool {
    line.cat == FlowCat::Client
        && line.outcome == FlowOutcome::Allowed
        && line.see_thru_exerted == Some(true)
        && gid.is_none_or(|gid| {
            line.see_thru_gid
                .as_ref()
                .is_some_and(|seen| seen.as_str() == gid)
        })
}

fn kind(line: &FlowLineV1) -> Option<&'static str> {
    match line.proto.as_str() {
        "tls" => Some("tls"),
        "ssh" => Some("ssh"),
        "http" => Some("http"),
        _ => None,
    }
}

/// Descriptions that list every name, each as long as AWS stores.
fn pack(kind: &str, names: &BTreeSet<Name>) -> Vec<String> {
    let mut descriptions: Vec<String> = Vec::new();
    for name in names {
        let fits = descriptions.last_mut().filter(|last| {
            last.len().saturating_add(name.as_str().len()) < AWS_DESCRIPTION_CHARS_MAX
        });
        match fits {
            Some(last) => {
                last.push(',');
                last.push_str(name.as_str());
            }
            None => descriptions.push(format!("postern:{kind}:{name}")),
        }
    }
    descriptions
}

fn annotations(rules: &[(u16, String)]) -> String {
    rules
        .iter()
        .map(|(port, description)| format!("{port}\t{description}\n"))
        .collect()
}

fn terraform(rules: &[(u16, String)]) -> String {
    let rule = |(port, description): &(u16, String)| {
        format!(
            "egress {{\n  protocol    = \"tcp\"\n  from_port   = {port}\n  to_port     = {port}\n  \
             cidr_blocks = [\"0.0.0.0/0\"]\n  description = \"{description}\"\n}}\n"
        )
    };
    rules.iter().map(rule).collect()
}

fn inventory(rules: &[(u16, String)], gid: &str) -> String {
    let mut text = format!("[[group]]\nid = {gid:?}\n");
    for (port, description) in rules {
        text += &format!(
            "  [[group.rule]]\n  description = \"{description}\"\n  protocol = \"tcp\"\n  \
             ports = \"{port}\"\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> BTreeSet<Name> {
        let name = |index| Name::parse(format!("host-{index:03}.example.org").as_bytes()).unwrap();
        (0..count).map(name).collect()
    }

    #[test]
    fn packed_descriptions_fit_255_characters_and_lose_no_name() {
        let descriptions = pack("tls", &names(50));
        assert!(
            descriptions.iter().all(|text| text.len() <= 255),
            "{descriptions:?}"
        );
        let listed: usize = descriptions
            .iter()
            .map(|text| text.split(',').count())
            .sum();
        assert_eq!(listed, 50);
        assert!(descriptions.len() <= 5);
    }

    #[test]
    fn learnt_inventory_reads_back() {
        let rules: Vec<_> = pack("tls", &names(3))
            .into_iter()
            .map(|text| (443, text))
            .collect();
        let mut no_lists = |_: &policy::annotation::ListReference| Err("no lists".to_owned());
        let text = inventory(&rules, "web");
        let scope = policy::inventory::Scope::Whole;
        let draft = policy::inventory::read(&text, scope, &mut no_lists).unwrap();
        assert_eq!(draft.groups[0].rules[0].entries.len(), 3);
    }
}
