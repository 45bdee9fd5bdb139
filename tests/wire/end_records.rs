//! The `end` line: one for every allowed flow, with what went through it (REDTEAM, finding 13).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use e2e::daemon::{Daemon, INVENTORY};
use e2e::flowlog::Line;
use e2e::packet::sctp_init;
use e2e::peer::Script;
use e2e::raw::RawTcp;
use e2e::topology::{CLIENT_IF, Family, PUPPET, RECORDER, Topology};
use e2e::wait;

use crate::scene::{Scene, allowed, assert_echo, finish};

/// Closed entries stay for ten seconds, and the daemon lets another three pass before it gives up.
const ENDED: Duration = Duration::from_secs(25);

/// The end lines so far by the client's port; a port with two of them fails.
fn ends(scene: &Scene<'_>) -> BTreeMap<String, Line> {
    let mut ends = BTreeMap::new();
    for line in scene.daemon.logs().lines("end") {
        let twice = ends.insert(line.text("spt"), line);
        assert!(twice.is_none(), "two end lines: {twice:?}");
    }
    ends
}

/// Waits until this many flows are where the next process finds them: on a busy machine the thread that writes them
/// there is a moment behind the one that judges.
pub(crate) fn await_kept(lab: &Topology, flows: usize) {
    let path = lab.file("state").join("flows.jsonl");
    let kept = || {
        std::fs::read_to_string(&path)
            .unwrap_or_default()
            .matches("{\"flow\":")
            .count()
    };
    assert!(
        wait::holds(wait::PATIENCE, || kept() >= flows),
        "{} of {flows} flows are kept",
        kept()
    );
}

/// Closes a connection from both sides, as programs do.
fn close(tcp: &mut RawTcp<'_>) {
    tcp.close().unwrap();
    assert!(tcp.closed, "the server did not close");
}

both_families! {
    /// A third of the flows ends before the daemon is killed, a third while there is none, a third
    /// under the next one.
    fn every_allowed_flow_has_one_end_line_across_a_kill(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        let attacker = lab.attacker().unwrap();
        let inside = lab.capture_inside().unwrap();
        let to = scene.recorder.address;
        let mut flows: Vec<_> = (0..12_u16)
            .map(|index| {
                let mut tcp = attacker.connect(41_000 + index, to, 77).unwrap();
                finish(&mut tcp, &allowed());
                tcp
            })
            .collect();
        let generation = scene.daemon.generation().unwrap().to_string();
        flows[..4].iter_mut().for_each(close);
        await_kept(&lab, flows.len());
        scene.daemon.kill().unwrap();
        flows[4..8].iter_mut().for_each(close);
        scene.daemon.restart().unwrap();
        for tcp in &mut flows[8..] {
            assert_echo(tcp, b"after the restart");
            close(tcp);
        }
        let all = wait::holds(ENDED, || ends(&scene).len() == flows.len());
        let ends = ends(&scene);
        assert!(all, "{} of {} flows have an end line", ends.len(), flows.len());
        for tcp in &flows {
            let line = &ends[&tcp.local.port().to_string()];
            assert_eq!(
                (line.text("cat"), line.text("dhost"), line.text("gid"), line.text("rule")),
                ("end".to_owned(), RECORDER.name.to_owned(), "web".to_owned(), "2".to_owned())
            );
            assert_eq!((line.text("generation"), line.text("instance")), (generation.clone(), "attacker".to_owned()));
            // What the kernel counted is what crossed the inner link.
            let crossed = |from: SocketAddr, to: SocketAddr| {
                let packets = inside.packets();
                let of = packets.iter().filter(|one| (one.seen.from, one.seen.to) == (from, to));
                of.fold((0, 0), |(count, bytes), one| (count + 1, bytes + one.bytes.len() as u64))
            };
            let (packets_out, bytes_out) = crossed(tcp.local, to);
            let (packets_in, bytes_in) = crossed(to, tcp.local);
            for (field, number) in [
                ("packets_out", packets_out), ("bytes_out", bytes_out),
                ("packets_in", packets_in), ("bytes_in", bytes_in),
            ] {
                assert_eq!(line.text(field), number.to_string(), "{field} of {}", tcp.local);
            }
            let times: Vec<Duration> = inside
                .packets()
                .iter()
                .filter(|one| one.seen.from == tcp.local || one.seen.to == tcp.local)
                .map(|one| one.at)
                .collect();
            let lasted = (*times.last().unwrap() - times[0]).as_millis() as i64;
            let said: i64 = line.text("duration_ms").parse().unwrap();
            // The kernel's time-outs count seconds, and it is made to look every two.
            assert!((said - lasted).abs() <= 3_000, "it lasted {lasted} ms, the line says {said}");
        }
        assert_eq!(scene.daemon.metric("postern_flows_forgotten_total").unwrap(), 0.0);
    }
}

both_families! {
    /// Flows that end while nobody listens, and are gone before somebody does: counted and said.
    fn ends_that_nobody_saw_are_counted_and_said(family) {
        let lab = Topology::new().unwrap();
        let mut scene = Scene::new(&lab, family);
        let attacker = lab.attacker().unwrap();
        let mut flows: Vec<_> = (0..3_u16)
            .map(|index| {
                let mut tcp = attacker.connect(41_000 + index, scene.recorder.address, 77).unwrap();
                finish(&mut tcp, &allowed());
                tcp
            })
            .collect();
        await_kept(&lab, flows.len());
        scene.daemon.kill().unwrap();
        for state in ["time_wait", "last_ack", "close"] {
            lab.firewall.sysctl(&format!("net.netfilter.nf_conntrack_tcp_timeout_{state}"), "1").unwrap();
        }
        flows[..2].iter_mut().for_each(close);
        let count = || {
            let text = lab.firewall.run("cat", &["/proc/net/nf_conntrack"]).unwrap_or_default();
            text.lines().filter(|line| line.contains("sport=4100")).count()
        };
        assert!(wait::holds(Duration::from_secs(20), || count() <= 1), "entries stay");
        scene.daemon.restart().unwrap();
        let lost = || scene.daemon.metric("postern_flows_forgotten_total").unwrap();
        assert!(wait::holds(Duration::from_secs(10), || lost() == 2.0), "{} are counted", lost());
        let said = [("cat", "status"), ("outcome", "lost"), ("stream", "end"), ("losses", "2")];
        scene.daemon.logs().expect_in("config", &said).unwrap();
        assert_echo(&mut flows[2], b"not among them");
        let lines = scene.daemon.metric("postern_log_lines_lost_total").unwrap();
        assert!((2.0..3.0).contains(&lines), "{lines}");
    }
}

both_families! {
    /// Protocols with ports of their own end like TCP does.
    fn a_flow_of_another_protocol_with_ports_has_an_end_line(family) {
        let lab = Topology::new().unwrap();
        let rule = "description = \"postern:tls:*.wild.example\"\n  protocol = \"tcp\"\n  ports = \"443\"";
        let open = INVENTORY.replace(rule, "description = \"postern:see-thru:2099-12-31\"\n  protocol = \"all\"\n  ports = \"all\"");
        let scene = Scene::with(&lab, family, &open, Script::Tls);
        let (from, to) = (scene.attacker.address(family), RECORDER.address(family));
        let packet = sctp_init(SocketAddr::new(from, 4_000), SocketAddr::new(to, 5_000), b"CARRIED");
        scene.attacker.send(&packet).unwrap();
        assert!(scene.outside.wait_for(|seen| seen.carries(b"CARRIED")).is_some());
        let line = wait::until(ENDED, || ends(&scene).remove("4000")).expect("no end line");
        assert_eq!((line.text("dpt"), line.text("packets_out")), ("5000".to_owned(), "1".to_owned()));
        assert_eq!(line.text("bytes_out"), packet.len().to_string());
        let said = scene.daemon.logs().expect(&[("spt", "4000"), ("outcome", "allowed")]).unwrap();
        assert_eq!(said.text("dpt"), "5000");
    }
}

/// Addresses that flows come from which close at once, and flows of each.
const SOURCES: u8 = 50;
const FLOWS_EACH: u16 = 50;

/// They are gone from the kernel's table within milliseconds: as many as ten thousand closes a second bring in a
/// quarter of one. UDP, because one datagram is a flow.
#[test]
fn flows_that_close_at_once_have_an_end_line_each() {
    let lab = Topology::new().unwrap();
    let addresses =
        (0..SOURCES).map(|host| format!("addr add 10.77.2.{}/32 dev {CLIENT_IF}\n", 100 + host));
    lab.client.ip(&addresses.collect::<String>()).unwrap();
    let open = "[[group]]\nid = \"open\"\n[[group.rule]]\ndescription = \"postern:see-thru:2099-12-31\"\n\
                protocol = \"udp\"\nports = \"all\"\n\
                [[client]]\naddress = \"10.77.2.0/24\"\ninstance = \"many\"\ngroups = [\"open\"]\n";
    let daemon = Daemon::start(&lab, &format!("{INVENTORY}\n{open}")).unwrap();
    let _silent = lab.puppet().unwrap();
    let to = PUPPET.at(Family::V4, 9_999);
    let flows = f64::from(SOURCES) * f64::from(FLOWS_EACH);
    let metric = |name: &str| daemon.metric(name).unwrap();
    for host in 0..SOURCES {
        let send = || {
            for port in 0..FLOWS_EACH {
                let from = SocketAddr::from(([10, 77, 2, 100 + host], 20_000 + port));
                let socket = std::net::UdpSocket::bind(from).unwrap();
                socket.send_to(b"one", to).unwrap();
            }
        };
        lab.client.enter(send).unwrap();
        let begun = f64::from(host + 1) * f64::from(FLOWS_EACH);
        let carried = wait::holds(wait::PATIENCE, || metric("postern_allowed_total") >= begun);
        assert!(
            carried,
            "{} of {begun} flows",
            metric("postern_allowed_total")
        );
    }
    let lines = |stream: &str| {
        daemon.status().unwrap()["spool"][stream]["lines"]
            .as_u64()
            .unwrap()
    };
    let all = wait::holds(wait::PATIENCE, || {
        // Again for those whose datagram was still on its way through the kernel.
        lab.firewall.run("conntrack", &["-F"]).unwrap();
        lines("end") as f64 >= flows
    });
    assert!(
        all,
        "{} of {} flows have an end line",
        lines("end"),
        lines("flow")
    );
    for loss in [
        "postern_flows_forgotten_total",
        "postern_log_lines_lost_total",
    ] {
        assert_eq!(metric(loss), 0.0, "{loss}");
    }
    let port = |line: Line| (line.text("src"), line.text("spt"));
    let mut begun: Vec<_> = daemon.logs().lines("flow").into_iter().map(port).collect();
    let mut ended: Vec<_> = daemon.logs().lines("end").into_iter().map(port).collect();
    begun.sort();
    ended.sort();
    assert_eq!(begun, ended);
}
