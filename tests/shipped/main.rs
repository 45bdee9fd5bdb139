//! What ships, held against what the image tier tries: run by `cargo suite --long --only image`, which makes all of it first
//! ([`e2e::image::shipped`]) and takes most of an hour.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops with the reason"
)]

use std::path::Path;
use std::process::Command;

use e2e::image::{build, shipped};

/// Boots Packer's image, on a processor that does a billion instructions a second.
#[test]
fn ready_within_six_seconds_of_processor_time() {
    let said = shipped::measure(&["--at-most", "6"], &shipped::packers_image().unwrap()).unwrap();
    println!("{said}");
}

/// From two folders, with two target folders, nothing built before.
#[test]
fn packages_built_twice_from_two_folders_are_the_same_bytes() {
    let folder = shipped::folder().unwrap();
    let (first, second) = (folder.join("packages"), folder.join("again"));
    let differ = build::different_files(&first, &second).unwrap();
    assert!(differ.is_empty(), "{differ:?} differ");
    assert_eq!(std::fs::read_dir(second).unwrap().count(), 2);
}

/// Both packages are for arm64 and say what they need; both programs are, and run.
#[test]
fn arm64_packages_hold_programs_that_run() {
    let folder = shipped::folder().unwrap().join("arm64/packages");
    let ours = shipped::folder().unwrap().join("packages");
    let work = tempfile::tempdir().unwrap();
    for program in ["postern", "postern-cloudsync"] {
        let package = only(&folder, &format!("{program}_"));
        assert_eq!(field(&package, "Architecture"), "arm64");
        let here = only(&ours, &format!("{program}_"));
        assert_eq!(needs(&package), needs(&here));
        let tree = work.path().join(program);
        said(
            Command::new("dpkg-deb")
                .arg("--extract")
                .args([&package, &tree]),
        );
        let binary = tree.join("usr/bin").join(program);
        let kind = said(Command::new("file").arg("--brief").arg(&binary));
        assert!(
            kind.contains("ELF 64-bit LSB pie executable, ARM aarch64")
                && !kind.contains("not stripped"),
            "{kind}"
        );
        let version = said(
            Command::new(shipped::EMULATOR)
                .args(["-L", "/usr/aarch64-linux-gnu"])
                .arg(&binary)
                .arg("--version"),
        );
        let built = field(&package, "Version");
        assert_eq!(version.trim(), format!("{program} {built}"));
    }
}

fn only(folder: &Path, start: &str) -> std::path::PathBuf {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut found = entries.map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(start)
    });
    let package = found.next().unwrap();
    assert_eq!(found.next(), None, "two packages of {start}");
    package
}

/// What a package depends on; of the C library each architecture may need another version.
fn needs(package: &Path) -> Vec<String> {
    let text = field(package, "Depends");
    let needs = text.split(", ").map(|one| match one.split_once(" (>= 2.") {
        Some(("libc6", _)) => "libc6".to_owned(),
        _ => one.to_owned(),
    });
    needs.collect()
}

fn field(package: &Path, name: &str) -> String {
    let text = said(
        Command::new("dpkg-deb")
            .arg("--field")
            .arg(package)
            .arg(name),
    );
    text.trim().to_owned()
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
