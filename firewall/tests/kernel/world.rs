//! Three network namespaces on one line — client, firewall, internet — and what runs in them.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use firewall::marks::QueueClass;
use firewall::netfilter;
use firewall::nfqueue::{Action, Batch, Event, Queue, QueueOptions, VerdictBatch};
use firewall::ruleset::{Layout, QueueForm, Ruleset, Users};
use firewall::sysctl::{SysctlOptions, Sysctls};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

/// Addresses of the three, by family.
pub(crate) const CLIENT: [&str; 2] = ["10.77.1.2", "fd77:1::2"];
pub(crate) const SERVER: [&str; 2] = ["203.0.113.2", "2001:db8:77::2"];
/// The firewall's own address towards the internet: what masquerade shows.
pub(crate) const UPLINK: [&str; 2] = ["203.0.113.1", "2001:db8:77::1"];

/// Both families, for tests that hold for either.
pub(crate) const V4: usize = 0;
pub(crate) const V6: usize = 1;

static WORLDS: AtomicU32 = AtomicU32::new(0);

#[derive(Clone, Copy)]
pub(crate) enum Place {
    Client,
    Firewall,
    Internet,
}

/// The namespaces; they go when this does.
pub(crate) struct World {
    prefix: String,
}

impl World {
    /// Makes the namespaces, cables and addresses. Forwarding is off until a ruleset is there.
    pub(crate) fn new() -> Self {
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let world = Self {
            prefix: format!("pk{}x{number}", std::process::id()),
        };
        for place in [Place::Client, Place::Firewall, Place::Internet] {
            ip(&["netns", "add", &world.name(place)]);
            world.ip(place, "link set lo up");
            // No address has to be proved unique on a cable with two ends.
            world.run(place, "sysctl -qw net.ipv6.conf.default.accept_dad=0");
            world.run(place, "sysctl -qw net.ipv6.conf.all.accept_dad=0");
        }
        world.cable(Place::Client, "fw0", Place::Firewall, "cl0");
        world.cable(Place::Internet, "fw0", Place::Firewall, "up0");
        for (place, interface, addresses) in [
            (Place::Client, "fw0", ["10.77.1.2/24", "fd77:1::2/64"]),
            (Place::Firewall, "cl0", ["10.77.1.1/24", "fd77:1::1/64"]),
            (
                Place::Firewall,
                "up0",
                ["203.0.113.1/24", "2001:db8:77::1/64"],
            ),
            (
                Place::Internet,
                "fw0",
                ["203.0.113.2/24", "2001:db8:77::2/64"],
            ),
        ] {
            for address in addresses {
                world.ip(place, &format!("address add {address} dev {interface}"));
            }
        }
        world.ip(Place::Client, "route add default via 10.77.1.1");
        world.ip(Place::Client, "-6 route add default via fd77:1::1");
        world.run(Place::Internet, "sysctl -qw net.mptcp.enabled=0");
        world
    }

    fn cable(&self, a: Place, a_end: &str, b: Place, b_end: &str) {
        let (a_name, b_name) = (self.name(a), self.name(b));
        ip(&[
            "link", "add", a_end, "netns", &a_name, "type", "veth", "peer", "name", b_end, "netns",
            &b_name,
        ]);
        self.ip(a, &format!("link set {a_end} up"));
        self.ip(b, &format!("link set {b_end} up"));
    }

    fn name(&self, place: Place) -> String {
        let end = match place {
            Place::Client => "c",
            Place::Firewall => "f",
            Place::Internet => "s",
        };
        format!("{}{end}", self.prefix)
    }

    /// Runs `ip` in a namespace.
    pub(crate) fn ip(&self, place: Place, arguments: &str) {
        self.run(place, &format!("ip {arguments}"));
    }

    /// Runs a shell command in a namespace; it has to succeed.
    pub(crate) fn run(&self, place: Place, command: &str) -> String {
        let name = self.name(place);
        let output = Command::new("ip")
            .args(["netns", "exec", &name, "sh", "-c", command])
            .output()
            .expect("ip is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
        text
    }

    /// Runs `work` in a namespace, in a thread of its own.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = format!("/run/netns/{}", self.name(place));
        std::thread::spawn(move || {
            let namespace = File::open(path).expect("the namespace is there");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter it");
            work()
        })
    }

    /// Runs `work` in a namespace and waits for it.
    pub(crate) fn within<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        match self.start(place, work).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Puts a ruleset and the kernel parameters in force in the firewall.
    pub(crate) fn install(&self, layout: &Layout) -> Ruleset {
        let ruleset = Ruleset::render(layout);
        let copy = ruleset.clone();
        self.within(Place::Firewall, move || {
            netfilter::install(&copy).expect("the ruleset loads and reads back");
            let sysctls = Sysctls::default();
            let options = SysctlOptions {
                ipv6: true,
                ..SysctlOptions::default()
            };
            for finding in sysctls.assert(sysctls.plan(&options)) {
                assert!(!finding.is_fatal(), "{finding}");
            }
        });
        ruleset
    }

    /// Packets counted under a name.
    pub(crate) fn counted(&self, name: &'static str) -> u64 {
        self.within(Place::Firewall, move || {
            netfilter::counters().expect("the counters are there")[name]
        })
    }

    /// Serves queue 0 of the firewall with `judge`.
    pub(crate) fn decide(
        &self,
        judge: impl FnMut(QueueClass, &[u8]) -> Answer + Send + 'static,
    ) -> Decider {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stopping, noting) = (Arc::clone(&stop), Arc::clone(&seen));
        let (ready, bound) = std::sync::mpsc::channel();
        let thread = self.start(Place::Firewall, move || {
            let queue = Queue::bind(0, &QueueOptions::default()).expect("queue 0 is free");
            ready.send(()).expect("someone waits");
            serve(&queue, judge, &stopping, &noting);
        });
        bound.recv().expect("the queue is bound");
        Decider {
            stop,
            seen,
            thread: Some(thread),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for place in [Place::Client, Place::Firewall, Place::Internet] {
            ip(&["netns", "delete", &self.name(place)]);
        }
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("ip is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {error}");
}

/// The layout of these tests: the queue form this kernel has, and everything as root.
pub(crate) fn layout() -> Layout {
    Layout {
        queue_form: QueueForm::IptablesShim,
        users: Users {
            daemon: 0,
            resolving: vec![0],
            connecting: vec![0],
            metadata: vec![],
        },
        ..Layout::default()
    }
}

/// What a decider does with a packet.
pub(crate) enum Answer {
    Give(Action),
    /// No verdict at all, as for a packet that is held.
    Hold,
}

/// What was queued, in order.
type Seen = Mutex<Vec<(QueueClass, Vec<u8>)>>;

/// A thread that serves the queue.
pub(crate) struct Decider {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Decider {
    /// Classes queued so far.
    pub(crate) fn classes(&self) -> Vec<QueueClass> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(class, _)| *class).collect()
    }

    /// The packets queued so far under one class.
    pub(crate) fn packets(&self, wanted: QueueClass) -> Vec<Vec<u8>> {
        let seen = self.seen.lock().unwrap();
        let of_class = seen.iter().filter(|(class, _)| *class == wanted);
        of_class.map(|(_, bytes)| bytes.clone()).collect()
    }
}

impl Drop for Decider {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the decider panicked");
        }
    }
}

fn serve(
    queue: &Queue,
    mut judge: impl FnMut(QueueClass, &[u8]) -> Answer,
    stop: &AtomicBool,
    seen: &Seen,
) {
    let mut batch = Batch::new();
    let mut verdicts = VerdictBatch::new(0, 64);
    while !stop.load(Ordering::Relaxed) {
        let mut wait = [PollFd::new(queue.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, PollTimeout::from(20_u8)).expect("poll");
        queue.receive(&mut batch).expect("the queue answers");
        for event in batch.events() {
            match event {
                Event::Packet(packet) => {
                    assert!(!packet.truncated);
                    let class = QueueClass::from_mark(packet.mark).expect("our class");
                    seen.lock().unwrap().push((class, packet.bytes.to_vec()));
                    match judge(class, packet.bytes) {
                        Answer::Give(action) => verdicts.push(packet.id, action),
                        Answer::Hold => {}
                    }
                }
                Event::Refused(code) => assert_eq!(code, 2, "only a packet that is gone"),
                Event::Other => {}
                Event::Damaged(_) | Event::Unreadable(_) => panic!("{event:?}"),
            }
        }
        queue.send(&mut verdicts).expect("the queue takes verdicts");
    }
}

/// Waits until `done`, for at most three seconds.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(3);
    while !done() {
        assert!(Instant::now() < end, "not in three seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address and a port.
pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// True for an error that means "reset by the other end".
pub(crate) fn is_reset(result: &io::Result<usize>) -> bool {
    matches!(result, Err(e) if e.kind() == io::ErrorKind::ConnectionReset)
}
