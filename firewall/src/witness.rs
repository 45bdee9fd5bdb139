//! The DNS witness: the daemon's side of the process that resolves names.
//!
//! One thread here owns the child process, the schedule of look-ups and the writing end of
//! the bindings. The child asks resolvers, as its own user and with no capability; what it
//! answers is checked like bytes from the wire.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use inspect::{Answer, Query, Sought};
use ipc::control::WitnessState;
use ipc::witness::Configure;
use policy::{Name, Snapshot};

use crate::bindings::{BindingStore, Saved};
use crate::clock::Clock;
use crate::wake::{self, Sender};

mod child;
mod desk;
mod learnt;
mod link;
mod resolve;
mod rotation;
mod schedule;
mod spending;
mod totals;

pub use child::{ChildError, run as run_child};
pub use totals::DnsTotals;

/// Where queue threads and the policy store leave what they want of the witness.
#[derive(Clone, Debug)]
pub struct Witness {
    orders: Sender<Order>,
    state: Arc<AtomicU8>,
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
}

#[derive(Debug)]
enum Order {
    Ask { queue: usize, query: Query },
    Used { name: Name, addr: IpAddr },
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
    let totals = Arc::new(DnsTotals::default());
    let configure = Configure {
        upstreams: settings.upstreams.iter().map(ToString::to_string).collect(),
        max_qps: settings.max_qps,
        ipv6: true,
    };
    let desk = desk::Desk::new(configure, store, settings.saved);
    let link = link::Link::new(
        desk,
        mailbox,
        audience,
        clock,
        settings.user,
        Arc::clone(&state),
        Arc::clone(&totals),
    );
    let thread = std::thread::Builder::new()
        .name("witness".to_owned())
        .spawn(|| link.run())?;
    Ok((
        Witness {
            orders: orders.clone(),
            state,
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

    /// Watches the names of a new policy.
    pub fn adopt(&self, policy: Arc<Snapshot>) -> bool {
        self.orders.send(Order::Adopt(policy))
    }

    /// What it has done.
    pub fn totals(&self) -> &DnsTotals {
        &self.totals
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

/// Look-ups and policies that may wait for the thread.
const ORDERS_MAX: usize = 8_192;
