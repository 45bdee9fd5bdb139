//! A passthrough load balancer in front of the appliance: its address is none that the machine has by itself.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use e2e::cloud::Google;
use e2e::daemon::{self, Daemon};
use e2e::dns::{RecordType, Stub};
use e2e::netns::Namespace;
use e2e::topology::{API, Asker, Family, Topology};

const FORWARDED: &str = "10.77.9.9";
const FOLDER: &str = "instance/network-interfaces";

/// What the metadata server says, as `postern-cloudsync forwarded` prints it.
fn printed(google: &Google) -> String {
    let output = std::process::Command::new(e2e::cloud::binary().unwrap())
        .arg("forwarded")
        .env("GCE_METADATA_HOST", google.host())
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The packaged script, on that list.
fn make_local(firewall: &Namespace, list: &str) {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../cloudsync/packaging/libexec/make-local"
    );
    let mut child = firewall
        .command(script)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(list.as_bytes()).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn probe_to_forwarded_ip_is_answered_from_that_ip() {
    let google = Google::start(e2e::cloud::Pace::default()).unwrap();
    // The second interface has one of its own, which the first must not hide.
    google.set_metadata(&format!("{FOLDER}/0/ip"), "203.0.113.1");
    google.set_metadata(&format!("{FOLDER}/1/forwarded-ips/0"), FORWARDED);
    let lab = Topology::new().unwrap();
    let preferences = "[preferences]\ndns_front = \"enforce\"";
    let inventory = daemon::INVENTORY.replace("[preferences]", preferences);
    let _daemon = Daemon::start(&lab, &inventory).unwrap();
    // Where probes come from is no client: a machine beside the servers, whose packets keep the balancer's address.
    let route = format!("route add {FORWARDED}/32 via 203.0.113.1\n");
    lab.internet.ip(&route).unwrap();
    let outside = lab.capture_outside().unwrap();
    let probe: SocketAddr = (FORWARDED.parse::<IpAddr>().unwrap(), 1042).into();
    assert!(
        !lab.internet.accepts(probe),
        "the address is the machine's before anybody said so"
    );
    make_local(&lab.firewall, &printed(&google));
    let body = lab
        .internet
        .run(
            "curl",
            &[
                "-sS",
                "--max-time",
                "5",
                "-w",
                "%{http_code}",
                &format!("http://{probe}/healthz"),
            ],
        )
        .unwrap();
    assert!(body.ends_with("200"), "{body}");
    outside.settle(std::time::Duration::from_millis(100));
    let answers = outside.matching(|seen| seen.from.port() == 1042);
    assert!(!answers.is_empty(), "nothing was captured");
    assert!(answers.iter().all(|seen| seen.from == probe), "{answers:?}");
    // And so is a question to the DNS front.
    let client = Asker::Workload.address(Family::V4);
    let front = SocketAddr::new(probe.ip(), 53);
    let told = Stub::new(&lab.client, client, front).insist(API.name, RecordType::A);
    let told = told.unwrap();
    assert_eq!(told.from, front);
    assert_eq!(told.addresses(), [API.address(Family::V4)]);
    // No other port of it is open.
    assert!(!lab.internet.accepts(SocketAddr::new(probe.ip(), 22)));
    // Taken away, it is given up; what the machine had by itself stays.
    make_local(&lab.firewall, "");
    assert!(!lab.internet.accepts(probe));
    let own: SocketAddr = "203.0.113.1:1042".parse().unwrap();
    assert!(lab.internet.accepts(own));
}

#[test]
fn a_silent_metadata_server_takes_no_address_away() {
    let output = std::process::Command::new(e2e::cloud::binary().unwrap())
        .arg("forwarded")
        // Nobody listens there.
        .env("GCE_METADATA_HOST", "127.0.0.1:9")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
}
