//! From what a cloud says to one policy and a list of faults. Pure.
//!
//! A fault spares the rest: a description that cannot be read costs its own entries and nothing
//! else, and an address in two places costs a line in the log.

use std::collections::BTreeMap;

use ipc::snapshot::SnapshotV1;
use policy::annotation::{self, ListBody, ListReference, Site, Standing};
use policy::{
    Client, Draft, Fault, FaultKind, Group, PortRange, Preferences, RejectedDraft, Rule,
    RuleTransport, Snapshot,
};

use crate::cloud::{DescribedRule, Interface, Reading};
use crate::documents::Kept;

/// One policy, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publication {
    /// What every appliance with this policy calls it.
    pub(crate) policy_id: String,
    /// The document, the same bytes for the same policy.
    pub(crate) json: String,
    /// The policy, in canonical order.
    pub(crate) draft: Draft,
}

impl Publication {
    /// Compiles a draft as the daemon will, so that one over a limit never leaves here.
    ///
    /// # Errors
    ///
    /// When the daemon would refuse it.
    pub(crate) fn new(draft: Draft) -> Result<Self, RejectedDraft> {
        let snapshot = Snapshot::compile(draft, 0)?;
        let document = SnapshotV1::from(snapshot.draft());
        Ok(Self {
            policy_id: snapshot.policy_id().to_owned(),
            // A document has no map with keys that are not strings, the one thing JSON refuses.
            json: document.to_json().unwrap_or_default(),
            draft: snapshot.draft().clone(),
        })
    }
}

/// Makes one policy of a reading and the documents beside it.
pub(crate) fn assemble(reading: &Reading, kept: &Kept) -> Draft {
    let preferences = &kept.preferences;
    let mut groups: BTreeMap<&str, Vec<Rule>> = BTreeMap::new();
    let mut faults = kept.faults.clone();
    for described in &reading.rules {
        let (rule, found) = rule(described, preferences, &kept.lists);
        faults.extend(found);
        if let Some(rule) = rule {
            groups.entry(&described.gid).or_default().push(rule);
        }
    }
    faults.extend(
        reading
            .troubles
            .iter()
            .map(|trouble| Fault::new(&trouble.object, FaultKind::Unreadable, "", &trouble.detail)),
    );
    let group = |(gid, rules): (&str, Vec<Rule>)| Group {
        gid: gid.to_owned(),
        rules,
    };
    Draft {
        preferences: preferences.clone(),
        groups: groups.into_iter().map(group).collect(),
        clients: reading.interfaces.iter().flat_map(clients).collect(),
        served: reading.served.clone(),
        faults,
    }
}

/// What one rule allows; nothing when its description is no annotation.
fn rule(
    described: &DescribedRule,
    preferences: &Preferences,
    lists: &BTreeMap<ListReference, ListBody>,
) -> (Option<Rule>, Vec<Fault>) {
    let transport = transport(&described.protocol);
    let site = Site {
        object: &described.gid,
        rule: Some(&described.rule),
        transport,
        cidr: described.cidr,
        standing: described.standing,
        preferences,
    };
    let mut list = |reference: &ListReference| match lists.get(reference) {
        Some(body) => body.clone(),
        None => Err("the list was not read".to_owned()),
    };
    let read = annotation::read(&described.description, &site, &mut list);
    // An annotated rule with nothing left of it stays: its group is one that lists names.
    let rule = transport
        .filter(|_| read.is_annotation && described.standing == Standing::Active)
        .map(|transport| Rule {
            rule: described.rule.clone(),
            transport,
            ports: ports(transport, described.ports),
            cidr: described.cidr,
            entries: read.entries,
        });
    (rule, read.faults)
}

/// The protocol of a rule, where an entry can use it: a word, or an IANA number.
fn transport(protocol: &str) -> Option<RuleTransport> {
    match protocol {
        "tcp" | "6" => Some(RuleTransport::Tcp),
        "udp" | "17" => Some(RuleTransport::Udp),
        "-1" | "all" => Some(RuleTransport::All),
        _ => None,
    }
}

/// The ports of a rule. `-1` as the protocol means any port, whatever the numbers say.
fn ports(transport: RuleTransport, (from, to): (i32, i32)) -> PortRange {
    match (transport, u16::try_from(from), u16::try_from(to)) {
        (RuleTransport::Tcp | RuleTransport::Udp, Ok(from), Ok(to)) if from <= to => {
            PortRange { from, to }
        }
        (RuleTransport::Tcp | RuleTransport::Udp | RuleTransport::All, _, _) => PortRange::ALL,
    }
}

/// One client for each address and prefix of an interface.
fn clients(interface: &Interface) -> impl Iterator<Item = Client> {
    interface.nets.iter().map(|net| Client {
        net: *net,
        instance: interface.instance.clone(),
        groups: interface.groups.clone(),
    })
}

#[cfg(test)]
mod tests;
