//! Name patterns: `*` inside a label, `?` for one character, `**.` for whole labels in front.

use std::fmt;
use std::sync::Arc;

use crate::name::{LABEL_BYTES_MAX, NAME_BYTES_MAX, Name, literal};

/// The front of a pattern that stands for one or more whole labels.
const DEEP: &str = "**.";

/// A pattern that covers names.
///
/// `*` is any number of characters inside one label, none included; `?` is exactly one
/// character that is not a dot; `**.` at the front is one or more whole labels. Everything
/// else is literal, in lower case. `*.example.com` covers `api.example.com`, but neither
/// `example.com` nor `a.b.example.com` nor `api.notexample.com`; `**.example.com` also
/// covers `a.b.example.com`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<str>);

/// Why text is not a [`Pattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidPattern {
    /// Neither `*` nor `?`: a plain name, if anything.
    #[error("the pattern has no wildcard")]
    NoWildcard,
    /// More than 253 characters.
    #[error("the pattern is longer than 253 characters")]
    TooLong,
    /// A label of more than 63 characters.
    #[error("a label is longer than 63 characters")]
    LabelTooLong,
    /// Two dots in a row, or a dot at an end.
    #[error("a label is empty")]
    EmptyLabel,
    /// `**` that is not a whole first label with more behind it.
    #[error("\"**\" may only stand at the front, as in \"**.example.com\"")]
    DoubleStar,
    /// A character that neither names nor patterns hold.
    #[error("the pattern contains the character {0:?}")]
    Character(char),
    /// A literal last label that is a number, which no top-level domain is.
    #[error("the last label is a number")]
    NumericTopLabel,
}

impl Pattern {
    /// Reads a pattern and folds it to lower case.
    ///
    /// # Errors
    ///
    /// When it has no wildcard, or could cover no well formed name.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        if !text.contains(['*', '?']) {
            return Err(InvalidPattern::NoWildcard);
        }
        if let Some(wrong) = text.chars().find(|c| !is_pattern_char(*c)) {
            return Err(InvalidPattern::Character(wrong));
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(InvalidPattern::TooLong);
        }
        let labels = text.strip_prefix(DEEP).unwrap_or(text);
        for label in labels.split('.') {
            if label.is_empty() {
                return Err(InvalidPattern::EmptyLabel);
            }
            if label.len() > LABEL_BYTES_MAX {
                return Err(InvalidPattern::LabelTooLong);
            }
            if label.contains("**") {
                return Err(InvalidPattern::DoubleStar);
            }
        }
        if labels
            .rsplit('.')
            .next()
            .is_some_and(|top| literal::is_number(top.as_bytes()))
        {
            return Err(InvalidPattern::NumericTopLabel);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The pattern in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern begins with `**.`.
    pub fn is_deep(&self) -> bool {
        self.0.starts_with(DEEP)
    }

    /// Whether the pattern holds a `*`, and so stands for more than single characters.
    pub fn has_asterisk(&self) -> bool {
        self.0.contains('*')
    }

    /// How many literal characters the pattern has, dots between labels included.
    ///
    /// The more, the narrower: of two patterns that cover a name the longer one decides.
    pub fn literal_len(&self) -> usize {
        self.0
            .bytes()
            .filter(|byte| !matches!(byte, b'*' | b'?'))
            .count()
    }

    /// The labels behind a leading `**.`, leftmost first.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.strip_prefix(DEEP).unwrap_or(&self.0).split('.')
    }

    /// Whether the pattern covers `name`.
    pub fn matches(&self, name: &Name) -> bool {
        let mut claimed = name.as_str().split('.').rev();
        let covered = self.labels().rev().all(|label| {
            claimed
                .next()
                .is_some_and(|text| label_matches(label, text))
        });
        covered && claimed.next().is_some() == self.is_deep()
    }
}

/// Whether a character may stand in a pattern.
fn is_pattern_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '?')
}

/// Whether one label of a pattern covers one label of a name.
///
/// Only the latest `*` is ever widened, so the work is bounded by the product of the two
/// lengths, at most 63 each, however many wildcards there are.
pub(crate) fn label_matches(pattern: &str, label: &str) -> bool {
    let (pattern, label) = (pattern.as_bytes(), label.as_bytes());
    let (mut p, mut l) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = label.get(l) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, l));
                p += 1;
            }
            Some(expected) if *expected == b'?' || expected == byte => {
                p += 1;
                l += 1;
            }
            _ => match star.as_mut() {
                Some((behind, from)) => {
                    *from += 1;
                    (p, l) = (*behind, *from);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

impl std::str::FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        Self::parse(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covers(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern)
            .unwrap()
            .matches(&Name::parse(name.as_bytes()).unwrap())
    }

    #[test]
    fn subdomain_pattern_stops_at_a_label_boundary() {
        assert!(covers("*.example.com", "api.example.com"));
        assert!(!covers("*.example.com", "example.com"));
        assert!(!covers("*.example.com", "api.notexample.com"));
        assert!(!covers("*.example.com", "a.b.example.com"));
        assert!(!covers("*.example.com", "api.example.com.attacker.example"));
    }

    #[test]
    fn an_asterisk_stands_for_any_number_of_characters_none_included() {
        assert!(covers("api*.example.com", "api.example.com"));
        assert!(covers("api*.example.com", "api-eu-1.example.com"));
        assert!(covers("*api*.example.com", "my-api-1.example.com"));
        assert!(!covers("api*.example.com", "ap.example.com"));
    }

    #[test]
    fn a_question_mark_is_exactly_one_character() {
        assert!(covers("db?.example.com", "db1.example.com"));
        assert!(!covers("db?.example.com", "db.example.com"));
        assert!(!covers("db?.example.com", "db12.example.com"));
        assert!(!covers("db?example.com", "db.example.com"));
    }

    #[test]
    fn a_double_asterisk_is_one_or_more_whole_labels() {
        assert!(covers("**.example.com", "a.example.com"));
        assert!(covers("**.example.com", "a.b.c.example.com"));
        assert!(!covers("**.example.com", "example.com"));
        assert!(!covers("**.example.com", "notexample.com"));
        assert!(covers("**.s3.*.example.com", "a.b.s3.eu.example.com"));
        assert!(!covers("**.s3.*.example.com", "s3.eu.example.com"));
    }

    #[test]
    fn what_could_cover_no_name_is_no_pattern() {
        for (text, fault) in [
            ("example.com", InvalidPattern::NoWildcard),
            ("*.example..com", InvalidPattern::EmptyLabel),
            ("*.example.com.", InvalidPattern::EmptyLabel),
            (".*.example.com", InvalidPattern::EmptyLabel),
            ("a.**.example.com", InvalidPattern::DoubleStar),
            ("**", InvalidPattern::DoubleStar),
            ("***.example.com", InvalidPattern::DoubleStar),
            ("a**.example.com", InvalidPattern::DoubleStar),
            ("**.", InvalidPattern::EmptyLabel),
            ("*.exa mple.com", InvalidPattern::Character(' ')),
            ("*.bücher.example", InvalidPattern::Character('ü')),
            ("10.0.0.*.1", InvalidPattern::NumericTopLabel),
        ] {
            assert_eq!(Pattern::parse(text), Err(fault), "{text}");
        }
        let label = "a".repeat(63);
        assert_eq!(
            Pattern::parse(&format!("*{label}.b")),
            Err(InvalidPattern::LabelTooLong)
        );
        let long = format!("*.{}", vec!["abc"; 64].join("."));
        assert_eq!(Pattern::parse(&long), Err(InvalidPattern::TooLong));
    }

    #[test]
    fn patterns_fold_to_lower_case() {
        assert!(covers("*.GitHub.COM", "api.github.com"));
    }

    #[test]
    fn literal_length_counts_what_is_no_wildcard() {
        assert_eq!(Pattern::parse("*.example.com").unwrap().literal_len(), 12);
        assert_eq!(
            Pattern::parse("api-?*.example.com").unwrap().literal_len(),
            16
        );
        assert_eq!(Pattern::parse("**.example.com").unwrap().literal_len(), 12);
    }

    #[test]
    fn many_asterisks_do_not_backtrack() {
        let pattern = "a*".repeat(31);
        let label = "a".repeat(62);
        let start = std::time::Instant::now();
        for _ in 0..10_000 {
            assert!(!label_matches(&format!("{pattern}b"), &label));
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(20));
    }

    /// What a pattern covers, by the definition and with no regard to cost.
    fn oracle(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => {
                oracle(rest, text)
                    || text
                        .split_first()
                        .is_some_and(|(c, more)| *c != b'.' && oracle(pattern, more))
            }
            [b'?', rest @ ..] => text
                .split_first()
                .is_some_and(|(c, more)| *c != b'.' && oracle(rest, more)),
            [c, rest @ ..] => text
                .strip_prefix(&[*c])
                .is_some_and(|more| oracle(rest, more)),
        }
    }

    /// The oracle with a leading `**.`: every way to leave out one or more labels.
    fn deep_oracle(pattern: &str, name: &str) -> bool {
        match pattern.strip_prefix("**.") {
            None => oracle(pattern.as_bytes(), name.as_bytes()),
            Some(rest) => name
                .match_indices('.')
                .any(|(dot, _)| oracle(rest.as_bytes(), &name.as_bytes()[dot + 1..])),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(
            pattern in "(\\*\\*\\.)?[ab*?]{1,6}(\\.[ab*?]{1,4}){0,3}",
            name in "[ab]{1,6}(\\.[ab]{1,4}){0,4}",
        ) {
            if let Ok(parsed) = Pattern::parse(&pattern) {
                let name = Name::parse(name.as_bytes()).unwrap();
                prop_assert_eq!(parsed.matches(&name), deep_oracle(&pattern, name.as_str()));
            }
        }
    }
}
