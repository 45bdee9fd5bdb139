//! REDTEAM, finding 13: flows that end at a rate no machine of this lab could open them at. They are those of an earlier
//! process, as a restart finds them: one real flow is the model of all, in the file that outlives the process and in the
//! kernel's table.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use e2e::conntrack::{self, Ends, Table};
use e2e::daemon::{Daemon, INVENTORY};
use e2e::topology::{CLIENT_IF, Family, PUPPET, Topology};
use e2e::wait;
use serde_json::{Value, json};

use crate::end_records::await_kept;

/// Where those flows come from, and how many of one address.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 100);
const PORTS_EACH: u16 = 1_000;

/// Ends a second asked for, so that a busy machine has some to spare, and those there have to be.
const PACE: usize = 15_000;
const WANTED: f64 = 10_000.0;

/// What forty-five thousand lines may take to be read, or written, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A Postern that follows flows of an earlier process, all of which the kernel still carries.
struct Stage<'t> {
    daemon: Daemon<'t>,
    table: Table,
    flows: Vec<Ends>,
}

impl<'t> Stage<'t> {
    fn new(lab: &'t Topology, count: usize) -> Self {
        lab.client
            .ip(&format!("addr add {FIRST}/32 dev {CLIENT_IF}\n"))
            .unwrap();
        let open = "[[group]]\nid = \"open\"\n[[group.rule]]\ndescription = \"postern:see-thru:2099-12-31\"\n\
                    protocol = \"udp\"\nports = \"all\"\n\
                    [[client]]\naddress = \"10.77.2.0/24\"\ninstance = \"many\"\ngroups = [\"open\"]\n";
        let mut daemon = Daemon::start(lab, &format!("{INVENTORY}\n{open}")).unwrap();
        let _silent = lab.puppet().unwrap();
        let flows = conntrack::flows(FIRST, PORTS_EACH, count, PUPPET.at(Family::V4, 9_999));
        let (from, to) = flows[0];
        let send = || {
            let socket = std::net::UdpSocket::bind(from).unwrap();
            socket.send_to(b"one", to).unwrap();
        };
        lab.client.enter(send).unwrap();
        await_kept(lab, 1);
        daemon.kill().unwrap();
        let path = lab.file("state").join("flows.jsonl");
        let kept = std::fs::read_to_string(&path).unwrap();
        let model = kept
            .lines()
            .find(|line| line.starts_with("{\"flow\":"))
            .unwrap();
        let mut model: Value = serde_json::from_str(model).unwrap();
        let mut all = kept.clone();
        for (from, _) in &flows[1..] {
            model["flow"]["line"]["src"] = json!(from.ip());
            model["flow"]["line"]["spt"] = json!(from.port());
            all.push_str(&format!("{model}\n"));
        }
        std::fs::write(&path, all).unwrap();
        let table = Table::open(&lab.firewall).unwrap();
        let mark = conntrack::mark_of(&lab.firewall, flows[0]).unwrap();
        table.add(&flows[1..], mark).unwrap();
        daemon.restart().unwrap();
        let stage = Self {
            daemon,
            table,
            flows,
        };
        let known = || stage.metric("postern_flows_judged");
        assert!(
            wait::holds(PATIENCE, || known() == count as f64),
            "{} are known",
            known()
        );
        stage
    }

    fn metric(&self, name: &str) -> f64 {
        self.daemon.metric(name).unwrap()
    }

    /// Waits for so many end lines as `enough` says.
    fn await_ends(&self, enough: impl Fn(f64) -> bool) {
        let given_up_at = Instant::now() + PATIENCE;
        while !enough(self.ended()) {
            assert!(Instant::now() < given_up_at, "{} end lines", self.ended());
            // Asking is a process each time.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// End lines so far.
    fn ended(&self) -> f64 {
        self.daemon.status().unwrap()["spool"]["end"]["lines"]
            .as_f64()
            .unwrap()
    }

    /// Who the end lines are about, each once.
    fn sources(&self) -> BTreeSet<SocketAddr> {
        let mut sources = BTreeSet::new();
        for line in self.daemon.logs().lines("end") {
            let source = format!("{}:{}", line.text("src"), line.text("spt"));
            assert!(
                sources.insert(source.parse().unwrap()),
                "{source} ended twice"
            );
        }
        sources
    }
}

#[test]
fn ten_thousand_closes_a_second_leave_an_end_line_each() {
    let lab = Topology::new().unwrap();
    let stage = Stage::new(&lab, 3 * PACE);
    let (begun, mut done) = (Instant::now(), 0);
    while done < stage.flows.len() {
        std::thread::sleep(Duration::from_millis(2));
        let due = usize::try_from(begun.elapsed().as_millis()).unwrap() * PACE / 1_000;
        let due = due.min(stage.flows.len());
        stage.table.delete(&stage.flows[done..due]).unwrap();
        done = due;
    }
    let (all, took) = (done as f64, begun.elapsed());
    let rate = all / took.as_secs_f64();
    assert!(
        rate >= WANTED,
        "{rate:.0} ends a second: this machine is too busy to tell"
    );
    stage.await_ends(|ended| ended >= all);
    let expected = stage.flows.iter().map(|(from, _)| SocketAddr::V4(*from));
    assert!(
        stage.sources() == expected.collect(),
        "other flows ended than those"
    );
    for loss in [
        "postern_flows_forgotten_total",
        "postern_log_lines_lost_total",
    ] {
        assert_eq!(stage.metric(loss), 0.0, "{loss}");
    }
}

/// Entries of nobody that end, at most: their events fill a buffer of 64 MiB, which the kernel takes twice, long before.
const STRANGERS: usize = 200_000;

/// The daemon stands still while far more flows end than its buffer has room for. The kernel keeps what it could not
/// deliver: each of ours is said in the end, or counted.
#[test]
fn ends_beyond_the_buffer_are_offered_again_or_counted() {
    let lab = Topology::new().unwrap();
    let stage = Stage::new(&lab, 2_000);
    let strangers = Ipv4Addr::new(10, 78, 0, 0);
    let to = PUPPET.at(Family::V4, 9_999);
    stage.daemon.pause().unwrap();
    let full = conntrack::flows(strangers, 10_000, STRANGERS, to)
        .chunks(10_000)
        .any(|some| {
            // Nobody's mark, and never more of them in the table than this.
            stage.table.add(some, 0).unwrap();
            stage.table.delete(some).unwrap();
            conntrack::undelivered(&lab.firewall).unwrap() > 0
        });
    assert!(full, "{STRANGERS} ends did not fill the buffer");
    stage.table.delete(&stage.flows).unwrap();
    stage.daemon.resume().unwrap();
    let overrun = || stage.metric("postern_conntrack_overruns_total");
    assert!(
        wait::holds(PATIENCE, || overrun() > 0.0),
        "the overrun is not counted"
    );
    let forgotten = || stage.metric("postern_flows_forgotten_total");
    let all = stage.flows.len() as f64;
    stage.await_ends(|ended| ended + forgotten() >= all);
    assert_eq!(stage.sources().len() as f64 + forgotten(), all);
    assert!(
        stage.daemon.status().unwrap()["losses"]["conntrack_events"]
            .as_f64()
            .unwrap()
            > 0.0
    );
}
