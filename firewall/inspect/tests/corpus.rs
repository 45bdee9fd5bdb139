//! Runs every committed fuzz input and regression through the parsers on a stable compiler, and
//! checks that every capture says where it comes from.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panicking, as its tests do"
)]

use std::fs;
use std::path::{Path, PathBuf};

use inspect::{Framed, detect, http, ssh, tls};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(folder: &Path, extension: Option<&str>) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file() && path.extension() == extension.map(AsRef::as_ref));
    files.sort();
    files
}

/// Two bytes of length, the client's stream, the server's: the form of the two-sided targets.
fn two_sided(input: &[u8]) -> (&[u8], &[u8]) {
    let Some((&[high, low], rest)) = input.split_first_chunk() else {
        return (input, &[]);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    rest.split_at(length.min(rest.len()))
}

fn play_tls(client: &[u8], server: &[u8], step: usize) -> Option<(Framed, Framed)> {
    let hello = tls::client_hello(client, &tls::Limits::default()).complete()?;
    let rest = &client[hello.bytes..];
    let mut conversation = tls::Conversation::new(hello, tls::Limits::default());
    for piece in server.chunks(step) {
        conversation.server(piece).ok()?;
    }
    for piece in rest.chunks(step) {
        conversation.client(piece).ok()?;
    }
    Some((
        conversation.client(&[]).ok()?,
        conversation.server(&[]).ok()?,
    ))
}

fn play_ssh(client: &[u8], server: &[u8], step: usize) -> Option<(Framed, Framed)> {
    let mut conversation = ssh::Conversation::new();
    for piece in client.chunks(step) {
        conversation.client(piece).ok()?;
    }
    for piece in server.chunks(step) {
        conversation.server(piece).ok()?;
    }
    Some((
        conversation.client(&[]).ok()?,
        conversation.server(&[]).ok()?,
    ))
}

/// Whatever an input is meant for, every parser must survive it and read it the same in pieces.
fn read_everywhere(path: &Path) {
    let input = fs::read(path).unwrap();
    let _detected = detect(&input);
    let _client = tls::client_hello(&input, &tls::Limits::default());
    let _request = (
        http::request(&input),
        http::request_so_far(&input),
        http::status(&input),
    );
    let (client, server) = two_sided(&input);
    let tls_at_once = play_tls(client, server, usize::MAX);
    let ssh_at_once = play_ssh(client, server, usize::MAX);
    for step in [1, 3, 100] {
        assert_eq!(
            play_tls(client, server, step),
            tls_at_once,
            "{path:?} in {step}"
        );
        assert_eq!(
            play_ssh(client, server, step),
            ssh_at_once,
            "{path:?} in {step}"
        );
    }
}

#[test]
fn fuzz_inputs_are_read_the_same_in_pieces_of_any_size() {
    for target in ["tls_client", "tls_server", "ssh", "http"] {
        let inputs = files(&folder("fuzz/corpus").join(target), None);
        assert!(!inputs.is_empty(), "{target} has no corpus");
        inputs.iter().for_each(|path| read_everywhere(path));
    }
}

#[test]
fn inputs_that_once_broke_a_parser_no_longer_do() {
    let regressions = folder("testdata/regressions");
    for path in files(&regressions, Some("bin")) {
        assert!(
            path.with_extension("txt").is_file(),
            "{path:?} does not say what it broke"
        );
        read_everywhere(&path);
    }
}

#[test]
fn bytes_after_a_fatal_alert_are_refused() {
    let input = folder("testdata/regressions").join("tls-byte-after-alert.bin");
    let input = fs::read(input).unwrap();
    let (client, server) = two_sided(&input);
    assert_eq!(play_tls(client, server, 1), None);
    assert!(play_tls(client, &server[..server.len() - 1], 1).is_some());
}

#[test]
fn every_capture_says_where_it_comes_from() {
    let provenance = fs::read_to_string(folder("testdata/PROVENANCE.md")).unwrap();
    for path in files(&folder("testdata"), Some("bin")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            provenance.contains(&format!("| `{name}` |")),
            "{name} has no provenance line"
        );
    }
}
