//! What the parts of Postern can no longer do once they run, found out by trying it from inside, and a Postern that was
//! never root.

use std::path::Path;

use e2e::daemon::{Daemon, INVENTORY, postern};
use e2e::netns;
use e2e::topology::Topology;
use nix::unistd::{Gid, Uid, chown};
use serde_json::Value;

use crate::scene::{EVIL_MARK, Scene, allowed, assert_echo, evil};
use e2e::peer::Script;

/// Every attempt of `postern trial` as one role: what was tried, and whether it was refused.
fn attempts(lab: &Topology, role: &str, secret: &Path) -> Vec<(String, bool)> {
    let config = lab.file("postern.toml");
    let args = [
        "trial",
        "--as",
        role,
        "--config",
        config.to_str().unwrap(),
        "--secret",
        secret.to_str().unwrap(),
        "--metadata",
        "169.254.169.254:80",
    ];
    let output = postern(&lab.firewall, &args).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let attempt = line["attempt"].as_str().unwrap().to_owned();
        (attempt, line["refused"].as_bool().unwrap())
    });
    let attempts: Vec<_> = lines.collect();
    assert!(!attempts.is_empty(), "{role}: {said}");
    attempts
}

#[test]
fn what_is_forbidden_is_refused_to_every_part() {
    assert!(
        netns::outsider().is_none(),
        "several users are needed: run this test as root"
    );
    let lab = Topology::new().unwrap();
    let _daemon = Daemon::start(&lab, INVENTORY).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("secret");
    std::fs::write(&secret, "a key").unwrap();
    for (role, allowed) in [
        ("daemon", &[][..]),
        ("queue", &[]),
        ("witness", &[]),
        // Clients ask it over TCP, too.
        ("front", &["listen"]),
    ] {
        let attempts = attempts(&lab, role, &secret);
        let open = attempts.iter().filter(|(_, refused)| !refused);
        let open: Vec<&str> = open.map(|(attempt, _)| attempt.as_str()).collect();
        assert_eq!(open, allowed, "a {role} may");
        assert!(attempts.len() >= 12, "{attempts:?}");
    }
    // Without giving anything up, all of it succeeds but what the kernel was built without, and the ruleset's own.
    let given_up = ["reach the metadata service", "load a module"];
    let refused: Vec<_> = attempts(&lab, "nobody", &secret)
        .into_iter()
        .filter(|(attempt, refused)| *refused && !given_up.contains(&attempt.as_str()))
        .collect();
    assert_eq!(refused, [], "these attempts prove nothing");
}

/// `name: value` of a task's status.
fn status_of(pid: u32, task: &str, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{task}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

#[test]
fn every_thread_runs_with_what_it_needs_and_no_more() {
    let lab = Topology::new().unwrap();
    let daemon = Daemon::start(&lab, INVENTORY).unwrap();
    let pid = daemon.pid();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let tasks: Vec<String> = tasks
        .map(|task| task.unwrap().file_name().into_string().unwrap())
        .collect();
    // DAC_READ_SEARCH (root with an inventory), KILL, SETGID, SETUID, NET_ADMIN, NET_RAW.
    let allowed = (1 << 2) | (1 << 5) | (1 << 6) | (1 << 7) | (1 << 12) | (1 << 13);
    let mut queues = 0;
    for task in &tasks {
        for set in ["CapEff", "CapPrm", "CapBnd", "CapInh"] {
            let held = u64::from_str_radix(&status_of(pid, task, set), 16).unwrap();
            assert_eq!(held & !allowed, 0, "task {task}: {set} {held:x}");
        }
        assert_eq!(status_of(pid, task, "NoNewPrivs"), "1");
        assert_eq!(status_of(pid, task, "Seccomp"), "2", "no filter");
        let filters: u32 = status_of(pid, task, "Seccomp_filters").parse().unwrap();
        let is_queue = status_of(pid, task, "Name").starts_with("queue");
        queues += usize::from(is_queue);
        assert_eq!(filters, if is_queue { 3 } else { 2 }, "task {task}");
    }
    assert!(queues > 0, "no queue thread among {tasks:?}");
}

const USERS: [(&str, u32); 3] = [
    ("postern", 61_001),
    ("postern-witness", 61_002),
    ("postern-sync", 61_003),
];

/// Gives the firewall's namespace the users of an appliance.
fn appliance_users(lab: &Topology) {
    let mut passwd = String::from("root:x:0:0::/:\n");
    let mut group = String::from("root:x:0:\npostern-ipc:x:61005:postern,postern-sync\n");
    for (name, uid) in USERS {
        passwd.push_str(&format!("{name}:x:{uid}:{uid}::/nonexistent:/bin/false\n"));
        group.push_str(&format!("{name}:x:{uid}:\n"));
    }
    for (name, text) in [("passwd", passwd), ("group", group)] {
        let file = lab.file(name);
        std::fs::write(&file, text).unwrap();
        lab.firewall
            .bind_mount(&file, &format!("/etc/{name}"))
            .unwrap();
    }
}

/// As systemd starts it from `postern.service`: the user, the groups, the capabilities.
const AS_THE_UNIT_SAYS: [&str; 13] = [
    "setpriv",
    "--reuid",
    "61001",
    "--regid",
    "61001",
    "--groups",
    "61005",
    "--inh-caps",
    "-all,+net_admin,+net_raw,+setuid,+setgid,+kill",
    "--ambient-caps",
    "-all,+net_admin,+net_raw,+setuid,+setgid,+kill",
    "--bounding-set",
    "-all,+net_admin,+net_raw,+setuid,+setgid,+kill",
];

both_families! {
    fn it_serves_as_a_user_of_its_own_with_a_witness_of_another(family) {
        assert!(netns::outsider().is_none(), "several users are needed: run this test as root");
        let lab = Topology::new().unwrap();
        appliance_users(&lab);
        let state = lab.file("state");
        std::fs::create_dir_all(&state).unwrap();
        chown(&state, Some(Uid::from_raw(61_001)), Some(Gid::from_raw(61_001))).unwrap();
        let daemon = Daemon::started_by(&lab, INVENTORY, &AS_THE_UNIT_SAYS).unwrap();
        let scene = Scene::around(&lab, family, daemon, Script::Tls);
        let mut judged = scene.judged();
        scene.assert_refused("as its own user", &evil(), &["name_not_allowed"]);
        // The ruleset and the parameters are held by that user as well.
        lab.firewall.run("nft", &["insert rule inet postern decide accept"]).unwrap();
        let repaired = e2e::wait::holds(std::time::Duration::from_secs(30), || scene.daemon.output().contains("repairing the ruleset"));
        assert!(repaired, "{}", scene.daemon.output());
        scene.assert_allowed("after a repair", &allowed());
        assert_echo(&mut judged, b"through it");
        let pid = scene.daemon.pid();
        assert_eq!(status_of(pid, &pid.to_string(), "Uid").split_whitespace().next(), Some("61001"));
        let witness = witness_of(pid);
        let uid = status_of(witness, &witness.to_string(), "Uid");
        assert_eq!(uid.split_whitespace().collect::<Vec<_>>(), ["61002"; 4]);
        assert_eq!(status_of(witness, &witness.to_string(), "Groups"), "");
        assert_eq!(status_of(witness, &witness.to_string(), "CapPrm"), "0000000000000000");
        assert_eq!(status_of(witness, &witness.to_string(), "CapBnd"), "00000000000030e0");
        // It is started again under its own user, by a daemon that is not root.
        lab.firewall.run("kill", &["-KILL", &witness.to_string()]).unwrap();
        let again = e2e::wait::until(std::time::Duration::from_secs(30), || {
            let fresh = find_witness(pid)?;
            (fresh != witness).then_some(fresh)
        });
        let again = again.expect("no witness after the first one's end");
        assert_eq!(status_of(again, &again.to_string(), "Uid").split_whitespace().next(), Some("61002"));
        scene.assert_never_left(EVIL_MARK);
    }
}

fn witness_of(daemon: u32) -> u32 {
    find_witness(daemon).expect("a witness")
}

/// The daemon's child that resolves, once it is what it will be.
fn find_witness(daemon: u32) -> Option<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{daemon}/task")).ok()?;
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect::<Vec<u32>>()
        })
        .find(|pid| {
            let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            arguments.is_ok_and(|text| text.contains("witness"))
                && status_of(*pid, &pid.to_string(), "CapPrm") == "0000000000000000"
        })
}
