//! Packed names and bundles, as the appliance reads them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use e2e::suite::ROOT;
use e2e::terraform::Terraform;
use policy::annotation::{self, Cloud, Site, Standing};
use policy::preferences::PlaintextHttp;
use policy::{Entry, Preferences, RuleTransport};
use serde_json::{Value, json};

use crate::modules::data;

/// What `bundles/pack` makes of these names, by the real Terraform.
fn pack(prefix: &str, names: &[String], limit: usize) -> Vec<String> {
    let terraform = Terraform::with_stubs().unwrap();
    let folder = Path::new(ROOT).join("terraform/bundles/pack");
    let data = data(&format!("pack-{limit}-{}", names.len()));
    let variables = data.join("names.tfvars.json");
    let document = json!({ "prefix": prefix, "names": names, "limit": limit });
    fs::write(&variables, document.to_string()).unwrap();
    let (plan, file) = (
        data.join("plan"),
        format!("-var-file={}", variables.display()),
    );
    let out = format!("-out={}", plan.display());
    let state = format!("-state={}", data.join("state").display());
    terraform
        .run(&folder, &data, &["plan", &file, &out, &state])
        .unwrap();
    let shown = terraform
        .run(&folder, &data, &["show", "-json", plan.to_str().unwrap()])
        .unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let descriptions = shown
        .pointer("/planned_values/outputs/descriptions/value")
        .unwrap();
    let texts = descriptions.as_array().unwrap().iter();
    texts
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// Every bundle's names of a kind, for one region.
fn bundled(kind: &str) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(Path::new(ROOT).join("terraform/bundles/bundles.json")).unwrap();
    let bundles: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    for (name, bundle) in bundles.as_object().unwrap() {
        assert!(
            bundle["source"].as_str().unwrap().contains("https://"),
            "{name} says where it comes from"
        );
        let names = bundle[kind].as_array().cloned().unwrap_or_default();
        let names = names
            .iter()
            .map(|entry| entry.as_str().unwrap().replace("{region}", "eu-west-1"));
        found.push((name.clone(), names.collect()));
    }
    found
}

#[test]
fn every_bundle_there_must_be_is_there() {
    let names: BTreeSet<String> = bundled("tls").into_iter().map(|(name, _)| name).collect();
    for name in [
        "aws-ssm",
        "aws-ecr",
        "aws-eks-node",
        "debian",
        "ubuntu",
        "amazon-linux",
        "gcp-ops-agent",
        "gke-node",
        "github-actions",
    ] {
        assert!(names.contains(name), "{name}");
    }
}

/// The names in descriptions, as the appliance's own parser reads them with default preferences.
fn read(descriptions: &[String], plaintext_http: bool) -> Vec<String> {
    let mut preferences = Preferences::default();
    if plaintext_http {
        preferences.plaintext_http = PlaintextHttp::AllowListed;
    }
    let site = Site {
        object: "sg-1",
        rule: Some("sgr-1"),
        transport: Some(RuleTransport::Tcp),
        cidr: "0.0.0.0/0".parse().ok(),
        standing: Standing::Active,
        preferences: &preferences,
    };
    let mut names = Vec::new();
    for text in descriptions {
        let reading = annotation::read(text, &site, &mut |_| Err("no list here".to_owned()));
        assert!(reading.faults.is_empty(), "{text}: {:?}", reading.faults);
        for entry in reading.entries {
            names.push(match entry {
                Entry::Name { name, .. } => name.to_string(),
                Entry::Pattern { pattern, .. } => pattern.to_string(),
                other @ (Entry::Address { .. } | Entry::SeeThru { .. }) => {
                    panic!("{text}: {other:?}")
                }
            });
        }
    }
    names
}

#[test]
fn packed_bundles_are_read_back_by_the_appliance_in_both_clouds() {
    let everything = |kind: &str| -> Vec<String> {
        let mut seen = BTreeSet::new();
        let names = bundled(kind).into_iter().flat_map(|(_, names)| names);
        names.filter(|name| seen.insert(name.clone())).collect()
    };
    for (kind, plaintext_http) in [("tls", false), ("http", true)] {
        let names = everything(kind);
        for (cloud, limit) in [(Cloud::Aws, 255), (Cloud::Gcp, 1_900)] {
            let descriptions = pack(&format!("postern:{kind}:"), &names, limit);
            for text in &descriptions {
                assert!(text.chars().count() <= limit, "{text}");
                let findings = annotation::lint(text, cloud, None);
                assert!(findings.is_empty(), "{text}: {findings:?}");
            }
            assert_eq!(read(&descriptions, plaintext_http), names);
        }
    }
}

#[test]
fn a_pinned_key_and_a_list_survive_packing() {
    let pin = format!("git.example=SHA256:{}", "A".repeat(43));
    let descriptions = pack(
        "postern:ssh:",
        &[pin.clone(), "@team-1/list".to_owned()],
        255,
    );
    assert_eq!(descriptions, [format!("postern:ssh:{pin},@team-1/list")]);
    assert!(annotation::lint(&descriptions[0], Cloud::Aws, None).is_empty());
    assert_eq!(annotation::references(&descriptions[0]).len(), 1);
}
