//! The other architecture: what its packages hold, and its disk booted under emulation, with the wire tier's clients and servers around it.

use std::path::Path;
use std::process::Command;

use e2e::image::claims::{BOOT, SOON, enforces, green, lockdown_first, native_queue, ready_first};
use e2e::image::metadata::Role;
use e2e::image::{Architecture, Guest, Machine, Setup, Stage, shipped};
use e2e::topology::{EVIL, Family};

/// As an EC2 instance on Amazon's own processor, its whole configuration in its user data: what is listed passes, what is not
/// is refused and noted, and nothing was passed on before the policy came.
#[test]
fn instance_is_locked_down_first_and_enforces_the_inventory_of_its_user_data() {
    let stage = Stage::new().unwrap();
    let disk = stage.folder().join("arm64.qcow2");
    shipped::arm64_disk(&disk).unwrap();
    let answers = [("/latest/user-data".to_owned(), user_data(&stage))];
    stage.metadata.be(Role::Aws(answers.into()));
    let setup = Setup {
        architecture: Architecture::Arm64,
        ..Setup::new(Machine::Aws)
    };
    let mut guest = Guest::start(&stage, &disk, setup).unwrap();
    guest.wait_shell(BOOT).unwrap();
    assert_eq!(guest.run("uname -m").unwrap(), "aarch64");
    guest.wait_for("systemctl is-active postern", BOOT).unwrap();
    lockdown_first(&mut guest).unwrap();
    ready_first(&mut guest).unwrap();
    enforces(&stage, &mut guest).unwrap();
    native_queue(&mut guest).unwrap();
    let body = green(&stage).unwrap();
    assert!(!body.contains("no_policy"), "{body}");
    // A connection that nobody answers is not a refused one: by then the client was known, and the policy decided.
    let noted = format!(
        "grep -rh '\"disallowed\"' /var/lib/postern/spool/flow | grep '\"web-1\"' | grep -q '\"{}\"'",
        EVIL.address(Family::V4)
    );
    guest.wait_for(&noted, SOON).unwrap();
    assert!(stage.knocks() > 0, "nobody knocked");
    stage.nothing_unlisted_left().unwrap();
    guest.power_off().unwrap();
}

/// As amd64's, on a processor that does a billion instructions a second.
#[test]
fn ready_within_six_seconds_of_processor_time() {
    let words = ["--arch", "arm64", "--at-most", "6"];
    let said = shipped::measure(&words, &shipped::arm64_image().unwrap()).unwrap();
    println!("{said}");
}

/// Both packages are for arm64 and say what they need; both programs are, and run.
#[test]
fn packages_hold_programs_that_run() {
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

/// The inventory, and the authority of the servers' certificates.
fn user_data(stage: &Stage) -> String {
    let authority = &stage.authority;
    format!(
        "[postern.certificates]\nauthorities = '''\n{authority}'''\ntrust_clock = true\n{USER_DATA}"
    )
}

/// No interface of a cloud is asked: the inventory is all there is.
const USER_DATA: &str = r#"[cloudsync]
provider = "file"

[inventory]
served = ["10.77.0.0/16"]

[inventory.preferences]
allow_private_answers = ["203.0.113.0/24"]

[[inventory.group]]
id = "web"
  [[inventory.group.rule]]
  description = "postern:tls:api.allowed.example"
  protocol = "tcp"
  ports = "443"

[[inventory.client]]
address = "10.77.1.10"
instance = "web-1"
groups = ["web"]
"#;
