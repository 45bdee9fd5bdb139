//! The one order of a draft's content, its limits and its identity.

use std::collections::HashSet;
use std::fmt::{Display, Write as _};

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use crate::{Client, Draft, Entry, Fault, FaultKind, Group, Rule};

/// Clients in one policy.
pub const CLIENTS_MAX: usize = 100_000;

/// Rules in one policy, over all groups.
pub const RULES_MAX: usize = 50_000;

/// Distinct names and patterns in one policy.
pub const NAMES_MAX: usize = 200_000;

/// Bytes of content in one policy, as counted for its identity.
pub const CONTENT_BYTES_MAX: usize = 64 << 20;

/// Why a draft was refused whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectedDraft {
    /// More than [`CLIENTS_MAX`] clients.
    #[error("the policy has {0} clients; at most 100000 are adopted")]
    Clients(usize),
    /// More than [`RULES_MAX`] rules.
    #[error("the policy has {0} rules; at most 50000 are adopted")]
    Rules(usize),
    /// More than [`NAMES_MAX`] names and patterns.
    #[error("the policy has {0} names and patterns; at most 200000 are adopted")]
    Names(usize),
    /// More than [`CONTENT_BYTES_MAX`] bytes.
    #[error("the policy has {0} bytes of content; at most 67108864 are adopted")]
    Bytes(usize),
}

/// Puts a draft in canonical order, merging what adds up.
pub(super) fn canonicalise(mut draft: Draft) -> Result<Draft, RejectedDraft> {
    check_counts(&draft)?;
    draft.groups = merged_groups(draft.groups);
    draft.clients = merged_clients(draft.clients, &mut draft.faults);
    draft.served.iter_mut().for_each(|net| *net = net.trunc());
    draft.served.sort_unstable();
    draft.served.dedup();
    let preferences = &mut draft.preferences;
    preferences
        .allow_private_answers
        .iter_mut()
        .for_each(|net| *net = net.trunc());
    preferences.allow_private_answers.sort_unstable();
    preferences.allow_private_answers.dedup();
    preferences.internal_zones.sort_unstable();
    preferences.internal_zones.dedup();
    draft.faults.sort_unstable();
    draft.faults.dedup();
    Ok(draft)
}

/// Refuses a draft that is past a limit.
fn check_counts(draft: &Draft) -> Result<(), RejectedDraft> {
    let clients = draft.clients.len();
    if clients > CLIENTS_MAX {
        return Err(RejectedDraft::Clients(clients));
    }
    let rules = draft.groups.iter().map(|group| group.rules.len()).sum();
    if rules > RULES_MAX {
        return Err(RejectedDraft::Rules(rules));
    }
    let entries = draft
        .groups
        .iter()
        .flat_map(|group| &group.rules)
        .flat_map(|rule| &rule.entries);
    let texts = entries.filter_map(|entry| match entry {
        Entry::Name { name, .. } => Some(name.as_str()),
        Entry::Pattern { pattern, .. } => Some(pattern.as_str()),
        Entry::Address { .. } | Entry::SeeThru { .. } => None,
    });
    let names = texts.collect::<HashSet<_>>().len();
    if names > NAMES_MAX {
        Err(RejectedDraft::Names(names))
    } else {
        Ok(())
    }
}

/// Groups by gid; the rules of groups with one gid add up.
fn merged_groups(mut groups: Vec<Group>) -> Vec<Group> {
    groups.sort_by(|a, b| a.gid.cmp(&b.gid));
    let mut merged: Vec<Group> = Vec::with_capacity(groups.len());
    for group in groups {
        match merged.last_mut().filter(|last| last.gid == group.gid) {
            Some(last) => last.rules.extend(group.rules),
            None => merged.push(group),
        }
    }
    for group in &mut merged {
        group.rules.iter_mut().for_each(order_rule);
        group.rules.sort_unstable();
        group.rules.dedup();
    }
    merged
}

/// Orders what one rule holds.
fn order_rule(rule: &mut Rule) {
    rule.cidr = rule.cidr.map(|net| net.trunc());
    rule.entries.sort_unstable();
    rule.entries.dedup();
}

/// Clients by prefix; the groups of clients with one prefix add up, which is a fault.
fn merged_clients(mut clients: Vec<Client>, faults: &mut Vec<Fault>) -> Vec<Client> {
    for client in &mut clients {
        client.net = client.net.trunc();
        client.groups.sort_unstable();
        client.groups.dedup();
    }
    // The instance is part of the order, so that the one which is kept never depends on the input's.
    clients.sort_unstable();
    clients.dedup();
    let mut merged: Vec<Client> = Vec::with_capacity(clients.len());
    for client in clients {
        match merged.last_mut().filter(|last| last.net == client.net) {
            Some(last) => {
                faults.push(duplicate(last, &client));
                last.groups.extend(client.groups);
            }
            None => merged.push(client),
        }
    }
    for client in &mut merged {
        client.groups.sort_unstable();
        client.groups.dedup();
    }
    merged
}

/// The fault of two instances with one prefix.
fn duplicate(kept: &Client, other: &Client) -> Fault {
    let object = address_text(kept.net);
    let detail = format!(
        "also the address of {:?}: the groups of both add up",
        kept.instance
    );
    Fault::new(&object, FaultKind::DuplicateClient, &other.instance, detail)
}

/// A prefix as people write it: a single address without its length.
pub(crate) fn address_text(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// The identity of a canonical draft: the first 16 hexadecimal digits of SHA-256.
///
/// Faults are not content: they describe objects that had no effect.
pub(super) fn policy_id(draft: &Draft) -> Result<String, RejectedDraft> {
    let mut content = Content::default();
    for (key, value) in draft.preferences.pairs() {
        content.item(b'p', [key, value.as_str()]);
    }
    let (mut cidr, mut ports) = (String::new(), String::new());
    for group in &draft.groups {
        content.item(b'g', [group.gid.as_str()]);
        for rule in &group.rules {
            cidr.clear();
            if let Some(net) = rule.cidr {
                put(&mut cidr, net);
            }
            put(&mut ports, rule.ports);
            content.item(
                b'r',
                [rule.rule.as_str(), rule.transport.as_str(), &ports, &cidr],
            );
            rule.entries.iter().for_each(|entry| content.entry(entry));
        }
    }
    for client in &draft.clients {
        put(&mut cidr, client.net);
        content.item(b'c', [cidr.as_str(), client.instance.as_str()]);
        client
            .groups
            .iter()
            .for_each(|gid| content.item(b'm', [gid.as_str()]));
    }
    draft
        .served
        .iter()
        .for_each(|net| content.item(b's', [net.to_string().as_str()]));
    if content.bytes > CONTENT_BYTES_MAX {
        return Err(RejectedDraft::Bytes(content.bytes));
    }
    Ok(content
        .finish()
        .into_iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Replaces what a text holds.
fn put(text: &mut String, by: impl Display) {
    text.clear();
    match write!(text, "{by}") {
        // A string takes whatever it is given.
        Ok(()) | Err(_) => {}
    }
}

/// Content as it is hashed: each item is a tag, a count, and texts behind their lengths, so that no
/// two drafts share an encoding.
#[derive(Default)]
struct Content {
    hash: Sha256,
    /// Bytes on their way into it: a hundred thousand short texts are dear one by one.
    waiting: Vec<u8>,
    bytes: usize,
}

/// Bytes that go into the hash at a time.
const HASHED_AT_ONCE: usize = 16 << 10;

impl Content {
    fn item<const N: usize>(&mut self, tag: u8, texts: [&str; N]) {
        self.add(&[tag]);
        for text in texts {
            self.add(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            self.add(text.as_bytes());
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let list = entry.list().unwrap_or_default();
        match entry {
            Entry::Name {
                kind,
                name,
                host_key,
                ..
            } => {
                let pin = host_key.map(|pin| pin.to_string()).unwrap_or_default();
                self.item(b'n', [kind.as_str(), name.as_str(), &pin, list]);
            }
            Entry::Pattern { kind, pattern, .. } => {
                self.item(b'w', [kind.as_str(), pattern.as_str(), list]);
            }
            Entry::Address { comment } => {
                self.item(b'a', [comment.as_deref().unwrap_or_default()]);
            }
            Entry::SeeThru { until } => self.item(b't', [until.to_string().as_str()]),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.waiting.len() >= HASHED_AT_ONCE {
            self.hash.update(&self.waiting);
            self.waiting.clear();
        }
    }

    fn finish(mut self) -> impl IntoIterator<Item = u8> {
        self.hash.update(&self.waiting);
        self.hash.finalize()
    }
}
