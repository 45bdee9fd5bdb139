//! What a supervisor is told: ready when flows are judged, alive only while every queue is served.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use e2e::daemon::{Daemon, INVENTORY, get};
use e2e::peer::Script;
use e2e::topology::{Family, Topology};
use e2e::wait;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(30);

/// Where the daemon says how it is.
struct Supervisor(UnixDatagram);

impl Supervisor {
    /// The next message that has this in it.
    fn heard(&self, text: &str, limit: Duration) -> Option<String> {
        let until = Instant::now() + limit;
        let mut buffer = [0; 4_096];
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.0
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .unwrap();
            let Ok(length) = self.0.recv(&mut buffer) else {
                continue;
            };
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.contains(text) {
                return Some(message);
            }
        }
        None
    }

    /// Throws away what has been said so far.
    fn forget(&self) {
        self.0
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        while self.0.recv(&mut [0; 4_096]).is_ok() {}
    }
}

/// Threads of a process whose name begins so.
fn threads(pid: u32, name: &str) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let named = tasks.filter_map(|task| {
        let task = task.unwrap();
        let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let id = task.file_name().to_str()?.parse().ok()?;
        comm.starts_with(name).then(|| Pid::from_raw(id))
    });
    named.collect()
}

#[test]
fn a_stuck_queue_thread_silences_the_watchdog_and_turns_health_red() {
    let lab = Topology::new().unwrap();
    let path = lab.file("notify.sock");
    let supervisor = Supervisor(UnixDatagram::bind(&path).unwrap());
    let socket = format!("NOTIFY_SOCKET={}", path.display());
    let by = ["env", &socket, "WATCHDOG_USEC=10000000"];
    let daemon = Daemon::started_by(&lab, INVENTORY, &by).unwrap();
    assert!(
        supervisor.heard("READY=1", PATIENCE).is_some(),
        "it is never ready"
    );
    let status = supervisor.heard("STATUS=", PATIENCE).expect("no status");
    assert!(status.contains("generation 1"), "{status}");
    assert!(
        supervisor.heard("WATCHDOG=1", PATIENCE).is_some(),
        "no sign of life"
    );
    let scene = Scene::around(&lab, Family::V4, daemon, Script::Tls);
    // One thread stands still; the others, and the one that would ping, go on.
    let stuck = threads(scene.daemon.pid(), "queue")[0];
    ptrace::seize(stuck, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(stuck).unwrap();
    waitpid(stuck, Some(WaitPidFlag::__WALL)).unwrap();
    let red = || get(&lab.firewall, 1042, "/healthz").is_err();
    assert!(
        wait::holds(PATIENCE, red),
        "health stays green with a queue that nobody serves"
    );
    assert_eq!(scene.daemon.metric("postern_data_plane_ok").unwrap(), 0.0);
    supervisor.forget();
    assert_eq!(
        supervisor.heard("WATCHDOG=1", Duration::from_secs(3)),
        None,
        "it says that it is well"
    );
    ptrace::detach(stuck, None).unwrap();
    assert!(
        supervisor.heard("WATCHDOG=1", PATIENCE).is_some(),
        "it stays silent when the queue is served again"
    );
    assert!(wait::holds(PATIENCE, || !red()), "health stays red");
    scene.assert_another_is_served("after all");
}
