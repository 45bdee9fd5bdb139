//! checkov's findings, each answered in `terraform/checkov.json`, and no answer without a finding.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::suite::ROOT;
use serde_json::Value;

/// Pairs of check and resource out of a list of objects.
fn pairs(list: &[Value], check: &str) -> BTreeSet<(String, String)> {
    let text = |entry: &Value, key: &str| {
        let text = entry.get(key).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    list.iter()
        .map(|entry| (text(entry, check), text(entry, "resource")))
        .collect()
}

#[test]
fn every_finding_of_checkov_is_answered() {
    let folder = Path::new(ROOT).join("terraform");
    let output = Command::new(e2e::terraform::checkov().unwrap())
        .args(["--framework", "terraform", "--compact", "--skip-download"])
        .args(["--output", "json", "--directory"])
        .arg(&folder)
        // Nothing is asked of anybody.
        .env("CHECKPOINT_DISABLE", "1")
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let checked = report.pointer("/summary/passed").and_then(Value::as_u64);
    assert!(
        checked.is_some_and(|passed| passed > 50),
        "checkov looked at hardly anything: {checked:?}"
    );
    let findings = report.pointer("/results/failed_checks").unwrap();
    let findings = pairs(findings.as_array().unwrap(), "check_id");

    let answers = fs::read_to_string(folder.join("checkov.json")).unwrap();
    let answers: Vec<Value> = serde_json::from_str(&answers).unwrap();
    for entry in &answers {
        let answer = entry.get("answer").and_then(Value::as_str);
        assert!(answer.is_some_and(|text| text.len() > 20), "{entry}");
    }
    let answers = pairs(&answers, "check");
    let unanswered: Vec<_> = findings.difference(&answers).collect();
    assert!(unanswered.is_empty(), "unanswered: {unanswered:#?}");
    let idle: Vec<_> = answers.difference(&findings).collect();
    assert!(idle.is_empty(), "answered without a finding: {idle:#?}");
}
