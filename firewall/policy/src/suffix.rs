//! Which wildcards are too wide to accept, by Mozilla's Public Suffix List.
//!
//! Both sections of the list count: registries (ICANN) and providers that hand out names below
//! their own (private), such as `github.io`.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::pattern::{Pattern, label_matches};
use crate::preferences::WildcardExposure;

/// Suffixes below somebody's registration; see the head of the file.
const NESTED: &str = include_str!("../data/nested_suffixes.txt");

/// Why a pattern is wider than `wildcard_exposure` lets it be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooWide {
    /// `wildcard_exposure` is `none`.
    #[error("wildcard_exposure is none: no pattern is accepted")]
    Wildcard,
    /// `wildcard_exposure` is `prohibit_asterisk`.
    #[error("wildcard_exposure is prohibit_asterisk: no pattern with an asterisk is accepted")]
    Asterisk,
    /// The pattern could cover names that anyone may register below this public suffix.
    #[error("publicsuffix[.]org list matched with `{0}`")]
    PublicSuffix(String),
}

/// Accepts or refuses a pattern under a `wildcard_exposure`.
///
/// # Errors
///
/// Under `prohibit_public_suffix`, a pattern with `*` is refused when some name it covers could be
/// registered by a stranger: when a wildcard reaches the label below a public suffix, or the
/// suffix itself. A top-level domain that the list does not have counts as a suffix, as the list's
/// own algorithm says.
pub fn guard(pattern: &Pattern, exposure: WildcardExposure) -> Result<(), TooWide> {
    match exposure {
        WildcardExposure::Nuclear => Ok(()),
        WildcardExposure::None => Err(TooWide::Wildcard),
        WildcardExposure::ProhibitAsterisk if pattern.has_asterisk() => Err(TooWide::Asterisk),
        WildcardExposure::ProhibitPublicSuffix if pattern.has_asterisk() => {
            exposed_suffix(pattern).map_or(Ok(()), |suffix| Err(TooWide::PublicSuffix(suffix)))
        }
        WildcardExposure::ProhibitAsterisk | WildcardExposure::ProhibitPublicSuffix => Ok(()),
    }
}

/// The public suffix below which a pattern with `*` covers names of strangers, if there is one.
fn exposed_suffix(pattern: &Pattern) -> Option<String> {
    let literal: Vec<&str> = pattern
        .labels()
        .rev()
        .take_while(|label| !label.contains(['*', '?']))
        .collect();
    if literal.is_empty() {
        return Some("*".to_owned());
    }
    let tail = join_reversed(&literal);
    let Some(domain) = registrable_domain(&tail) else {
        return Some(tail);
    };
    nested()
        .get(domain)?
        .iter()
        .find(|suffix| reaches_below(pattern, suffix))
        .map(|suffix| {
            let suffix: &str = suffix;
            suffix.to_owned()
        })
}

/// Whether a pattern covers a name whose label just below `suffix` is up to the claimant.
fn reaches_below(pattern: &Pattern, suffix: &str) -> bool {
    let mut labels = pattern.labels().rev();
    for wanted in suffix.rsplit('.') {
        match labels.next() {
            Some(label) if wanted == "*" || label_matches(label, wanted) => {}
            Some(_) => return false,
            None => return pattern.is_deep(),
        }
    }
    labels
        .next()
        .map_or_else(|| pattern.is_deep(), |label| label.contains('*'))
}

/// The domain that somebody registered to have this name; `None` for a public suffix.
///
/// Never inlined: psl is one function of 2.5 MB of source, and it is compiled once per place that
/// calls it.
#[inline(never)]
fn registrable_domain(name: &str) -> Option<&str> {
    psl::domain_str(name)
}

/// The nested suffixes under each registrable domain above them.
fn nested() -> &'static HashMap<&'static str, Vec<&'static str>> {
    static INDEX: OnceLock<HashMap<&'static str, Vec<&'static str>>> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut index: HashMap<_, Vec<_>> = HashMap::new();
        for suffix in nested_suffixes() {
            for parent in parents(suffix) {
                if registrable_domain(parent) == Some(parent) {
                    index.entry(parent).or_default().push(suffix);
                }
            }
        }
        index
    })
}

/// The rules of the bundled file.
fn nested_suffixes() -> impl Iterator<Item = &'static str> {
    NESTED
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `b.c` and `c` of `a.b.c`.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.')
        .filter_map(|(dot, _)| name.get(dot + 1..))
}

/// Labels that were collected from the right, as text.
fn join_reversed(labels: &[&str]) -> String {
    labels.iter().rev().copied().collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(pattern: &str, exposure: WildcardExposure) -> Result<(), TooWide> {
        guard(&Pattern::parse(pattern).unwrap(), exposure)
    }

    fn by_default(pattern: &str) -> Option<String> {
        match verdict(pattern, WildcardExposure::ProhibitPublicSuffix) {
            Ok(()) => None,
            Err(TooWide::PublicSuffix(suffix)) => Some(suffix),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn names_below_a_registration_are_its_owners() {
        for pattern in [
            "*.github.com",
            "**.github.com",
            "*.example.co.uk",
            "api-*.example.com",
            "*.mybucket.s3.amazonaws.com",
            "mybucket.s3.*.amazonaws.com",
            "*.octocat.github.io",
            "**.svc.cluster.local",
            "a*.b*.c.example.org",
            "*.amazonaws.com",
        ] {
            assert_eq!(by_default(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn names_below_a_public_suffix_are_anyones() {
        for (pattern, suffix) in [
            ("*.github.io", "github.io"),
            ("**.github.io", "github.io"),
            ("*-pages.github.io", "github.io"),
            ("*.cloudflare.net", "cloudflare.net"),
            ("*.com", "com"),
            ("*.co.uk", "co.uk"),
            ("*.*.co.uk", "co.uk"),
            ("*.s3.amazonaws.com", "s3.amazonaws.com"),
            ("example.*", "*"),
            ("*", "*"),
            ("*.anything.ck", "anything.ck"),
            ("*.internal", "internal"),
            ("*.exampl?.com", "com"),
        ] {
            assert_eq!(by_default(pattern).as_deref(), Some(suffix), "{pattern}");
        }
    }

    #[test]
    fn a_suffix_further_down_is_found_from_above() {
        for pattern in [
            "**.amazonaws.com",
            "*.*.amazonaws.com",
            "*.s3.*.amazonaws.com",
        ] {
            let suffix = by_default(pattern).expect(pattern);
            assert!(suffix.ends_with(".amazonaws.com"), "{pattern}: {suffix}");
        }
    }

    #[test]
    fn question_marks_pass_the_guard_by_default() {
        assert_eq!(by_default("?.github.io"), None);
        assert_eq!(
            verdict("db?.example.com", WildcardExposure::ProhibitAsterisk),
            Ok(())
        );
    }

    #[test]
    fn each_exposure_is_a_step_wider() {
        use WildcardExposure::{None, Nuclear, ProhibitAsterisk, ProhibitPublicSuffix};
        let accepted = |exposure| {
            ["db?.example.com", "*.example.com", "*.github.io"]
                .map(|pattern| verdict(pattern, exposure).is_ok())
        };
        assert_eq!(accepted(None), [false, false, false]);
        assert_eq!(accepted(ProhibitAsterisk), [true, false, false]);
        assert_eq!(accepted(ProhibitPublicSuffix), [true, true, false]);
        assert_eq!(accepted(Nuclear), [true, true, true]);
    }

    #[test]
    fn the_refusal_reads_as_the_incumbents_does() {
        let refusal = verdict("*.github.io", WildcardExposure::ProhibitPublicSuffix).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "publicsuffix[.]org list matched with `github.io`"
        );
    }

    #[test]
    fn nested_suffixes_agree_with_the_compiled_list() {
        assert!(nested_suffixes().count() > 1_000);
        for suffix in nested_suffixes() {
            let concrete = suffix.replace('*', "x");
            assert_eq!(
                psl::suffix_str(&concrete),
                Some(concrete.as_str()),
                "{suffix}"
            );
            assert!(
                parents(suffix).any(|p| psl::domain_str(p) == Some(p)),
                "{suffix}"
            );
        }
    }
}
