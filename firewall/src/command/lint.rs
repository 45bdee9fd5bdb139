//! `postern lint`: mistakes in annotations, inventories and settings, before a cloud stores them or a daemon starts on them.

use std::path::Path;

use policy::annotation::{self, ListBody, ListReference, Site, Standing};
use policy::{Entry, Fault, Preferences, RuleTransport};
use serde::Serialize;

use crate::cli::{Cloud, Failure, Finding, LintArgs, print};
use crate::config::Config;
use crate::provider::FileProvider;

/// One remark, in the order and words of the output.
#[derive(Debug, Serialize)]
struct Remark {
    /// The inventory's object, or the annotation itself.
    object: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    /// A stable word for faults; `advice` for what works and may surprise.
    kind: String,
    message: String,
}

/// Checks what it is given; exit code 1 with any remark.
pub(crate) fn run(args: &LintArgs) -> Result<Finding, Failure> {
    let cloud = match args.cloud {
        Cloud::Aws => annotation::Cloud::Aws,
        Cloud::Gcp => annotation::Cloud::Gcp,
        Cloud::File => annotation::Cloud::File,
    };
    if let Some(path) = &args.config {
        Config::load(Some(path)).map_err(Failure::input)?;
        return Ok(Finding::None);
    }
    let remarks = match &args.inventory {
        Some(path) => inventory(path, cloud)?,
        None => args
            .annotations
            .iter()
            .flat_map(|text| annotation(text, cloud))
            .collect(),
    };
    for remark in &remarks {
        let line = if args.json {
            serde_json::to_string(remark).map_err(Failure::machine)?
        } else {
            remark.to_string()
        };
        print(&format!("{line}\n"));
    }
    Ok(if remarks.is_empty() {
        Finding::None
    } else {
        Finding::Some
    })
}

fn annotation(text: &str, cloud: annotation::Cloud) -> Vec<Remark> {
    let preferences = lenient();
    let site = Site {
        object: text,
        rule: None,
        transport: Some(transport_of(text)),
        cidr: None,
        standing: Standing::Active,
        preferences: &preferences,
    };
    // A list is somewhere else: only the reference to it can be checked here.
    let mut empty_list = |_: &ListReference| -> ListBody { Ok("".into()) };
    let reading = annotation::read(text, &site, &mut empty_list);
    let mut remarks: Vec<Remark> = reading.faults.iter().map(Remark::of_fault).collect();
    // The prefix of an `address` annotation is its rule's, which is not here.
    remarks.retain(|remark| remark.kind != policy::FaultKind::AddressPrefix.as_str());
    for finding in annotation::lint(text, cloud, Some(&site)) {
        remarks.push(Remark::advice(
            text,
            None,
            Some(finding.column),
            finding.text,
        ));
    }
    if remarks.is_empty() && !reading.is_annotation {
        let message = "not an annotation: it does not begin with \"postern:\"".to_owned();
        remarks.push(Remark::advice(text, None, Some(1), message));
    }
    remarks.extend(hints(text, None, &reading.entries));
    remarks
}

fn inventory(path: &Path, cloud: annotation::Cloud) -> Result<Vec<Remark>, Failure> {
    let draft = FileProvider::new(path).read().map_err(Failure::input)?;
    let mut remarks: Vec<Remark> = draft.faults.iter().map(Remark::of_fault).collect();
    for (gid, rule, text) in descriptions(path)? {
        for finding in annotation::lint(&text, cloud, None) {
            remarks.push(Remark::advice(
                &gid,
                Some(&rule),
                Some(finding.column),
                finding.text,
            ));
        }
    }
    for group in &draft.groups {
        for rule in &group.rules {
            remarks.extend(hints(&group.gid, Some(&rule.rule), &rule.entries));
        }
    }
    Ok(remarks)
}

/// Every description of an inventory that reads: its group, rule and text.
fn descriptions(path: &Path) -> Result<Vec<(String, String, String)>, Failure> {
    #[derive(serde::Deserialize)]
    struct Inventory {
        #[serde(default)]
        group: Vec<Group>,
    }
    #[derive(serde::Deserialize)]
    struct Group {
        id: String,
        #[serde(default)]
        rule: Vec<Rule>,
    }
    #[derive(serde::Deserialize)]
    struct Rule {
        #[serde(default)]
        description: String,
    }
    let text = std::fs::read_to_string(path).map_err(Failure::input)?;
    let inventory: Inventory = toml::from_str(&text).map_err(Failure::input)?;
    let rules = inventory.group.into_iter().flat_map(|group| {
        let gid = group.id;
        let numbered = (1_usize..).zip(group.rule);
        numbered.map(move |(number, rule)| (gid.clone(), number.to_string(), rule.description))
    });
    Ok(rules.collect())
}

/// What is well formed, works, and may do more than its author meant.
fn hints(object: &str, rule: Option<&str>, entries: &[Entry]) -> Vec<Remark> {
    let names = entries.iter().filter_map(|entry| match entry {
        Entry::Name { name, .. } => Some(name.as_str()),
        Entry::Pattern { .. } | Entry::Address { .. } | Entry::SeeThru { .. } => None,
    });
    let encrypted = names.filter(|name| {
        DOH_NAMES.iter().any(|known| {
            name == known
                || name
                    .strip_suffix(known)
                    .is_some_and(|rest| rest.ends_with('.'))
        })
    });
    encrypted
        .map(|name| {
            let message = format!(
                "{name} resolves names over HTTPS: clients can look up, and tunnel to, any name"
            );
            Remark::advice(object, rule, None, message)
        })
        .collect()
}

/// Preferences under which every kind of entry can be checked.
fn lenient() -> Preferences {
    Preferences {
        plaintext_http: policy::preferences::PlaintextHttp::AllowListed,
        address_rules: policy::preferences::AddressRules::Allow,
        ..Preferences::default()
    }
}

/// A protocol that can carry whatever the annotation lists.
fn transport_of(text: &str) -> RuleTransport {
    let kind = text.split(':').nth(1).unwrap_or_default().trim();
    let any = ["address", "see-thru"]
        .iter()
        .any(|known| kind.eq_ignore_ascii_case(known));
    if any {
        RuleTransport::All
    } else {
        RuleTransport::Tcp
    }
}

impl Remark {
    fn of_fault(fault: &Fault) -> Self {
        let text = if fault.text.is_empty() {
            String::new()
        } else {
            format!("{:?}: ", fault.text)
        };
        Self {
            object: fault.object.clone(),
            rule: fault.rule.clone(),
            column: fault.column,
            kind: fault.kind.as_str().to_owned(),
            message: format!("{text}{}", fault.detail),
        }
    }

    fn advice(object: &str, rule: Option<&str>, column: Option<usize>, message: String) -> Self {
        Self {
            object: object.to_owned(),
            rule: rule.map(str::to_owned),
            column,
            kind: "advice".to_owned(),
            message,
        }
    }
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.object)?;
        if let Some(rule) = &self.rule {
            write!(f, " rule {rule}")?;
        }
        if let Some(column) = self.column {
            write!(f, " column {column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Public resolvers that answer DNS over HTTPS under these names.
const DOH_NAMES: [&str; 8] = [
    "dns.google",
    "cloudflare-dns.com",
    "one.one.one.one",
    "dns.quad9.net",
    "doh.opendns.com",
    "dns.adguard-dns.com",
    "dns.nextdns.io",
    "doh.cleanbrowsing.org",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str, cloud: annotation::Cloud) -> Vec<String> {
        annotation(text, cloud)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn good_annotation_has_no_remark() {
        for text in [
            "postern:tls:api.github.com,*.example.org # the forge",
            "discriminat:ssh:git.example.org",
            "postern:see-thru:2027-01-31",
            "postern:http:mirror.example.org",
            "postern:address:ntp",
            "postern:tls:@names",
        ] {
            assert_eq!(
                messages(text, annotation::Cloud::Aws),
                Vec::<String>::new(),
                "{text}"
            );
        }
    }

    #[test]
    fn fault_is_said_with_its_column() {
        let said = messages(
            "postern:tls:api.github.com,*.github.io",
            annotation::Cloud::File,
        );
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(" column 28: "), "{said:?}");
    }

    #[test]
    fn aws_length_counts_only_for_aws() {
        let long = format!("postern:tls:{}", vec!["a.example.org"; 20].join(","));
        assert!(messages(&long, annotation::Cloud::File).is_empty());
        assert!(messages(&long, annotation::Cloud::Aws)[0].contains("AWS stores at most 255"));
    }

    #[test]
    fn name_of_a_public_resolver_is_pointed_out() {
        let said = messages("postern:tls:dns.google", annotation::Cloud::File);
        assert!(said[0].contains("resolves names over HTTPS"), "{said:?}");
    }
}
