//! What a reviewer would say about a description that is not a fault.

use std::fmt;

use super::{PREFIXES, Site, annotation, keyword_of};
use crate::words::words;

/// The most characters AWS stores in the description of a security group rule.
pub const AWS_DESCRIPTION_CHARS_MAX: usize = 255;

/// The most characters GCP is documented to store in the description of a firewall rule.
pub const GCP_DESCRIPTION_CHARS_MAX: usize = 2_048;

words! {
    /// Where descriptions are going to be stored.
    pub enum Cloud {
        /// Security group rules.
        Aws = "aws",
        /// VPC firewall rules.
        Gcp = "gcp",
        /// An inventory file.
        File = "file",
    }
}

/// One remark about a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where in the description, in characters from 1.
    pub column: usize,
    /// The remark.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.text)
    }
}

/// Remarks about a description, faults excepted.
pub fn lint(text: &str, cloud: Cloud, site: Option<&Site<'_>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |column: usize, text: String| findings.push(Finding { column, text });
    if annotation(text).is_none() {
        if let Some((column, remark)) = near_miss(text) {
            find(column, remark);
        }
        return findings;
    }
    let count = text.chars().count();
    match cloud {
        Cloud::Aws => {
            if count > AWS_DESCRIPTION_CHARS_MAX {
                let remark = format!("{count} characters: AWS stores at most 255");
                find(AWS_DESCRIPTION_CHARS_MAX + 1, remark);
            }
            let foreign = text.chars().enumerate().find(|(_, c)| !is_aws_char(*c));
            if let Some((position, c)) = foreign {
                find(
                    position + 1,
                    format!("AWS does not store the character {c:?}"),
                );
            }
        }
        Cloud::Gcp if count > GCP_DESCRIPTION_CHARS_MAX => {
            let remark = format!("{count} characters: GCP is documented to store 2048");
            find(GCP_DESCRIPTION_CHARS_MAX + 1, remark);
        }
        Cloud::Gcp | Cloud::File => {}
    }
    if let Some(remark) = site.and_then(|site| idle(text, site)) {
        find(1, remark);
    }
    findings
}

/// Whether AWS stores a character in the description of a security group rule (EC2 API reference,
/// `IpRange.Description`).
fn is_aws_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c)
}

/// Why an annotation without a fault still does nothing.
fn idle(text: &str, site: &Site<'_>) -> Option<String> {
    use crate::RuleTransport;
    use crate::preferences::Quic;
    let (keyword, _) = annotation(text)?.split_once(':')?;
    let is_tls = keyword.trimmed().text.eq_ignore_ascii_case("tls");
    let refused = site.preferences.quic == Quic::Refuse;
    (is_tls && refused && site.transport == Some(RuleTransport::Udp)).then(|| {
        "tls on a rule for udp allows QUIC only, and preference quic is not inspect".to_owned()
    })
}

/// Where a description looks like an annotation that its author got wrong.
fn near_miss(text: &str) -> Option<(usize, String)> {
    for prefix in PREFIXES {
        let lower = text.to_ascii_lowercase();
        let inside = lower.find(&format!("{prefix}:")).filter(|at| *at > 0);
        if let Some(at) = inside {
            let column = text
                .get(..at)
                .map_or(1, |before| before.chars().count() + 1);
            let remark = format!("not an annotation: \"{prefix}:\" must come first");
            return Some((column, remark));
        }
    }
    let trimmed = text.trim_start();
    let end = trimmed.find([':', ' ', '=', ';', ',', '-'])?;
    let word = trimmed.get(..end)?.to_ascii_lowercase();
    let prefix = PREFIXES
        .into_iter()
        .find(|prefix| distance(&word, prefix) <= 2)?;
    // "Pattern: see wiki" is two slips from "postern:", but names no kind.
    let rest = trimmed.get(end + 1..)?.trim_start();
    let kind_end = rest.find([':', ' ', '=', ';', ',']).unwrap_or(rest.len());
    keyword_of(rest.get(..kind_end)?)?;
    let remark = if word == prefix {
        format!("not an annotation: expected \":\" behind \"{prefix}\"")
    } else {
        format!("not an annotation: did you mean \"{prefix}:\"?")
    };
    Some((1, remark))
}

/// How many characters must be put in, left out, replaced or swapped with their neighbour to make one
/// word of the other.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut before = None;
    for (line, x) in a.iter().enumerate() {
        let two_above = std::mem::replace(&mut above, std::mem::take(&mut row));
        row.push(line + 1);
        let mut left = None;
        for (at, y) in b.iter().enumerate() {
            let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let mut best = (cell(&above, at) + usize::from(x != y))
                .min(cell(&above, at + 1) + 1)
                .min(cell(&row, at) + 1);
            if before == Some(y) && left == Some(x) && at > 0 {
                best = best.min(cell(&two_above, at - 1) + 1);
            }
            row.push(best);
            left = Some(y);
        }
        before = Some(x);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remarks(text: &str, cloud: Cloud) -> Vec<String> {
        lint(text, cloud, None)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_near_miss_of_the_prefix_is_pointed_out() {
        for text in [
            "postren:tls:a.example",
            "posten:tls:a.example",
            "Discriminate:tls:a.example",
        ] {
            let remarks = remarks(text, Cloud::Aws);
            assert!(remarks[0].contains("did you mean"), "{text}: {remarks:?}");
        }
        assert_eq!(
            remarks("see postern:tls:a.example", Cloud::Aws),
            ["column 5: not an annotation: \"postern:\" must come first"]
        );
        assert_eq!(
            remarks("postern=tls:a.example", Cloud::Aws),
            ["column 1: not an annotation: expected \":\" behind \"postern\""]
        );
    }

    #[test]
    fn ordinary_descriptions_are_left_alone() {
        for text in [
            "",
            "HTTPS to anywhere",
            "pattern: see wiki",
            "postern team's rule",
            "poster:x",
        ] {
            assert_eq!(remarks(text, Cloud::Aws), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn what_aws_would_not_store_is_pointed_out() {
        let long = format!("postern:tls:{}", vec!["a.example"; 30].join(","));
        assert_eq!(
            remarks(&long, Cloud::Aws),
            ["column 256: 311 characters: AWS stores at most 255"]
        );
        assert_eq!(remarks(&long, Cloud::Gcp), Vec::<String>::new());
        assert_eq!(
            remarks("postern:tls:db?.example.com", Cloud::Aws),
            ["column 15: AWS does not store the character '?'"]
        );
        let longer = format!("postern:tls:{}", vec!["a.example"; 300].join(","));
        assert_eq!(remarks(&longer, Cloud::Gcp).len(), 1);
        assert_eq!(remarks(&longer, Cloud::File).len(), 0);
    }

    #[test]
    fn distance_counts_a_swap_as_one() {
        assert_eq!(distance("postern", "postern"), 0);
        assert_eq!(distance("postren", "postern"), 1);
        assert_eq!(distance("adress", "address"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
