//! What is wrong with an object that policy is read from.
//!
//! A fault drops one entry, is reported, and disturbs nothing else.

use std::fmt;

use crate::words::words;

/// Bytes of hostile or mistyped text that a fault repeats.
const TEXT_BYTES_MAX: usize = 253;

words! {
    /// The stable kind of a fault.
    pub enum FaultKind {
        /// The annotation has no kind, or none that exists.
        UnknownKind = "unknown_kind",
        /// An entry with nothing in it.
        EmptyEntry = "empty_entry",
        /// A name that is not well formed.
        InvalidName = "invalid_name",
        /// An IP address where a name belongs.
        IpLiteral = "ip_literal",
        /// A pattern that is not well formed.
        InvalidPattern = "invalid_pattern",
        /// A pattern wider than `wildcard_exposure` lets it be.
        WildcardExposure = "wildcard_exposure",
        /// A see-thru date that is not a day.
        InvalidDate = "invalid_date",
        /// A host key pin that is not a SHA-256 fingerprint, or not on an `ssh` name.
        InvalidHostKey = "invalid_host_key",
        /// A reference to a list that is not well formed, or inside a list.
        InvalidListReference = "invalid_list_reference",
        /// A list that could not be read.
        ListUnreadable = "list_unreadable",
        /// A list of more bytes or entries than are read.
        ListTooLarge = "list_too_large",
        /// An annotation of a kind its rule's protocol cannot carry.
        Protocol = "protocol",
        /// An annotation on a rule for traffic into the client.
        IngressRule = "ingress_rule",
        /// An annotation on a rule that denies.
        DenyRule = "deny_rule",
        /// An annotation on a rule that is switched off.
        DisabledRule = "disabled_rule",
        /// `http` entries while `plaintext_http` refuses them.
        PlaintextHttp = "plaintext_http",
        /// An `address` annotation while `address_rules` refuses them.
        AddressRules = "address_rules",
        /// An `address` annotation whose rule has no CIDR, or too wide a one.
        AddressPrefix = "address_prefix",
        /// A preference that does not exist.
        UnknownPreference = "unknown_preference",
        /// A preference with a value it cannot have.
        InvalidPreference = "invalid_preference",
        /// The preferences document could not be read.
        PreferencesUnreadable = "preferences_unreadable",
        /// Two clients with one address or prefix.
        DuplicateClient = "duplicate_client",
        /// A cloud object that could not be read.
        Unreadable = "unreadable",
    }
}

/// One thing wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fault {
    /// The object: a gid, a client's prefix, a list, or `%default` for preferences.
    pub object: String,
    /// The rule within the group.
    pub rule: Option<String>,
    /// The external list that holds the offending text, as the description refers to it.
    pub list: Option<String>,
    /// The line of that list, from 1.
    pub line: Option<usize>,
    /// Where the offending text begins, in characters from 1: within the description, or within
    /// the line of a list.
    pub column: Option<usize>,
    /// What kind of fault.
    pub kind: FaultKind,
    /// The offending text as written, cut at 253 bytes.
    pub text: String,
    /// What is wrong with it, for people: the config log's `outcome`.
    pub detail: String,
}

impl Fault {
    /// A fault of a whole object.
    pub fn new(object: &str, kind: FaultKind, text: &str, detail: impl fmt::Display) -> Self {
        Self {
            object: object.to_owned(),
            rule: None,
            list: None,
            line: None,
            column: None,
            kind,
            text: cut(text),
            detail: detail.to_string(),
        }
    }
}

/// The beginning of a text, at most [`TEXT_BYTES_MAX`] bytes, cut between characters.
fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX))
        .unwrap_or_default()
        .to_owned()
}

impl fmt::Display for Fault {
    /// `web rule 2 column 14: "*.github.io": publicsuffix[.]org list matched with `github.io``.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.object)?;
        if let Some(rule) = &self.rule {
            write!(f, " rule {rule}")?;
        }
        if let Some(list) = &self.list {
            write!(f, " list @{list}")?;
        }
        if let Some(line) = self.line {
            write!(f, " line {line}")?;
        }
        if let Some(column) = self.column {
            write!(f, " column {column}")?;
        }
        if self.text.is_empty() {
            write!(f, ": {}", self.detail)
        } else {
            write!(f, ": {:?}: {}", self.text, self.detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_object_rule_column_and_text() {
        let mut fault = Fault::new("sg-1", FaultKind::InvalidName, "a..b", "a label is empty");
        fault.rule = Some("sgr-2".to_owned());
        fault.column = Some(13);
        assert_eq!(
            fault.to_string(),
            "sg-1 rule sgr-2 column 13: \"a..b\": a label is empty"
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let fault = Fault::new("x", FaultKind::InvalidName, &"ü".repeat(200), "");
        assert_eq!(fault.text.len(), 252);
    }
}
