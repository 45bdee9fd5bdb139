//! The command line as a person meets it: exit codes and messages.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, helpers included"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const INVENTORY: &str = r#"
[[group]]
id = "web"
  [[group.rule]]
  description = "postern:tls:api.example.org,*.example.net"
  protocol = "tcp"
  ports = "443"

[[client]]
address = "10.0.0.5"
instance = "web-1"
groups = ["web"]
"#;

fn postern(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A file of this content in a folder of its own.
fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn wrong_usage_is_exit_code_2() {
    assert_eq!(code(&postern(&[])), 2);
    assert_eq!(code(&postern(&["rnu"])), 2);
    assert_eq!(code(&postern(&["lint"])), 2);
    assert_eq!(
        code(&postern(&["explain", "10.0.0.5", "tls", "x.example.org"])),
        2
    );
}

#[test]
fn every_command_helps_with_an_example() {
    for command in [
        "run", "replay", "lint", "explain", "status", "flows", "learn", "review",
    ] {
        let output = postern(&[command, "--help"]);
        assert_eq!(code(&output), 0, "{command}");
        assert!(
            stdout(&output).contains(&format!("  postern {command}")),
            "{command}"
        );
    }
    assert!(!stdout(&postern(&["--help"])).contains("witness"));
}

#[test]
fn unknown_configuration_key_is_refused_with_a_suggestion() {
    let (_folder, path) = file("postern.toml", b"quues = 2\n");
    let output = postern(&["run", "--config", text(&path)]);
    assert_eq!(code(&output), 2);
    let expected = format!(
        "postern: reading configuration {}: line 1: unknown key \"quues\", did you mean \"queues\"?\n",
        text(&path)
    );
    assert_eq!(stderr(&output), expected);
}

#[test]
fn missing_file_is_named() {
    let output = postern(&["run", "--config", "/nonexistent/postern.toml"]);
    assert_eq!(code(&output), 2);
    assert_eq!(
        stderr(&output),
        "postern: reading configuration /nonexistent/postern.toml: \
         No such file or directory (os error 2)\n"
    );
}

#[test]
fn status_without_a_daemon_is_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let config = format!("control_socket = \"{}\"\n", text(&socket));
    let (_folder, path) = file("postern.toml", config.as_bytes());
    let output = postern(&["status", "--config", text(&path)]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).starts_with(&format!("postern: connecting to {}: ", text(&socket))),
        "{}",
        stderr(&output)
    );
}

#[test]
fn lint_is_silent_about_good_annotations_and_exits_1_with_a_finding() {
    let good = postern(&[
        "lint",
        "--cloud",
        "aws",
        "postern:tls:api.github.com,*.example.org",
    ]);
    assert_eq!((code(&good), stdout(&good)), (0, String::new()));
    let bad = postern(&["lint", "--json", "postern:tls:*.github.io"]);
    assert_eq!(code(&bad), 1);
    let remark: serde_json::Value = serde_json::from_str(&stdout(&bad)).unwrap();
    assert_eq!(remark["kind"], "wildcard_exposure");
    assert_eq!(remark["column"], 13);
}

#[test]
fn lint_of_an_inventory_names_group_and_rule() {
    let faulty = INVENTORY.replace("*.example.net", "*.github.io");
    let (_folder, path) = file("inventory.toml", faulty.as_bytes());
    let output = postern(&["lint", "--inventory", text(&path)]);
    assert_eq!(code(&output), 1);
    assert!(
        stdout(&output).starts_with("web rule 1 column 29: "),
        "{}",
        stdout(&output)
    );
}

#[test]
fn explain_names_the_rule_or_the_near_miss() {
    let (_folder, path) = file("inventory.toml", INVENTORY.as_bytes());
    let explain = |arguments: &[&str]| {
        postern(&[&["explain", "--inventory", text(&path)], arguments].concat())
    };
    let allowed = explain(&["10.0.0.5", "tls", "api.example.org"]);
    assert_eq!(code(&allowed), 0);
    assert!(
        stdout(&allowed).starts_with("allowed by web rule 1\n"),
        "{}",
        stdout(&allowed)
    );
    let port = explain(&["10.0.0.5", "tls", "api.example.org:8443"]);
    assert_eq!(code(&port), 1);
    assert!(
        stdout(&port).starts_with("refused: port_not_allowed\n"),
        "{}",
        stdout(&port)
    );
    assert!(
        stdout(&port).contains("on other ports"),
        "{}",
        stdout(&port)
    );
    let stranger = explain(&["10.0.0.6", "tls", "api.example.org"]);
    assert!(
        stdout(&stranger).starts_with("refused: client_unknown\n"),
        "{}",
        stdout(&stranger)
    );
    assert_eq!(code(&explain(&["10.0.0.5", "tls", "not a name"])), 2);
}

#[test]
fn capture_that_is_none_is_exit_code_2() {
    let (_folder, inventory) = file("inventory.toml", INVENTORY.as_bytes());
    let (_other, capture) = file("cat.gif", b"GIF89a");
    let output = postern(&["replay", "--inventory", text(&inventory), text(&capture)]);
    assert_eq!(code(&output), 2);
    let expected = format!(
        "postern: reading capture {}: neither pcap nor pcapng\n",
        text(&capture)
    );
    assert_eq!(stderr(&output), expected);
}

#[test]
fn review_lists_names_in_use_and_unused_ones() {
    let line = r#"{"time":"2026-11-22T11:50:12.790Z","cat":"client","outcome":"allowed","reason":"web","dhost":"a.example.net","src":"10.0.0.5","spt":1,"dst":"8.8.8.8","dpt":443,"proto":"tls","gid":"web","rule":"1","generation":1,"policy_id":"x","appliance":"lab"}"#;
    let (_folder, log) = file("flow.jsonl", format!("{line}\n").as_bytes());
    let (_other, inventory) = file("inventory.toml", INVENTORY.as_bytes());
    let output = postern(&["review", "--inventory", text(&inventory), text(&log)]);
    assert_eq!(code(&output), 1);
    let said = stdout(&output);
    assert!(
        said.contains("a.example.net") && said.contains("1 connections"),
        "{said}"
    );
    assert!(
        said.contains("api.example.org") && said.contains("not used"),
        "{said}"
    );
}

#[test]
fn lint_of_settings_names_the_line_of_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("postern.toml");
    std::fs::write(&path, "queues = 2\n").unwrap();
    let good = postern(&["lint", "--config", text(&path)]);
    assert_eq!((code(&good), good.stdout.as_slice()), (0, &b""[..]));
    std::fs::write(&path, "# two\nqueues = 4711\n").unwrap();
    let bad = postern(&["lint", "--config", text(&path)]);
    let said = String::from_utf8(bad.stderr.clone()).unwrap();
    assert_eq!(code(&bad), 2);
    assert!(
        said.contains("line 2: `queues` is 4711, not 1 to 64"),
        "{said}"
    );
}
