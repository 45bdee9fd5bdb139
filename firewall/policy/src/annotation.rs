//! Descriptions to entries: the one grammar for both clouds and for files.
//!
//! A description whose first word is not ours is no annotation and says nothing. In one that is, a
//! fault drops one entry and disturbs no other.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use crate::preferences::{AddressRules, PlaintextHttp, Preferences};
use crate::suffix;
use crate::{Date, Entry, Fault, FaultKind, HostKeyPin, InvalidName, Kind, Name, Pattern};
use crate::{RuleTransport, lists};

mod lint;
mod reference;

pub(crate) use lint::distance;
pub use lint::{AWS_DESCRIPTION_CHARS_MAX, Cloud, Finding, GCP_DESCRIPTION_CHARS_MAX, lint};
pub use reference::{InvalidListReference, ListReference};

/// The first words that make a description an annotation.
pub const PREFIXES: [&str; 2] = ["postern", "discriminat"];

/// The shortest prefix an `address` annotation may stand on, for IPv4 and for IPv6.
pub const ADDRESS_PREFIX_MIN: (u8, u8) = (24, 48);

/// Where a description stands: everything about its rule that the grammar asks for.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The group, as faults name it.
    pub object: &'a str,
    /// The rule within the group, as faults name it.
    pub rule: Option<&'a str>,
    /// The rule's protocol; `None` for one that no entry can use (ICMP, GRE).
    pub transport: Option<RuleTransport>,
    /// The rule's destination prefix.
    pub cidr: Option<IpNet>,
    /// Whether the rule is one that can allow anything.
    pub standing: Standing,
    /// The deployment's preferences.
    pub preferences: &'a Preferences,
}

/// Whether a rule can allow anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It allows traffic out of the client.
    Active,
    /// It is for traffic into the client.
    Ingress,
    /// It denies.
    Deny,
    /// It is switched off.
    Disabled,
}

/// The body of an external list, or why there is none.
///
/// Whoever implements this decides what a lost list means; cloudsync hands out the last good body.
pub type ListBody = Result<Arc<str>, String>;

/// What a description says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Whether the description is an annotation at all.
    pub is_annotation: bool,
    /// What it allows.
    pub entries: Vec<Entry>,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
}

/// What kind of annotation a description is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keyword {
    Named(Kind),
    Address,
    SeeThru,
}

/// A stretch of a text, and where it begins: the column of its first character, from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    pub(crate) text: &'a str,
    pub(crate) column: usize,
}

impl<'a> Span<'a> {
    /// A whole text.
    pub(crate) fn whole(text: &'a str) -> Self {
        Self { text, column: 1 }
    }

    /// The same without white space around it.
    pub(crate) fn trimmed(self) -> Self {
        let from_start = self.text.trim_start();
        let cut = self.text.len() - from_start.len();
        let skipped = self.text.get(..cut).unwrap_or_default().chars().count();
        Self {
            text: from_start.trim_end(),
            column: self.column + skipped,
        }
    }

    /// What stands before and behind the first `separator`.
    fn split_once(self, separator: char) -> Option<(Self, Self)> {
        let (before, behind) = self.text.split_once(separator)?;
        let column = self.column + before.chars().count() + 1;
        Some((
            Self {
                text: before,
                ..self
            },
            Self {
                text: behind,
                column,
            },
        ))
    }

    /// The parts between commas.
    pub(crate) fn split_commas(self) -> impl Iterator<Item = Self> {
        let mut column = self.column;
        self.text.split(',').map(move |text| {
            let part = Self { text, column };
            column += text.chars().count() + 1;
            part
        })
    }
}

/// The annotation in a description: what stands behind the prefix, comment and white space gone.
fn annotation(text: &str) -> Option<Span<'_>> {
    let (prefix, rest) = Span::whole(text).split_once(':')?;
    let word = prefix.trimmed().text;
    if !PREFIXES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(word))
    {
        return None;
    }
    let end = rest.text.match_indices('#').map(|(at, _)| at).find(|at| {
        rest.text
            .get(..*at)
            .is_some_and(|before| before.ends_with(char::is_whitespace))
    });
    let text = end
        .and_then(|end| rest.text.get(..end))
        .unwrap_or(rest.text);
    Some(Span { text, ..rest })
}

/// Reads a description.
///
/// `list` is asked for each external list the description refers to.
pub fn read(
    text: &str,
    site: &Site<'_>,
    list: &mut dyn FnMut(&ListReference) -> ListBody,
) -> Reading {
    let Some(annotation) = annotation(text) else {
        return Reading::default();
    };
    let mut reader = Reader {
        site,
        list,
        reading: Reading {
            is_annotation: true,
            ..Reading::default()
        },
    };
    reader.annotation(annotation);
    reader.reading
}

/// Whether a description is an annotation at all, well written or not.
pub fn is_annotation(text: &str) -> bool {
    annotation(text).is_some()
}

/// Whether a description is an annotation of the kind that compares its rule's prefix.
pub fn compares_prefix(text: &str) -> bool {
    let keyword = annotation(text)
        .and_then(|span| span.text.split(':').next())
        .and_then(|word| keyword_of(word.trim()));
    keyword == Some(Keyword::Address)
}

/// The external lists that a description refers to, for those who have to fetch them first.
pub fn references(text: &str) -> Vec<ListReference> {
    let entries = annotation(text).and_then(|span| span.split_once(':'));
    let Some((keyword, entries)) = entries else {
        return Vec::new();
    };
    match keyword_of(keyword.trimmed().text) {
        Some(Keyword::Named(_)) => entries
            .split_commas()
            .filter_map(|entry| ListReference::parse(entry.trimmed().text.strip_prefix('@')?).ok())
            .collect(),
        Some(Keyword::Address | Keyword::SeeThru) | None => Vec::new(),
    }
}

/// The keyword of an annotation, in any case.
fn keyword_of(word: &str) -> Option<Keyword> {
    match word.to_ascii_lowercase().as_str() {
        "address" => Some(Keyword::Address),
        "see-thru" => Some(Keyword::SeeThru),
        kind => kind.parse().ok().map(Keyword::Named),
    }
}

/// One description being read.
struct Reader<'a> {
    site: &'a Site<'a>,
    list: &'a mut dyn FnMut(&ListReference) -> ListBody,
    reading: Reading,
}

impl Reader<'_> {
    /// Reads what stands behind the prefix.
    fn annotation(&mut self, span: Span<'_>) {
        let (keyword, rest) = match span.split_once(':') {
            Some((keyword, rest)) => (keyword.trimmed(), Some(rest)),
            None => (span.trimmed(), None),
        };
        if let Some((kind, detail)) = standing_fault(self.site.standing) {
            return self.fault(keyword, kind, detail);
        }
        let Some(word) = keyword_of(keyword.text) else {
            let detail = "expected tls, ssh, http, address or see-thru";
            return self.fault(keyword, FaultKind::UnknownKind, detail);
        };
        if let Some((kind, detail)) = self.carrier_fault(word) {
            return self.fault(keyword, kind, detail);
        }
        match word {
            Keyword::Named(kind) => {
                let end = Span {
                    text: "",
                    column: span.column + span.text.chars().count(),
                };
                self.named(kind, rest.unwrap_or(end));
            }
            Keyword::Address => self.address(keyword, rest),
            Keyword::SeeThru => self.see_thru(rest.map_or(keyword, Span::trimmed)),
        }
    }

    /// Why the rule, or the deployment, does not let this kind of annotation stand.
    fn carrier_fault(&self, word: Keyword) -> Option<(FaultKind, String)> {
        let Some(transport) = self.site.transport else {
            let detail = "the rule's protocol is neither tcp, udp nor all";
            return Some((FaultKind::Protocol, detail.to_owned()));
        };
        let preferences = self.site.preferences;
        match word {
            Keyword::Named(Kind::Ssh | Kind::Http) if transport == RuleTransport::Udp => Some((
                FaultKind::Protocol,
                "a rule for udp cannot carry it".to_owned(),
            )),
            Keyword::Named(Kind::Http) if preferences.plaintext_http == PlaintextHttp::Refuse => {
                let detail = "plain HTTP is refused: preference plaintext_http is not allow_listed";
                Some((FaultKind::PlaintextHttp, detail.to_owned()))
            }
            Keyword::Address if preferences.address_rules == AddressRules::Refuse => {
                let detail = "address rules are refused: preference address_rules is not allow";
                Some((FaultKind::AddressRules, detail.to_owned()))
            }
            Keyword::Named(_) | Keyword::Address | Keyword::SeeThru => None,
        }
    }

    /// Reads names, patterns and references to lists.
    fn named(&mut self, kind: Kind, entries: Span<'_>) {
        for entry in entries.split_commas().map(Span::trimmed) {
            match entry.text.strip_prefix('@') {
                Some(reference) => self.list(kind, entry, reference),
                None => match named_entry(kind, entry.text, None, self.site.preferences) {
                    Ok(allowed) => self.allow(allowed),
                    Err((fault, detail)) => self.fault(entry, fault, detail),
                },
            }
        }
    }

    /// Reads an external list.
    fn list(&mut self, kind: Kind, entry: Span<'_>, reference: &str) {
        let reference = match ListReference::parse(reference) {
            Ok(reference) => reference,
            Err(fault) => return self.fault(entry, FaultKind::InvalidListReference, fault),
        };
        match (self.list)(&reference) {
            Err(problem) => self.fault(entry, FaultKind::ListUnreadable, problem),
            Ok(body) => {
                let list = lists::read(&body, kind, &reference, self.site.preferences);
                list.entries
                    .into_iter()
                    .for_each(|allowed| self.allow(allowed));
                for fault in list.faults {
                    self.reading.faults.push(Fault {
                        object: self.site.object.to_owned(),
                        rule: self.site.rule.map(str::to_owned),
                        ..fault
                    });
                }
            }
        }
    }

    /// Reads an `address` annotation; `rest` is a comment.
    fn address(&mut self, keyword: Span<'_>, rest: Option<Span<'_>>) {
        let (v4, v6) = ADDRESS_PREFIX_MIN;
        let shortest = match self.site.cidr {
            Some(IpNet::V4(_)) => v4,
            Some(IpNet::V6(_)) => v6,
            None => {
                let detail = "an address annotation needs a rule with a CIDR";
                return self.fault(keyword, FaultKind::AddressPrefix, detail);
            }
        };
        if let Some(cidr) = self.site.cidr.filter(|cidr| cidr.prefix_len() < shortest) {
            let detail = format!("the rule's CIDR {cidr} is wider than /{shortest}");
            return self.fault(keyword, FaultKind::AddressPrefix, detail);
        }
        let comment = rest
            .map(|rest| rest.text.trim())
            .filter(|comment| !comment.is_empty());
        self.allow(Entry::Address {
            comment: comment.map(str::to_owned),
        });
    }

    /// Reads the date of a see-thru annotation.
    fn see_thru(&mut self, date: Span<'_>) {
        match Date::parse(date.text) {
            Ok(until) => self.allow(Entry::SeeThru { until }),
            Err(fault) => self.fault(date, FaultKind::InvalidDate, fault),
        }
    }

    /// Adds an entry.
    fn allow(&mut self, entry: Entry) {
        self.reading.entries.push(entry);
    }

    fn fault(&mut self, at: Span<'_>, kind: FaultKind, detail: impl fmt::Display) {
        self.reading.faults.push(Fault {
            rule: self.site.rule.map(str::to_owned),
            column: Some(at.column),
            ..Fault::new(self.site.object, kind, at.text, detail)
        });
    }
}

/// Why a rule's standing does not let an annotation be.
fn standing_fault(standing: Standing) -> Option<(FaultKind, &'static str)> {
    match standing {
        Standing::Active => None,
        Standing::Ingress => Some((
            FaultKind::IngressRule,
            "an annotation belongs on an egress rule",
        )),
        Standing::Deny => Some((
            FaultKind::DenyRule,
            "an annotation belongs on an allow rule",
        )),
        Standing::Disabled => Some((FaultKind::DisabledRule, "the rule is disabled")),
    }
}

/// Reads one name or pattern of a description or list.
pub(crate) fn named_entry(
    kind: Kind,
    text: &str,
    list: Option<&str>,
    preferences: &Preferences,
) -> Result<Entry, (FaultKind, String)> {
    let list = list.map(str::to_owned);
    if text.is_empty() {
        return Err((FaultKind::EmptyEntry, "the entry is empty".to_owned()));
    }
    if let Some((name, pin)) = text.split_once('=') {
        let name = exact_name(name.trim_end())?;
        if kind != Kind::Ssh {
            let detail = "only ssh names carry a host key".to_owned();
            return Err((FaultKind::InvalidHostKey, detail));
        }
        let pin: HostKeyPin = pin
            .trim_start()
            .parse()
            .map_err(|fault| (FaultKind::InvalidHostKey, format!("{fault}")))?;
        return Ok(Entry::Name {
            kind,
            name,
            host_key: Some(pin),
            list,
        });
    }
    if !text.contains(['*', '?']) {
        return Ok(Entry::Name {
            kind,
            name: exact_name(text)?,
            host_key: None,
            list,
        });
    }
    let pattern = Pattern::parse(text).map_err(|f| (FaultKind::InvalidPattern, f.to_string()))?;
    suffix::guard(&pattern, preferences.wildcard_exposure)
        .map_err(|fault| (FaultKind::WildcardExposure, fault.to_string()))?;
    Ok(Entry::Pattern {
        kind,
        pattern,
        list,
    })
}

/// Reads an exact name.
fn exact_name(text: &str) -> Result<Name, (FaultKind, String)> {
    Name::parse(text.as_bytes()).map_err(|fault| {
        let kind = if fault == InvalidName::IpLiteral {
            FaultKind::IpLiteral
        } else {
            FaultKind::InvalidName
        };
        let hint = if matches!(fault, InvalidName::Character(b'/' | b':')) {
            ": write the name alone, without scheme, path or port"
        } else {
            ""
        };
        (kind, format!("{fault}{hint}"))
    })
}

#[cfg(test)]
mod tests;
