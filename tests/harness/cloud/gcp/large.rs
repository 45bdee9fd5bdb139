//! A project as large as the product promises to serve, with machines as Compute Engine describes them.

use serde_json::{Value, json};

use super::model::{Firewall, Machine, ROOT};
use super::server::Google;

/// How large.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Machines, in three zones of one region.
    pub machines: usize,
    /// Annotated rules: one for every machine, and the others by tag and by account in turn.
    pub rules: usize,
}

/// As large as is promised.
pub const PROMISED: Size = Size {
    machines: 5_000,
    rules: 500,
};

/// Names that each allows.
pub const NAMES_PER_RULE: usize = 40;

const ZONES: [&str; 3] = ["europe-west1-b", "europe-west1-c", "europe-west1-d"];

/// Fills a project.
pub fn fill(google: &Google, size: Size) {
    google.subnet("machines", "10.0.0.0/8");
    for number in 0..size.rules {
        google.firewall(rule(number));
    }
    for number in 0..size.machines {
        let zone = ZONES.get(number % ZONES.len()).copied().unwrap_or_default();
        let place = (Google::PROJECT, zone);
        let machine = machine(number, number % size.rules / 2 * 2, zone);
        google.machine_in(place, "net-1/global/networks/main", machine);
    }
}

/// The name of a rule.
pub fn rule_name(number: usize) -> String {
    format!("r{number:03}")
}

/// The name of a machine.
pub fn machine_name(number: usize) -> String {
    format!("vm-{number:04}")
}

/// What a rule says: its names, the first of them another one after an edit.
pub fn description(number: usize, first: &str) -> String {
    let others = (1..NAMES_PER_RULE).map(|name| format!("h{name}.r{number}.example.com"));
    let names: Vec<String> = std::iter::once(first.to_owned()).chain(others).collect();
    format!("postern:tls:{}", names.join(","))
}

fn rule(number: usize) -> Firewall {
    let first = format!("h0.r{number}.example.com");
    let rule = Firewall::https(&rule_name(number), &description(number, &first));
    match number {
        0 => rule,
        _ if number.is_multiple_of(2) => rule.tags(&[&format!("t{number}")]),
        _ => rule.with("targetServiceAccounts", json!([account(number)])),
    }
}

fn account(number: usize) -> String {
    format!("a{number}@net-1.iam.gserviceaccount.com")
}

/// A machine with a tag and an account, and all that lists say of one beside.
fn machine(number: usize, rule: usize, zone: &str) -> Machine {
    let (name, address) = (
        machine_name(number),
        format!("10.{}.{}.10", number >> 8, number & 255),
    );
    let mut machine = Machine::new(&name, &address)
        .tags(&[format!("t{rule}").as_str(), "any"])
        .account(&account(rule + 1));
    let link = format!("{ROOT}/projects/net-1/zones/{zone}");
    let more = json!({
        "creationTimestamp": "2026-05-04T03:02:01.000-07:00",
        "machineType": format!("{link}/machineTypes/e2-standard-4"),
        "cpuPlatform": "Intel Broadwell",
        "canIpForward": false,
        "startRestricted": false,
        "deletionProtection": false,
        "fingerprint": "wIhbQxDLeJI=",
        "labelFingerprint": "42WmSpB8rSM=",
        "lastStartTimestamp": "2026-05-04T03:02:11.000-07:00",
        "labels": {"team": "payments", "env": "production", "goog-ops-agent-policy": "v2-x86-template-1-4-0"},
        "metadata": {"kind": "compute#metadata", "fingerprint": "h8J9TDqxQXo=", "items": [
            {"key": "startup-script", "value": "#!/bin/sh\nset -eu\n".to_owned() + &"echo ready >> /var/log/start\n".repeat(40)},
            {"key": "enable-oslogin", "value": "TRUE"},
        ]},
        "disks": [disk(&link, &name, 0), disk(&link, &name, 1)],
        "scheduling": {"onHostMaintenance": "MIGRATE", "automaticRestart": true, "preemptible": false, "provisioningModel": "STANDARD"},
        "shieldedInstanceConfig": {"enableSecureBoot": false, "enableVtpm": true, "enableIntegrityMonitoring": true},
        "shieldedInstanceIntegrityPolicy": {"updateAutoLearnPolicy": true},
        "displayDevice": {"enableDisplay": false},
        "selfLink": format!("{link}/instances/{name}"),
    });
    if let (Value::Object(more), Some(fields)) = (more, machine.fields.as_object_mut()) {
        fields.extend(more);
    }
    machine
}

fn disk(link: &str, machine: &str, index: u32) -> Value {
    json!({
        "kind": "compute#attachedDisk", "type": "PERSISTENT", "mode": "READ_WRITE", "index": index, "boot": index == 0,
        "source": format!("{link}/disks/{machine}-{index}"), "deviceName": format!("persistent-disk-{index}"),
        "autoDelete": true, "interface": "SCSI", "diskSizeGb": "100", "architecture": "X86_64",
        "licenses": [format!("{ROOT}/projects/debian-cloud/global/licenses/debian-12-bookworm")],
        "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}, {"type": "VIRTIO_SCSI_MULTIQUEUE"}, {"type": "GVNIC"}],
    })
}
