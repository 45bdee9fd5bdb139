//! Promise 20: who on the appliance may reach what. The daemon handles hostile bytes, so it reaches least.

use std::net::SocketAddr;
use std::process::Output;

use e2e::capture::Capture;
use e2e::daemon::{Daemon, INVENTORY};
use e2e::netns;
use e2e::packet::Seen;
use e2e::peer::{Recorder, Script};
use e2e::topology::{Family, GATEWAY, INTERNET_IF, OUTSIDE, RESOLVER, Topology};

/// As on an appliance, with numbers of this test's own.
const USERS: [(&str, u32); 3] = [
    ("postern", 61_001),
    ("postern-witness", 61_002),
    ("postern-sync", 61_003),
];
/// What those write who may not.
const FORBIDDEN: &str = "forbidden";
const ROOT: u32 = 0;
const STRANGER: u32 = 61_004;

/// Gives the firewall's namespace the users of an appliance, and starts a Postern that knows them. It runs as root
/// here, so root is the daemon's user as well.
fn start(lab: &Topology) -> Daemon<'_> {
    let (mut passwd, mut group) = (
        String::from("root:x:0:0::/:\n"),
        String::from("root:x:0:\n"),
    );
    for (name, uid) in USERS {
        passwd.push_str(&format!("{name}:x:{uid}:{uid}::/nonexistent:/bin/false\n"));
        group.push_str(&format!("{name}:x:{uid}:\n"));
    }
    group.push_str("postern-ipc:x:61005:\n");
    for (name, text) in [("passwd", passwd), ("group", group)] {
        let file = lab.file(name);
        std::fs::write(&file, text).unwrap();
        lab.firewall
            .bind_mount(&file, &format!("/etc/{name}"))
            .unwrap();
    }
    Daemon::start(lab, INVENTORY).unwrap()
}

/// Writes `text` to a port as a user of the firewall; bash opens `/dev/tcp` and `/dev/udp` itself.
fn write_as(lab: &Topology, uid: u32, protocol: &str, to: SocketAddr, text: &str) -> Output {
    // Who may is given time; of who may not, the capture knows at once.
    let limit = if text.starts_with(FORBIDDEN) {
        "1"
    } else {
        "15"
    };
    let (ip, port) = (to.ip(), to.port());
    let script = format!("printf %s {text} > /dev/{protocol}/{ip}/{port}");
    let uid = uid.to_string();
    let args = [
        "--reuid",
        &uid,
        "--regid",
        &uid,
        "--clear-groups",
        "timeout",
        limit,
        "bash",
        "-c",
        &script,
    ];
    lab.firewall.output("setpriv", &args).unwrap()
}

/// Root of a user namespace with one user cannot become another.
fn has_users() -> bool {
    netns::outsider().is_none()
}

both_families! {
    fn daemon_user_cannot_reach_metadata(family) {
        assert!(has_users(), "several users are needed: run this test as root");
        let lab = Topology::new().unwrap();
        let (address, length) = match family {
            Family::V4 => ("169.254.169.254", 32),
            Family::V6 => ("fd00:ec2::254", 128),
        };
        lab.internet.ip(&format!("addr add {address}/{length} dev {INTERNET_IF} nodad\n")).unwrap();
        let route = format!("route add {address}/{length} via {} dev {OUTSIDE}\n", GATEWAY.address(family));
        lab.firewall.ip(&route).unwrap();
        let to = SocketAddr::new(address.parse().unwrap(), 80);
        let service = Recorder::start(&lab.internet, to, Script::Silent).unwrap();
        let outside = lab.capture_outside().unwrap();
        // With no ruleset anybody can, so what follows is the ruleset's doing.
        assert!(write_as(&lab, USERS[0].1, "tcp", to, "unguarded").status.success());
        assert!(service.got(b"unguarded"));
        let _daemon = start(&lab);
        let before = towards(&outside, to);
        for uid in [ROOT, USERS[0].1, USERS[1].1, STRANGER] {
            let output = write_as(&lab, uid, "tcp", to, FORBIDDEN);
            assert!(!output.status.success(), "user {uid} reached the metadata service");
        }
        // Nor does anything forwarded, from a client that knows the way.
        let dial = || std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_secs(2)).is_ok();
        assert!(!lab.client.enter(dial).unwrap(), "a client reached the metadata service");
        assert_eq!(towards(&outside, to), before, "packets towards the metadata service left");
        let output = write_as(&lab, USERS[2].1, "tcp", to, "sidecar");
        assert!(output.status.success(), "the sidecar cannot: {}", String::from_utf8_lossy(&output.stderr));
        assert!(service.got(b"sidecar"));
    }
}

both_families! {
    fn only_the_witness_user_speaks_on_port_53(family) {
        assert!(has_users(), "several users are needed: run this test as root");
        let lab = Topology::new().unwrap();
        let to = RESOLVER.at(family, 53);
        let tcp = RESOLVER.at(Family::V6, 53);
        let listener = Recorder::start(&lab.internet, tcp, Script::Silent).unwrap();
        let outside = lab.capture_outside().unwrap();
        let _daemon = start(&lab);
        for uid in [ROOT, USERS[0].1, USERS[2].1, STRANGER] {
            for (protocol, to) in [("udp", to), ("tcp", tcp)] {
                write_as(&lab, uid, protocol, to, &format!("{FORBIDDEN}-{uid}."));
            }
        }
        let witness = USERS[1].1;
        let question = format!("question-of-{witness}.");
        write_as(&lab, witness, "udp", to, &question);
        let own = outside.wait_for(|seen| seen.carries(question.as_bytes()));
        assert!(own.is_some(), "the witness cannot ask");
        assert!(write_as(&lab, witness, "tcp", tcp, &question).status.success());
        assert!(listener.got(question.as_bytes()), "the witness cannot ask over TCP");
        let others = outside.matching(|seen| seen.carries(FORBIDDEN.as_bytes()));
        assert_eq!(others, [], "others than the witness asked");
        assert_eq!(listener.conversations().len(), 1, "others than the witness connected");
    }
}

/// What left towards an address.
fn towards(outside: &Capture, to: SocketAddr) -> Vec<Seen> {
    outside.matching(|seen| seen.to == to)
}
