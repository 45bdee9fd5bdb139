//! Servers that show a certificate which is not of the name their clients asked for: seen by handshakes of Postern's own.

use std::process::{Child, Stdio};
use std::time::Duration;

use e2e::daemon::{Daemon, INVENTORY, get};
use e2e::packet::contains;
use e2e::peer::{Authority, PatientTlsServer, Script};
use e2e::topology::{Asker, Family, RECORDER, Topology};
use e2e::wait::{self, PATIENCE};

use crate::explain::{explain, says};
use crate::fail_closed_matrix::clock_is_unsynchronised;
use crate::scene::{Scene, allowed, isn};

fn inventory(check: &str) -> String {
    let with = format!("[preferences]\ncertificate_check = \"{check}\"");
    INVENTORY.replace("[preferences]", &with)
}

/// A Postern that trusts an authority made for the run, and that authority.
fn trusting<'t>(lab: &'t Topology, check: &str) -> (Daemon<'t>, Authority) {
    let authority = Authority::new(lab.files.path()).unwrap();
    let anchors = authority.certificate();
    let certificates = format!("anchors = {anchors:?}\ntrust_clock = true\n");
    let daemon = Daemon::certifying(lab, &inventory(check), &certificates).unwrap();
    (daemon, authority)
}

fn checks(daemon: &Daemon<'_>, lab: &Topology, outcome: &str) -> u32 {
    let page = get(&lab.firewall, 9642, "/metrics").unwrap();
    let of_it = format!("postern_certificate_checks_total{{outcome=\"{outcome}\"}} ");
    let count = page.lines().find_map(|line| line.strip_prefix(&of_it));
    let count: u32 = count.unwrap().parse().unwrap();
    let all = daemon.metric("postern_certificate_checks_total").unwrap();
    assert!(all >= f64::from(count), "{page}");
    count
}

/// A TLS client that has connected, says nothing and waits.
struct Quiet(Child);

impl Quiet {
    fn connect(lab: &Topology, family: Family) -> Self {
        Self::claiming(lab, family, RECORDER.name)
    }

    fn claiming(lab: &Topology, family: Family, name: &str) -> Self {
        let to = RECORDER.at(family, 443).to_string();
        let args = ["s_client", "-quiet", "-connect", &to, "-servername", name];
        let mut command = lab.client.command("openssl");
        let command = command.args(args).stdin(Stdio::piped());
        Self(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts a server at the recorder's address, with a certificate of `name`.
fn serve(lab: &Topology, authority: &Authority, name: &str, family: Family) -> PatientTlsServer {
    let address = RECORDER.at(family, 443);
    PatientTlsServer::start(&lab.internet, authority, name, address).unwrap()
}

both_families! {
    fn certificate_of_another_name_ends_the_flow_and_refuses_the_next(family) {
        let lab = Topology::new().unwrap();
        let (daemon, authority) = trusting(&lab, "enforce");
        let _server = serve(&lab, &authority, "evil.example", family);
        let outside = lab.capture_outside().unwrap();
        let mut first = Quiet::connect(&lab, family);
        assert!(wait::holds(PATIENCE, || first.ended()), "the flow goes on");
        let refused = [("outcome", "disallowed"), ("reason", "certificate_invalid")];
        let line = daemon.logs().expect(&refused).unwrap();
        assert_eq!(line.text("dhost"), RECORDER.name);
        let said = [("cat", "fault"), ("object", RECORDER.name)];
        let fault = daemon.logs().expect_in("config", &said).unwrap();
        assert!(fault.text("message").contains("the certificate is of DnsName(\"evil.example\")"), "{}", fault.0);
        assert_eq!(checks(&daemon, &lab, "invalid"), 1);
        let client = Asker::Attacker.address(family).to_string();
        let to = RECORDER.address(family).to_string();
        let (code, answer) = explain(&lab, &[&client, "tls", RECORDER.name, &to]);
        assert_eq!((code, &answer["reason"]), (Some(1), &"certificate_invalid".into()), "{answer}");
        assert!(says(&answer, "has shown a certificate"), "{answer}");
        // The next is not even let to say hello.
        let attacker = lab.attacker().unwrap();
        let mut next = attacker.connect(40_001, RECORDER.at(family, 443), isn(40_001)).unwrap();
        next.write(&allowed()).unwrap();
        assert!(next.wait_reset().unwrap());
        let by = [("outcome", "disallowed"), ("spt", "40001")];
        assert_eq!(daemon.logs().expect(&by).unwrap().text("reason"), "certificate_invalid");
        outside.settle(Duration::from_millis(100));
        let from_it = |seen: &e2e::packet::Seen| seen.from.port() == 40_001 && !seen.payload.is_empty();
        assert_eq!(outside.matching(from_it), []);
        assert_eq!(checks(&daemon, &lab, "invalid"), 1, "what is known is not asked for again");
    }
}

both_families! {
    fn certificate_of_another_name_is_only_said_under_observe(family) {
        let lab = Topology::new().unwrap();
        let (daemon, authority) = trusting(&lab, "observe");
        let _server = serve(&lab, &authority, "evil.example", family);
        let mut first = Quiet::connect(&lab, family);
        let said = [("cat", "fault"), ("object", RECORDER.name)];
        daemon.logs().expect_in("config", &said).unwrap();
        let mut second = Quiet::connect(&lab, family);
        let would = [("outcome", "allowed"), ("would_reason", "certificate_invalid")];
        assert_eq!(daemon.logs().expect(&would).unwrap().text("dhost"), RECORDER.name);
        // Longer than a flow that is to end takes to.
        std::thread::sleep(Duration::from_millis(1_500));
        assert!(!first.ended() && !second.ended(), "a flow was ended");
        // And what is known counts at once where it begins to be enforced.
        daemon.reload(&inventory("enforce")).unwrap();
        assert!(wait::holds(PATIENCE, || first.ended() && second.ended()));
    }
}

both_families! {
    fn certificate_by_an_authority_nobody_trusts_ends_the_flow(family) {
        let lab = Topology::new().unwrap();
        let (daemon, _) = trusting(&lab, "enforce");
        let folder = lab.file("stranger");
        std::fs::create_dir(&folder).unwrap();
        let stranger = Authority::new(&folder).unwrap();
        let _server = serve(&lab, &stranger, RECORDER.name, family);
        let mut first = Quiet::claiming(&lab, family, "Recorder.ALLOWED.example");
        assert!(wait::holds(PATIENCE, || first.ended()), "the flow goes on");
        let refused = [("outcome", "disallowed"), ("reason", "certificate_invalid")];
        daemon.logs().expect(&refused).unwrap();
    }
}

both_families! {
    fn good_certificate_is_asked_for_once_and_its_flows_go_on(family) {
        let lab = Topology::new().unwrap();
        // Its authority is written in the configuration itself.
        let authority = Authority::new(lab.files.path()).unwrap();
        let pem = std::fs::read_to_string(authority.certificate()).unwrap();
        let certificates = format!("authorities = \"\"\"{pem}\"\"\"\ntrust_clock = true\n");
        let daemon = Daemon::certifying(&lab, &inventory("enforce"), &certificates).unwrap();
        let _server = serve(&lab, &authority, RECORDER.name, family);
        let mut flows = vec![Quiet::connect(&lab, family)];
        assert!(wait::holds(PATIENCE, || checks(&daemon, &lab, "valid") == 1));
        flows.extend((0..3).map(|_| Quiet::connect(&lab, family)));
        let served = |daemon: &Daemon<'_>| daemon.logs().matching(&[("cat", "server"), ("outcome", "allowed")]).len();
        assert!(wait::holds(PATIENCE, || served(&daemon) == 4));
        std::thread::sleep(Duration::from_millis(1_500));
        assert!(flows.iter_mut().all(|flow| !flow.ended()));
        assert_eq!(checks(&daemon, &lab, "valid"), 1);
    }
}

/// A server that is no TLS server shows nothing; for an address of the current answer that is no failure.
#[test]
fn server_that_shows_no_certificate_is_no_failure_while_dns_names_it() {
    let lab = Topology::new().unwrap();
    let (daemon, _) = trusting(&lab, "enforce");
    let scene = Scene::around(&lab, Family::V4, daemon, Script::Tls);
    scene.assert_allowed("the first", &allowed());
    assert!(wait::holds(PATIENCE, || checks(
        &scene.daemon,
        &lab,
        "unseen"
    ) == 1));
    scene.assert_allowed("the next", &allowed());
    // Its own handshake said which name it is about, and nothing else.
    let hellos = scene.recorder.conversations();
    assert!(
        hellos
            .iter()
            .all(|it| contains(&it.bytes, RECORDER.name.as_bytes()))
    );
}

#[test]
fn nobody_is_asked_for_flows_that_see_thru_lets_pass_or_that_are_refused() {
    let see_thru =
        inventory("enforce").replace("[preferences]", "[preferences]\nsee_thru = \"2099-01-01\"");
    for (inventory, hello) in [
        (see_thru, allowed()),
        (inventory("off"), allowed()),
        (inventory("enforce"), crate::scene::evil()),
    ] {
        let lab = Topology::new().unwrap();
        let authority = Authority::new(lab.files.path()).unwrap();
        let certificates = format!(
            "anchors = {:?}\ntrust_clock = true\n",
            authority.certificate()
        );
        let daemon = Daemon::certifying(&lab, &inventory, &certificates).unwrap();
        let scene = Scene::around(&lab, Family::V4, daemon, Script::Tls);
        let mut tcp = scene.connect();
        tcp.write(&hello).unwrap();
        assert!(
            tcp.pump(PATIENCE, |tcp| !tcp.received.is_empty() || tcp.reset)
                .unwrap()
        );
        scene.outside.settle(Duration::from_millis(1_000));
        assert_eq!(
            scene.recorder.conversations().len(),
            1,
            "somebody else called"
        );
    }
}

/// Where nobody keeps the clock no certificate can be dated: new ones refuse.
#[test]
fn clock_unsynchronised_refuses_new_certificates_under_enforce() {
    let lab = Topology::new().unwrap();
    let authority = Authority::new(lab.files.path()).unwrap();
    let anchors = format!("anchors = {:?}\n", authority.certificate());
    let daemon = Daemon::certifying(&lab, &inventory("enforce"), &anchors).unwrap();
    let _server = serve(&lab, &authority, RECORDER.name, Family::V4);
    let mut first = Quiet::connect(&lab, Family::V4);
    if clock_is_unsynchronised() {
        assert!(wait::holds(PATIENCE, || first.ended()));
        let refused = [("outcome", "disallowed"), ("reason", "certificate_invalid")];
        daemon.logs().expect(&refused).unwrap();
    } else {
        assert!(wait::holds(PATIENCE, || checks(&daemon, &lab, "valid") == 1));
        assert!(!first.ended());
    }
}

#[test]
fn file_of_authorities_that_cannot_be_read_is_said() {
    let lab = Topology::new().unwrap();
    let missing = lab.file("nowhere/anchors.pem");
    let anchors = format!("anchors = {missing:?}\n");
    let daemon = Daemon::certifying(&lab, &inventory("observe"), &anchors).unwrap();
    let said = || daemon.status().unwrap()["degraded"].to_string();
    let place = missing.display().to_string();
    assert!(
        wait::holds(PATIENCE, || said().contains(&place)),
        "{}",
        said()
    );
    let fault = [("cat", "fault"), ("object", "certificates.anchors")];
    daemon.logs().expect_in("config", &fault).unwrap();
}
