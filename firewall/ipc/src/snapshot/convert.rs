//! Between the document and the types that decide: every word is checked on the way in.

use std::fmt;
use std::str::FromStr;

use policy::{
    Client, Date, Draft, Entry, Fault, Group, HostKeyPin, Kind, Name, Pattern, PortRange,
    Preferences, Rule, RuleTransport,
};

use super::{
    ClientV1, EntryV1, FaultV1, GroupV1, KindV1, PreferencesV1, RuleV1, SnapshotV1, TransportV1,
};

/// A document that is well formed and says something impossible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct InvalidSnapshot {
    /// Where in the document: `groups[3].rules[1].entries[0].name`.
    pub place: String,
    /// What is wrong there.
    pub why: String,
}

impl InvalidSnapshot {
    fn new(place: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self {
            place: place.to_string(),
            why: why.to_string(),
        }
    }

    /// The same, told by whoever holds the object that this was found in.
    fn within(self, object: impl fmt::Display) -> Self {
        Self {
            place: format!("{object}.{}", self.place),
            ..self
        }
    }
}

impl TryFrom<SnapshotV1> for Draft {
    type Error = InvalidSnapshot;

    fn try_from(document: SnapshotV1) -> Result<Self, InvalidSnapshot> {
        Ok(Self {
            preferences: preferences(&document.preferences)?,
            groups: groups(document.groups)?,
            clients: document.clients.into_iter().map(client).collect(),
            served: document.served,
            faults: each("faults", document.faults, fault)?,
        })
    }
}

/// Converts every group.
pub(super) fn groups(documents: Vec<GroupV1>) -> Result<Vec<Group>, InvalidSnapshot> {
    each("groups", documents, group)
}

/// Converts a list. Where something is, is put together on the way out only: a large policy has tens of thousands of
/// places, and as a rule nothing is wrong at any.
fn each<A, B>(
    list: &str,
    items: Vec<A>,
    convert: impl Fn(A) -> Result<B, InvalidSnapshot>,
) -> Result<Vec<B>, InvalidSnapshot> {
    let numbered = items.into_iter().enumerate();
    numbered
        .map(|(index, item)| {
            convert(item).map_err(|invalid| invalid.within(format_args!("{list}[{index}]")))
        })
        .collect()
}

/// Reads one of our own words or notations.
fn word<T: FromStr<Err: fmt::Display>>(place: &str, text: &str) -> Result<T, InvalidSnapshot> {
    text.parse().map_err(|why| InvalidSnapshot::new(place, why))
}

fn preferences(document: &PreferencesV1) -> Result<Preferences, InvalidSnapshot> {
    let zone = |zone: &String| {
        Name::parse(zone.as_bytes())
            .map_err(|why| InvalidSnapshot::new("preferences.internal_zones", why))
    };
    Ok(Preferences {
        wildcard_exposure: word("preferences.wildcard_exposure", &document.wildcard_exposure)?,
        flow_log_verbosity: word(
            "preferences.flow_log_verbosity",
            &document.flow_log_verbosity,
        )?,
        see_thru: document
            .see_thru
            .as_deref()
            .map(|day| date("preferences.see_thru", day))
            .transpose()?,
        x509_crls: word("preferences.x509_crls", &document.x509_crls)?,
        certificate_check: word("preferences.certificate_check", &document.certificate_check)?,
        address_mismatch: word("preferences.address_mismatch", &document.address_mismatch)?,
        ech: word("preferences.ech", &document.ech)?,
        plaintext_http: word("preferences.plaintext_http", &document.plaintext_http)?,
        address_rules: word("preferences.address_rules", &document.address_rules)?,
        quic: word("preferences.quic", &document.quic)?,
        on_policy_change: word("preferences.on_policy_change", &document.on_policy_change)?,
        allow_private_answers: document.allow_private_answers.clone(),
        dns_front: word("preferences.dns_front", &document.dns_front)?,
        internal_zones: document
            .internal_zones
            .iter()
            .map(zone)
            .collect::<Result<_, _>>()?,
    })
}

fn date(place: &str, text: &str) -> Result<Date, InvalidSnapshot> {
    Date::parse(text).map_err(|why| InvalidSnapshot::new(place, why))
}

fn group(document: GroupV1) -> Result<Group, InvalidSnapshot> {
    let rules = each("rules", document.rules, rule)?;
    Ok(Group {
        gid: document.gid,
        rules,
    })
}

fn rule(document: RuleV1) -> Result<Rule, InvalidSnapshot> {
    let (from, to) = document.ports;
    if from > to {
        return Err(InvalidSnapshot::new("ports", "the first is over the last"));
    }
    Ok(Rule {
        rule: document.rule,
        transport: match document.transport {
            TransportV1::Tcp => RuleTransport::Tcp,
            TransportV1::Udp => RuleTransport::Udp,
            TransportV1::All => RuleTransport::All,
        },
        ports: PortRange { from, to },
        cidr: document.cidr,
        entries: each("entries", document.entries, entry)?,
    })
}

fn entry(document: EntryV1) -> Result<Entry, InvalidSnapshot> {
    Ok(match document {
        EntryV1::Name {
            kind,
            name,
            host_key,
            list,
        } => Entry::Name {
            kind: kind.into(),
            name: Name::parse(name.as_bytes()).map_err(|why| InvalidSnapshot::new("name", why))?,
            host_key: match host_key {
                Some(text) => Some(word::<HostKeyPin>("host_key", &text)?),
                None => None,
            },
            list,
        },
        EntryV1::Pattern {
            kind,
            pattern,
            list,
        } => Entry::Pattern {
            kind: kind.into(),
            pattern: Pattern::parse(&pattern)
                .map_err(|why| InvalidSnapshot::new("pattern", why))?,
            list,
        },
        EntryV1::Address { comment } => Entry::Address { comment },
        EntryV1::SeeThru { until } => Entry::SeeThru {
            until: date("until", &until)?,
        },
    })
}

fn client(document: ClientV1) -> Client {
    Client {
        net: document.net,
        instance: document.instance,
        groups: document.groups,
    }
}

fn fault(document: FaultV1) -> Result<Fault, InvalidSnapshot> {
    Ok(Fault {
        kind: word("kind", &document.kind)?,
        object: document.object,
        rule: document.rule,
        list: document.list,
        line: document.line.and_then(|line| usize::try_from(line).ok()),
        column: document
            .column
            .and_then(|column| usize::try_from(column).ok()),
        text: document.text,
        detail: document.detail,
    })
}

impl From<KindV1> for Kind {
    fn from(kind: KindV1) -> Self {
        match kind {
            KindV1::Tls => Self::Tls,
            KindV1::Ssh => Self::Ssh,
            KindV1::Http => Self::Http,
        }
    }
}

impl From<Kind> for KindV1 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Tls => Self::Tls,
            Kind::Ssh => Self::Ssh,
            Kind::Http => Self::Http,
        }
    }
}

impl From<&Draft> for SnapshotV1 {
    fn from(draft: &Draft) -> Self {
        Self {
            version: 1,
            preferences: (&draft.preferences).into(),
            groups: draft.groups.iter().map(Into::into).collect(),
            clients: draft.clients.iter().map(Into::into).collect(),
            served: draft.served.clone(),
            faults: draft.faults.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Preferences> for PreferencesV1 {
    fn from(preferences: &Preferences) -> Self {
        Self {
            wildcard_exposure: preferences.wildcard_exposure.to_string(),
            flow_log_verbosity: preferences.flow_log_verbosity.to_string(),
            see_thru: preferences.see_thru.map(|date| date.to_string()),
            x509_crls: preferences.x509_crls.to_string(),
            certificate_check: preferences.certificate_check.to_string(),
            address_mismatch: preferences.address_mismatch.to_string(),
            ech: preferences.ech.to_string(),
            plaintext_http: preferences.plaintext_http.to_string(),
            address_rules: preferences.address_rules.to_string(),
            quic: preferences.quic.to_string(),
            on_policy_change: preferences.on_policy_change.to_string(),
            allow_private_answers: preferences.allow_private_answers.clone(),
            dns_front: preferences.dns_front.to_string(),
            internal_zones: preferences
                .internal_zones
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }
}

impl From<&Group> for GroupV1 {
    fn from(group: &Group) -> Self {
        Self {
            gid: group.gid.clone(),
            rules: group.rules.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Rule> for RuleV1 {
    fn from(rule: &Rule) -> Self {
        Self {
            rule: rule.rule.clone(),
            transport: match rule.transport {
                RuleTransport::Tcp => TransportV1::Tcp,
                RuleTransport::Udp => TransportV1::Udp,
                RuleTransport::All => TransportV1::All,
            },
            ports: (rule.ports.from, rule.ports.to),
            cidr: rule.cidr,
            entries: rule.entries.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Entry> for EntryV1 {
    fn from(entry: &Entry) -> Self {
        match entry {
            Entry::Name {
                kind,
                name,
                host_key,
                list,
            } => Self::Name {
                kind: (*kind).into(),
                name: name.as_str().to_owned(),
                host_key: host_key.map(|pin| pin.to_string()),
                list: list.clone(),
            },
            Entry::Pattern {
                kind,
                pattern,
                list,
            } => Self::Pattern {
                kind: (*kind).into(),
                pattern: pattern.as_str().to_owned(),
                list: list.clone(),
            },
            Entry::Address { comment } => Self::Address {
                comment: comment.clone(),
            },
            Entry::SeeThru { until } => Self::SeeThru {
                until: until.to_string(),
            },
        }
    }
}

impl From<&Client> for ClientV1 {
    fn from(client: &Client) -> Self {
        Self {
            net: client.net,
            instance: client.instance.clone(),
            groups: client.groups.clone(),
        }
    }
}

impl From<&Fault> for FaultV1 {
    fn from(fault: &Fault) -> Self {
        Self {
            object: fault.object.clone(),
            rule: fault.rule.clone(),
            list: fault.list.clone(),
            line: fault.line.and_then(|line| u32::try_from(line).ok()),
            column: fault.column.and_then(|column| u32::try_from(column).ok()),
            kind: fault.kind.to_string(),
            text: fault.text.clone(),
            detail: fault.detail.clone(),
        }
    }
}
