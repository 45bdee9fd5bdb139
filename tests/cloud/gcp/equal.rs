//! The same annotations through both clouds.

#![expect(
    clippy::indexing_slicing,
    reason = "a test reads answers whose form it knows"
)]

use std::process::Output;

use e2e::cloud::{Cloud, Firewall, Google, Machine, Pace, Rule, Sidecar};
use serde_json::{Value, json};

const PACE: Pace = Pace {
    page_items: 3,
    page_time: std::time::Duration::from_millis(1),
};

/// Name, annotation, protocol, first and last port, destination.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    (i32, i32),
    &'static str,
);

const ANYWHERE: &str = "0.0.0.0/0";

/// Every kind, both prefixes, each fault that both clouds let people write.
const TABLE: [Row; 17] = [
    (
        "names",
        "postern:tls:api.example.com, www.example.org",
        "tcp",
        (443, 443),
        ANYWHERE,
    ),
    (
        "legacy",
        "discriminat:TLS:Api.Example.NET",
        "tcp",
        (443, 443),
        ANYWHERE,
    ),
    (
        "pattern",
        "postern:tls:*.example.com,a*.example.net",
        "tcp",
        (443, 443),
        ANYWHERE,
    ),
    (
        "ranges",
        "postern:tls:ranges.example.com",
        "tcp",
        (8_000, 8_100),
        ANYWHERE,
    ),
    (
        "udp",
        "postern:tls:udp.example.com",
        "udp",
        (443, 443),
        ANYWHERE,
    ),
    (
        "all",
        "postern:ssh:git.example.com",
        "-1",
        (-1, -1),
        ANYWHERE,
    ),
    (
        "narrow",
        "postern:tls:narrow.example.com",
        "tcp",
        (443, 443),
        "203.0.113.0/24",
    ),
    (
        "comment",
        "postern:tls:c.example.com # ticket 7",
        "tcp",
        (443, 443),
        ANYWHERE,
    ),
    (
        "see-thru",
        "postern:see-thru:2031-1-2",
        "tcp",
        (443, 443),
        ANYWHERE,
    ),
    (
        "address",
        "postern:address: mail",
        "tcp",
        (25, 25),
        "203.0.113.0/24",
    ),
    (
        "http",
        "postern:http:plain.example.com",
        "tcp",
        (80, 80),
        ANYWHERE,
    ),
    (
        "half",
        "postern:tls:good.example.com,a..b",
        "tcp",
        (443, 443),
        ANYWHERE,
    ),
    (
        "literal",
        "postern:tls:203.0.113.9",
        "tcp",
        (443, 443),
        ANYWHERE,
    ),
    (
        "unknown",
        "postern:tsl:api.example.com",
        "tcp",
        (443, 443),
        ANYWHERE,
    ),
    ("wide", "postern:tls:*.com", "tcp", (443, 443), ANYWHERE),
    (
        "bad-date",
        "postern:see-thru:2026-13-41",
        "tcp",
        (443, 443),
        ANYWHERE,
    ),
    (
        "pings",
        "postern:tls:ping.example.com",
        "icmp",
        (-1, -1),
        ANYWHERE,
    ),
];

fn address(row: usize) -> String {
    format!("10.77.1.{}", 20 + row)
}

fn snapshot(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(
        text.starts_with('{'),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn through_aws() -> Value {
    let cloud = Cloud::with_pace(PACE).unwrap();
    let vpc = cloud.api.vpc("10.77.0.0/16").unwrap();
    let subnet = cloud.api.subnet(&vpc, "10.77.1.0/24").unwrap();
    let mut renamed = Vec::new();
    for (index, (name, description, protocol, ports, cidr)) in TABLE.into_iter().enumerate() {
        let gid = cloud.api.group(&vpc, name).unwrap();
        let rule = cloud
            .api
            .allow(
                &gid,
                Rule {
                    protocol,
                    ports,
                    cidr,
                    description,
                },
            )
            .unwrap();
        let interface = cloud
            .api
            .interface(&subnet, &address(index), &[&gid])
            .unwrap();
        renamed.extend([(gid, name), (interface, name), (rule, "rule")]);
    }
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[aws]\nvpcs = [\"{vpc}\"]\n");
    let sidecar = Sidecar::new(folder.path(), &cloud.double.url(), &config).unwrap();
    let mut text = snapshot(&sidecar.once(&["--dry-run"]).unwrap());
    for (id, name) in renamed {
        text = text.replace(&format!("\"{id}\""), &format!("\"{name}\""));
    }
    sorted(serde_json::from_str(&text).unwrap())
}

fn through_gcp() -> Value {
    let google = Google::start(PACE).unwrap();
    google.subnet("machines", "10.77.0.0/16");
    let mut ids = Vec::new();
    for (index, (name, description, protocol, (first, last), cidr)) in TABLE.into_iter().enumerate()
    {
        let mut allowed = json!({"IPProtocol": if protocol == "-1" { "all" } else { protocol }});
        if first >= 0 {
            let is_one = first == last;
            let range = if is_one {
                first.to_string()
            } else {
                format!("{first}-{last}")
            };
            allowed["ports"] = json!([range]);
        }
        let rule = Firewall::https(name, description)
            .with("allowed", json!([allowed]))
            .with("destinationRanges", json!([cidr]))
            .tags(&[name]);
        ids.push(google.firewall(rule));
        google.machine(Machine::new(name, &address(index)).tags(&[name]));
    }
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "provider = \"gcp\"\n[gcp]\nendpoint_url = \"{}\"\n",
        google.url()
    );
    let mut sidecar = Sidecar::new(folder.path(), "http://127.0.0.1:1", &config).unwrap();
    sidecar.set("GCE_METADATA_HOST", &google.host());
    let mut text = snapshot(&sidecar.once(&["--dry-run"]).unwrap());
    for id in ids {
        text = text.replace(&format!("\"{id}\""), "\"rule\"");
    }
    sorted(serde_json::from_str(&text).unwrap())
}

/// The same with every list in one order: ids that are no longer there had decided it.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.into_iter().map(sorted).collect();
            items.sort_by_key(Value::to_string);
            items.into()
        }
        Value::Object(fields) => {
            let sorted = fields.into_iter().map(|(key, value)| (key, sorted(value)));
            Value::Object(sorted.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

#[test]
fn aws_and_gcp_give_equal_snapshots() {
    let (aws, gcp) = (through_aws(), through_gcp());
    assert_eq!(
        aws["groups"].as_array().unwrap().len(),
        TABLE.len() - 1,
        "{aws:#}"
    );
    assert_eq!(aws["clients"].as_array().unwrap().len(), TABLE.len());
    assert!(aws["faults"].as_array().unwrap().len() >= 7, "{aws:#}");
    for part in ["groups", "clients", "faults", "served", "preferences"] {
        assert_eq!(aws[part], gcp[part], "{part}");
    }
    assert_eq!(aws, gcp);
}
