//! What stops Postern from starting, said plainly and with the right exit status.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::daemon::{INVENTORY, binary, postern};
use e2e::packet::flags;
use e2e::topology::{Family, RECORDER, Topology};

/// Runs `postern run` to its end: exit status and what it said.
fn run(lab: &Topology, config: &str, inventory: &str) -> (Option<i32>, String) {
    let (config_file, inventory_file) = (lab.file("postern.toml"), lab.file("inventory.toml"));
    let state = lab.file("state");
    let text = format!(
        "state_dir = \"{}\"\ncontrol_socket = \"{}\"\n{config}",
        state.display(),
        lab.file("s").display()
    );
    fs::write(&config_file, text).unwrap();
    fs::write(&inventory_file, inventory).unwrap();
    let args = [
        "10",
        binary().unwrap().to_str().unwrap(),
        "run",
        "--config",
        config_file.to_str().unwrap(),
        "--inventory",
        inventory_file.to_str().unwrap(),
    ]
    .map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = lab.firewall.output("timeout", &args).unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Asserts that after a failed start nothing is forwarded.
fn assert_closed(lab: &Topology) {
    let outside = lab.capture_outside().unwrap();
    let attacker = lab.attacker().unwrap();
    for family in [Family::V4, Family::V6] {
        let local = std::net::SocketAddr::new(attacker.address(family), 4_001);
        let tcp = e2e::raw::RawTcp::new(&attacker, local, RECORDER.at(family, 443), 5);
        tcp.put(&tcp.syn()).unwrap();
    }
    outside.settle(std::time::Duration::from_millis(150));
    assert_eq!(
        outside.matching(|seen| seen.is_tcp(flags::SYN)),
        [],
        "a failed start leaves an open path"
    );
}

#[test]
fn a_broken_inventory_is_refused_with_line_and_key() {
    let lab = Topology::new().unwrap();
    let broken = INVENTORY.replacen("[[client]]\naddress =", "[[client]]\nadress =", 1);
    let line = broken
        .lines()
        .position(|line| line.starts_with("adress"))
        .unwrap()
        + 1;
    let (status, said) = run(&lab, "", &broken);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("postern: reading inventory"), "{said}");
    assert!(
        said.contains(&format!("line {line}"))
            && said.contains("adress")
            && said.contains("address"),
        "{said}"
    );
    let (status, said) = run(&lab, "", "[[group]\n");
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("line 1"), "{said}");
    // The machine forwarded before anybody started anything, and must not any more.
    assert_closed(&lab);
}

#[test]
fn a_broken_inventory_at_a_restart_leaves_the_last_good_policy_in_force() {
    let lab = Topology::new().unwrap();
    let mut scene = crate::scene::Scene::new(&lab, Family::V4);
    scene.daemon.kill().unwrap();
    scene.daemon.replace("[[group]\n").unwrap();
    scene.daemon.restart().unwrap();
    scene.assert_allowed("the last good policy", &crate::scene::allowed());
    scene.assert_refused(
        "the last good policy",
        &crate::scene::evil(),
        &["name_not_allowed"],
    );
    let fault = [("cat", "fault"), ("object", "inventory")];
    scene.daemon.logs().expect_in("config", &fault).unwrap();
}

#[test]
fn a_missing_inventory_is_named() {
    let lab = Topology::new().unwrap();
    let output = postern(
        &lab.firewall,
        &["run", "--inventory", "/nonexistent/inventory.toml"],
    )
    .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/inventory.toml"));
}

#[test]
fn an_unknown_configuration_key_is_refused_with_a_suggestion() {
    let lab = Topology::new().unwrap();
    let (status, said) = run(&lab, "quues = 2\n", INVENTORY);
    assert_eq!(status, Some(2), "{said}");
    assert!(
        said.contains("line 3") && said.contains("quues") && said.contains("queues"),
        "{said}"
    );
}

#[test]
fn a_missing_privilege_is_named_and_opens_nothing() {
    let lab = Topology::new().unwrap();
    let (config, inventory) = (lab.file("postern.toml"), lab.file("inventory.toml"));
    fs::write(
        &config,
        format!("state_dir = \"{}\"\n", lab.file("state").display()),
    )
    .unwrap();
    fs::write(&inventory, INVENTORY).unwrap();
    // Without raw sockets lockdown can still be loaded, and stays when not even that is possible.
    for capability in ["net_raw", "net_admin"] {
        let drop = format!("-{capability}");
        let args = [
            "--bounding-set",
            &drop,
            "--inh-caps",
            &drop,
            "timeout",
            "10",
            binary().unwrap().to_str().unwrap(),
            "run",
            "--config",
            config.to_str().unwrap(),
            "--inventory",
            inventory.to_str().unwrap(),
        ]
        .map(str::to_owned);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = lab.firewall.output("setpriv", &args).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.to_lowercase().contains(&format!("cap_{capability}")),
            "{said}"
        );
        assert_closed(&lab);
    }
}

#[test]
fn a_missing_program_is_named_and_leaves_lockdown() {
    let lab = Topology::new().unwrap();
    let (config, inventory) = (lab.file("postern.toml"), lab.file("inventory.toml"));
    let state = lab.file("state");
    fs::write(&config, format!("state_dir = \"{}\"\n", state.display())).unwrap();
    fs::write(&inventory, INVENTORY).unwrap();
    let nowhere = format!("PATH={}", lab.file("empty").display());
    let args = [
        "10",
        "env",
        &nowhere,
        binary().unwrap().to_str().unwrap(),
        "run",
        "--config",
        config.to_str().unwrap(),
        "--inventory",
        inventory.to_str().unwrap(),
    ]
    .map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = lab.firewall.output("timeout", &args).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nftables"), "{said}");
    assert_closed(&lab);
}

#[test]
fn a_failed_start_leaves_no_open_path() {
    let lab = Topology::new().unwrap();
    // A first, good run leaves its ruleset behind when it dies.
    let mut daemon = e2e::daemon::Daemon::start(&lab, INVENTORY).unwrap();
    daemon.kill().unwrap();
    // Without the policy it kept there is nothing to go on with.
    fs::remove_file(lab.file("state").join("snapshot.json")).unwrap();
    let (status, said) = run(&lab, "", "[[group]\n");
    assert_eq!(status, Some(2), "{said}");
    assert_closed(&lab);
}

#[test]
fn a_start_without_any_policy_passes_nothing() {
    let lab = Topology::new().unwrap();
    let _daemon = e2e::daemon::Daemon::start(&lab, "").unwrap();
    assert_closed(&lab);
}

#[test]
fn a_spool_of_a_wrong_mode_is_mended_at_start() {
    let lab = Topology::new().unwrap();
    let mut scene = crate::scene::Scene::new(&lab, Family::V4);
    scene.daemon.kill().unwrap();
    // The group that reads it must be one that this machine has.
    let config = lab.file("postern.toml");
    let mut text = fs::read_to_string(&config).unwrap();
    if !text.contains("ipc_group") {
        text.push_str("[users]\nipc_group = \"root\"\n");
    }
    fs::write(&config, text).unwrap();
    let spool = lab.file("state").join("spool");
    let folders = [spool.join("flow"), spool];
    for (folder, mode) in folders.iter().zip([0o700, 0o777]) {
        fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
    }
    scene.daemon.restart().unwrap();
    let mode = |folder: &Path| fs::metadata(folder).unwrap().permissions().mode() & 0o7777;
    for folder in &folders {
        assert_eq!(mode(folder), 0o2750, "{}", folder.display());
    }
    // And it is written to.
    scene.assert_refused(
        "a mended spool",
        &crate::scene::evil(),
        &["name_not_allowed"],
    );
}

#[test]
fn a_spool_that_may_not_be_used_is_named_and_opens_nothing() {
    let lab = Topology::new().unwrap();
    let spool = lab.file("state").join("spool");
    fs::create_dir_all(&spool).unwrap();
    // Who starts it by hand is root, and keeps no right to go past this.
    fs::set_permissions(&spool, Permissions::from_mode(0o000)).unwrap();
    let (status, said) = run(&lab, "", INVENTORY);
    assert_eq!(status, Some(1), "{said}");
    let named = format!("opening the spool {}", spool.display());
    assert!(said.contains(&named), "{said}");
    assert_closed(&lab);
}
