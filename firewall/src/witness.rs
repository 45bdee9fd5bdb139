//! The witness: the daemon's side of the process that resolves names and looks at certificates.
//!
//! One thread here owns the child process, the schedule of look-ups and the writing end of
//! the bindings. The child asks resolvers, as its own user and with no capability; what it
//! answers is checked like bytes from the wire.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use hickory_resolver::proto::rr::RecordType;
use inspect::{Answer, Query, Sought};
use ipc::control::WitnessState;
use ipc::record::DnsLineV1;
use ipc::witness::{Configure, FrontStateV1};
use ipnet::IpNet;
use policy::{Name, Snapshot};

use crate::bindings::{BindingStore, Saved};
use crate::clock::Clock;
use crate::wake::{self, Sender};

mod certify;
mod child;
mod desk;
mod front;
mod learnt;
mod link;
mod resolve;
mod rotation;
mod schedule;
mod spending;
mod totals;

pub use certify::{AnchorsError, parse_anchors, read_anchors};
pub use child::{ChildError, run as run_child};
pub use desk::CertificateSettings;
pub use totals::DnsTotals;

/// Where queue threads and the policy store leave what they want of the witness.
#[derive(Clone, Debug)]
pub struct Witness {
    orders: Sender<Order>,
    state: Arc<AtomicU8>,
    front: Arc<Mutex<Option<FrontStateV1>>>,
    totals: Arc<DnsTotals>,
}

/// The thread that owns the witness process.
#[derive(Debug)]
pub struct WitnessThread {
    orders: Sender<Order>,
    thread: JoinHandle<()>,
}

/// What the witness has to say to the rest of the daemon. Called on the witness thread;
/// must not wait.
pub trait Audience: Send {
    /// A look-up that queue `queue` asked for has ended; the bindings are up to date.
    fn answer(&self, queue: usize, sought: Sought, answer: Answer);
    /// Every new exact name of `generation` has an answer or a failure, or has had its time.
    fn primed(&self, generation: u64);
    /// `name` has resolved to suspiciously many new addresses.
    fn alarm(&self, name: &Name);
    /// A question to the DNS front has been answered.
    fn log(&self, line: Box<DnsLineV1>);
    /// `address`, which no inventory knows, asks the DNS front.
    fn unknown(&self, address: IpAddr);
    /// `server` has shown a certificate that is not one of `name`, for this reason.
    fn bad_certificate(&self, name: &Name, server: SocketAddr, detail: &str);
    /// Flows to `server` under `name` are to end.
    fn distrust(&self, name: Name, server: SocketAddr);
}

/// How the witness is run.
#[derive(Debug)]
pub struct WitnessSettings {
    /// Resolvers; none means the system's.
    pub upstreams: Vec<SocketAddr>,
    /// Questions a second.
    pub max_qps: u32,
    /// User to run as when we are root and it exists.
    pub user: String,
    /// What was bound before a restart.
    pub saved: Option<Saved>,
    /// The DNS front, where the policy wants one.
    pub front: FrontSettings,
    /// Handshakes of our own.
    pub certificates: CertificateSettings,
}

/// What the policy does not say of the DNS front.
#[derive(Clone, Debug, Default)]
pub struct FrontSettings {
    /// What lines call this appliance.
    pub appliance: Arc<str>,
    /// The port it listens on; the ruleset leads port 53 there.
    pub port: u16,
    /// Cloud resolvers, which ask for many clients.
    pub resolvers: Vec<IpNet>,
    /// Record types passed on beside [`RECORD_TYPES`].
    pub record_types: Vec<String>,
}

impl FrontSettings {
    /// Whether a source is a cloud resolver.
    fn is_resolver(&self, source: IpAddr) -> bool {
        self.resolvers.iter().any(|net| net.contains(&source))
    }

    /// Whether questions for a type of records are passed on.
    fn passes(&self, record_type: &str) -> bool {
        let listed = self
            .record_types
            .iter()
            .any(|it| it.eq_ignore_ascii_case(record_type));
        listed || RECORD_TYPES.contains(&record_type)
    }
}

#[derive(Debug)]
enum Order {
    Ask { queue: usize, query: Query },
    Used { name: Name, addr: IpAddr },
    Certify { name: Name, server: SocketAddr },
    Adopt(Arc<Snapshot>),
    Stop,
}

/// Starts the witness process and the thread that talks to it.
///
/// # Errors
/// When there is no thread or eventfd to be had. A process that does not start is retried.
pub fn start(
    settings: WitnessSettings,
    store: Arc<BindingStore>,
    audience: Box<dyn Audience>,
    clock: Clock,
) -> io::Result<(Witness, WitnessThread)> {
    let (orders, mailbox) = wake::mailbox(ORDERS_MAX)?;
    let state = Arc::new(AtomicU8::new(link::ABSENT));
    let front = Arc::new(Mutex::new(None));
    let totals = Arc::new(DnsTotals::default());
    let configure = Configure {
        upstreams: settings.upstreams.iter().map(ToString::to_string).collect(),
        max_qps: settings.max_qps,
        ipv6: true,
        anchors: None,
        authorities: String::new(),
    };
    let desk = desk::Desk::new(configure, store, settings.saved)
        .with_front(settings.front)
        .with_certificates(settings.certificates);
    let reports = link::Reports {
        state: Arc::clone(&state),
        front: Arc::clone(&front),
        totals: Arc::clone(&totals),
    };
    let link = link::Link::new(desk, mailbox, audience, clock, settings.user, reports);
    let thread = std::thread::Builder::new()
        .name("witness".to_owned())
        .spawn(|| link.run())?;
    Ok((
        Witness {
            orders: orders.clone(),
            state,
            front,
            totals,
        },
        WitnessThread { orders, thread },
    ))
}

impl Witness {
    /// Asks for a look-up on behalf of queue `queue`; false when too much waits already.
    pub fn ask(&self, queue: usize, query: Query) -> bool {
        self.orders.send(Order::Ask { queue, query })
    }

    /// Says that a flow to `addr` was allowed under `name`; false when too much waits already.
    pub fn used(&self, name: Name, addr: IpAddr) -> bool {
        self.orders.send(Order::Used { name, addr })
    }

    /// Asks what certificate a server shows for `name`; false when too much waits already.
    pub fn certify(&self, name: Name, server: SocketAddr) -> bool {
        self.orders.send(Order::Certify { name, server })
    }

    /// Watches the names of a new policy.
    pub fn adopt(&self, policy: Arc<Snapshot>) -> bool {
        self.orders.send(Order::Adopt(policy))
    }

    /// What it has done.
    pub fn totals(&self) -> &DnsTotals {
        &self.totals
    }

    /// How the DNS front is; nothing while it is off.
    pub fn front_state(&self) -> Option<FrontStateV1> {
        self.front.lock().ok()?.clone()
    }

    /// How the process is.
    pub fn state(&self) -> WitnessState {
        match self.state.load(Ordering::Relaxed) {
            link::ANSWERING => WitnessState::Answering,
            link::UNANSWERED => WitnessState::Unanswered,
            link::RESTARTING => WitnessState::Restarting,
            _ => WitnessState::Absent,
        }
    }
}

impl WitnessThread {
    /// Ends the process and the thread.
    pub fn stop(self) {
        while !self.orders.send(Order::Stop) && !self.thread.is_finished() {
            std::thread::yield_now();
        }
        // A thread that panicked has aborted the process already.
        drop(self.thread.join());
    }
}

/// The name of a type of records; `TYPE64` and the like for one that has none here (RFC 3597, section 5).
pub fn record_type_name(record_type: RecordType) -> String {
    if let RecordType::Unknown(number) = record_type {
        format!("TYPE{number}")
    } else {
        record_type.to_string()
    }
}

/// Types of records the DNS front passes on in any case (DESIGN, section 3).
pub const RECORD_TYPES: [&str; 10] = [
    "A", "AAAA", "CNAME", "HTTPS", "SVCB", "SRV", "PTR", "MX", "NS", "SOA",
];
/// Look-ups and policies that may wait for the thread.
const ORDERS_MAX: usize = 8_192;
