//! What the appliance makes of configuration files out of user data: the packaged script, on folders of the test's own.

use std::fs;
use std::path::Path;
use std::process::Output;

/// Runs the script; `files` are what user data came to this time.
fn adopt(work: &Path, files: &[(&str, &str)]) -> Output {
    let from = work.join("from");
    drop(fs::remove_dir_all(&from));
    fs::create_dir_all(&from).unwrap();
    for (name, text) in files {
        fs::write(from.join(name), text).unwrap();
    }
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../cloudsync/packaging/libexec/adopt-configuration"
    );
    let postern = e2e::daemon::binary().unwrap();
    let path = format!(
        "{}:/usr/sbin:/usr/bin:/sbin:/bin",
        postern.parent().unwrap().display()
    );
    std::process::Command::new(script)
        .args([from, work.join("to")])
        .env("PATH", path)
        .output()
        .unwrap()
}

fn folder() -> tempfile::TempDir {
    let work = tempfile::tempdir().unwrap();
    fs::create_dir(work.path().join("to")).unwrap();
    fs::write(work.path().join("to/postern.toml"), "# shipped\n").unwrap();
    work
}

fn read(work: &Path, name: &str) -> Option<String> {
    fs::read_to_string(work.join("to").join(name)).ok()
}

#[test]
fn settings_the_daemon_would_not_start_on_are_refused_and_what_was_in_force_stays() {
    let work = folder();
    let good = [
        ("configured", ""),
        ("postern.toml", "queues = 2\n"),
        ("cloudsync.toml", "# old\n"),
    ];
    assert!(adopt(work.path(), &good).status.success());
    for (name, text, said) in [
        ("postern.toml", "queues = 4711\n", "user data, [postern]: "),
        ("postern.toml", "queue = 2\n", "line 1: "),
        ("inventory.toml", "served = 7\n", "user data, [inventory]: "),
    ] {
        let output = adopt(
            work.path(),
            &[
                ("configured", ""),
                (name, text),
                ("cloudsync.toml", "# new\n"),
            ],
        );
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(!output.status.success() && told.contains(said), "{told}");
        assert_eq!(read(work.path(), "postern.toml").unwrap(), "queues = 2\n");
        assert_eq!(read(work.path(), "cloudsync.toml").unwrap(), "# old\n");
    }
}

#[test]
fn inventory_with_faults_is_taken_for_it_is_a_policy_without_them() {
    let work = folder();
    let text = "[[group]]\nid = \"web\"\n[[group.rule]]\ndescription = \"postern:tls:*.github.io\"\nprotocol = \"tcp\"\nports = \"443\"\n";
    let output = adopt(work.path(), &[("configured", ""), ("inventory.toml", text)]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(read(work.path(), "inventory.toml").unwrap(), text);
}

#[test]
fn table_that_is_gone_from_user_data_gives_way_to_what_the_image_came_with() {
    let work = folder();
    let all = [
        ("configured", ""),
        ("postern.toml", "queues = 2\n"),
        ("overlay.toml", "# ours\n"),
    ];
    for _ in 0..2 {
        assert!(adopt(work.path(), &all).status.success());
        assert_eq!(read(work.path(), "postern.toml").unwrap(), "queues = 2\n");
        assert_eq!(read(work.path(), "overlay.toml").unwrap(), "# ours\n");
    }
    // A silent metadata service leaves no mark, and takes nothing away.
    assert!(adopt(work.path(), &[]).status.success());
    assert_eq!(read(work.path(), "overlay.toml").unwrap(), "# ours\n");
    for _ in 0..2 {
        assert!(adopt(work.path(), &[("configured", "")]).status.success());
        assert_eq!(read(work.path(), "postern.toml").unwrap(), "# shipped\n");
        assert_eq!(read(work.path(), "overlay.toml"), None);
    }
    assert!(adopt(work.path(), &all).status.success());
    assert_eq!(read(work.path(), "postern.toml").unwrap(), "queues = 2\n");
}
