//! `postern-cloudsync preflight`: what would keep this deployment from working, before it has to.
//!
//! Each check is one line, and each line that is not well has one fix.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::bail;
use policy::annotation::Standing;
use serde::Serialize;

use crate::aws::Session;
use crate::cloud::{Answer, Cloud as _, CloudError, DescribedRule, Reading, Store};
use crate::config::{Config, ProviderKind};
use crate::documents::Documents;
use crate::gcp::{self, Gcp, Secrets};
use crate::sync::{draft, references};

/// What to look at, and how to say it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The configuration; /etc/postern/cloudsync.toml if it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, one object for each check.
    #[arg(long)]
    json: bool,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it should be.
    Good,
    /// Something will not work.
    Bad,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at: `permission ec2:DescribeVpcs`, `clock`.
    pub(crate) check: String,
    /// How it went.
    pub(crate) outcome: Outcome,
    /// What was found.
    pub(crate) detail: String,
    /// What would mend it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) fix: String,
}

impl Finding {
    /// All is well.
    pub(crate) fn good(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            outcome: Outcome::Good,
            detail: detail.into(),
            fix: String::new(),
        }
    }

    /// It is not, and this would mend it.
    pub(crate) fn bad(
        check: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            check: check.into(),
            outcome: Outcome::Bad,
            detail: detail.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            check, detail, fix, ..
        } = self;
        match self.outcome {
            Outcome::Good => write!(f, "ok   {check}: {detail}"),
            Outcome::Bad => write!(f, "BAD  {check}: {detail}; fix: {fix}"),
        }
    }
}

/// Looks at everything; exits 1 when something is not as it should be.
///
/// # Errors
///
/// When the configuration cannot be read, or there is no preflight for its provider.
pub(crate) async fn preflight(options: Options) -> anyhow::Result<ExitCode> {
    let config = Rc::new(Config::load(options.config.as_deref())?);
    let findings = match config.provider {
        ProviderKind::Aws => aws(&config).await,
        ProviderKind::Gcp => gcp(&config).await?,
        ProviderKind::File => {
            bail!("preflight looks at a cloud; `once --dry-run` says what is wrong with a policy")
        }
    };
    let mut out = std::io::stdout().lock();
    for finding in &findings {
        if options.json {
            writeln!(out, "{}", serde_json::to_string(finding)?)?;
        } else {
            writeln!(out, "{finding}")?;
        }
    }
    let is_bad = findings
        .iter()
        .any(|finding| finding.outcome == Outcome::Bad);
    Ok(ExitCode::from(u8::from(is_bad)))
}

async fn aws(config: &Rc<Config>) -> Vec<Finding> {
    let session = Session::load(config).await;
    let cloud = session.cloud(config).await;
    let mut findings = session.checks(config, &cloud).await;
    let answer = cloud.read().await;
    if let Ok(Answer::Reading(reading)) = &answer {
        findings.extend(closed(reading));
    }
    findings.extend(policy(config, answer, session.store()).await);
    findings
}

/// A rule's own destination opens nothing in GCP that was not open, so it closes nothing either.
async fn gcp(config: &Rc<Config>) -> anyhow::Result<Vec<Finding>> {
    let cloud = Gcp::new(config).await?;
    let mut findings = gcp::checks(config, &cloud).await;
    let store = Secrets::new(config).await?;
    findings.extend(policy(config, cloud.read().await, store).await);
    Ok(findings)
}

/// What is wrong with the policy itself.
async fn policy<S: Store + 'static>(
    config: &Rc<Config>,
    answer: Result<Answer, CloudError>,
    store: S,
) -> Vec<Finding> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            return vec![Finding::bad(
                "policy",
                format!("cannot be read: {error}"),
                "mend what is reported above",
            )];
        }
    };
    let mut documents = Documents::new(Some(Rc::new(store)), Rc::clone(config));
    let kept = documents.refresh(&references(&answer)).await;
    let faults = draft(&answer, &kept).faults;
    if faults.is_empty() {
        return vec![Finding::good("policy", "no fault in any description")];
    }
    let bad = faults.iter().map(|fault| {
        let fix = "correct the object named; `postern lint` tries a description beforehand";
        Finding::bad("policy", fault.to_string(), fix)
    });
    bad.collect()
}

/// Annotated rules whose names are out of reach: the rule's own destination is narrower than the
/// Internet, and nothing else on some interface opens their ports.
pub(crate) fn closed(reading: &Reading) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in reading.rules.iter().filter(|rule| lists_names(rule)) {
        let users = reading
            .interfaces
            .iter()
            .filter(|interface| interface.groups.contains(&rule.gid));
        let shut: Vec<&str> = users
            .filter(|interface| {
                let mut rules = reading.rules.iter();
                !rules.any(|other| interface.groups.contains(&other.gid) && opens(other, rule))
            })
            .map(|interface| interface.id.as_str())
            .collect();
        if let Some(first) = shut.first() {
            let (from, to) = rule.ports;
            let more = match shut.len() {
                1 => String::new(),
                count => format!(" and {} more", count.saturating_sub(1)),
            };
            findings.push(Finding::bad(
                format!("rule {} of {}", rule.rule, rule.gid),
                format!(
                    "it lists names, but on {first}{more} no rule opens ports {from}-{to} to 0.0.0.0/0: \
                     the interface drops what the names allow"
                ),
                "give one rule of its groups with these ports the destination 0.0.0.0/0",
            ));
        }
    }
    findings
}

/// Whether a rule is annotated with names, for which its destination is not compared.
fn lists_names(rule: &DescribedRule) -> bool {
    let mut parts = rule.description.trim_start().splitn(3, ':');
    let prefix = parts.next().unwrap_or_default().to_ascii_lowercase();
    let kind = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    rule.standing == Standing::Active
        && policy::annotation::PREFIXES.contains(&prefix.as_str())
        && ["tls", "ssh", "http"].contains(&kind.as_str())
}

/// Whether one rule lets the interface send to anybody on the ports of another.
fn opens(rule: &DescribedRule, wanted: &DescribedRule) -> bool {
    let is_everybody = rule.cidr.is_some_and(|net| net.prefix_len() == 0);
    let is_all = rule.protocol == "-1";
    let (from, to) = rule.ports;
    let covers = from <= wanted.ports.0 && to >= wanted.ports.1;
    rule.standing == Standing::Active
        && is_everybody
        && (is_all || rule.protocol == wanted.protocol && covers)
}

#[cfg(test)]
mod tests {
    use crate::cloud::Interface;

    use super::*;

    fn rule(gid: &str, cidr: &str, description: &str) -> DescribedRule {
        DescribedRule {
            gid: gid.into(),
            rule: format!("sgr-{gid}"),
            standing: Standing::Active,
            protocol: "tcp".into(),
            ports: (443, 443),
            cidr: cidr.parse().ok(),
            description: description.into(),
        }
    }

    fn reading(rules: Vec<DescribedRule>, groups: &[&str]) -> Reading {
        Reading {
            interfaces: vec![Interface {
                id: "eni-1".into(),
                instance: "i-1".into(),
                nets: Vec::new(),
                groups: groups.iter().map(ToString::to_string).collect(),
            }],
            rules,
            ..Reading::default()
        }
    }

    #[test]
    fn names_behind_a_narrow_destination_are_found() {
        let narrow = rule("a", "192.0.2.1/32", "postern:tls:api.example.com");
        let found = closed(&reading(vec![narrow.clone()], &["a"]));
        assert_eq!(found.len(), 1);
        assert!(found[0].detail.contains("eni-1"), "{}", found[0]);
        // Another group of the same interface may open the way; one of another may not.
        let wide = rule("b", "0.0.0.0/0", "");
        let both = vec![narrow, wide];
        assert!(closed(&reading(both.clone(), &["a", "b"])).is_empty());
        assert_eq!(closed(&reading(both, &["a"])).len(), 1);
    }

    #[test]
    fn a_rule_for_an_address_is_meant_to_be_narrow() {
        let ntp = rule("a", "192.0.2.1/32", "postern:address:ntp");
        assert!(closed(&reading(vec![ntp], &["a"])).is_empty());
    }
}
