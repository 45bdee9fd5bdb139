//! Starts every part in order and ends them in order; the only place that knows all of them.
//!
//! Nothing new leaves before the last step: the ruleset drops what no queue thread judges.
//! When a step fails, the ruleset, or the lockdown in its place, stays.

use std::cell::RefCell;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use inspect::Limits;
use ipc::record::Stream;
use nix::unistd::Group;
use policy::Draft;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};

use crate::appliance::{Appliance, Parts};
use crate::background;
use crate::bindings::{self, BindingKeeper, BindingStore, Saved, Scope};
use crate::clock::Clock;
use crate::conditions::Conditions;
use crate::config::Config;
use crate::confine::{self, knows_group};
use crate::control::{self, ControlError, Shared};
use crate::flowlog::{self, FlowLog, LogSettings, LogThread};
use crate::flows::{self, FlowSettings, FlowThread, FlowsError};
use crate::health::{self, Page};
use crate::kernel::{Guard, Kernel, KernelError};
use crate::lockdown;
use crate::nfqueue;
use crate::policy_store::{OpenStoreError, Overlaid, PolicyStore};
use crate::provider::{self, FileProvider, ProviderError};
use crate::queue::{self, BoundQueue, QueueAddress, QueueHandle, QueueThreadError, Surroundings};
use crate::ruleset::FRONT_PORT;
use crate::tally::Tally;
use crate::witness::{
    self, CertificateSettings, FrontSettings, Witness, WitnessSettings, WitnessThread,
};

mod audience;

use audience::Listeners;

/// Why the daemon could not start, or had to stop.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The inventory was refused at the start.
    #[error(transparent)]
    Inventory(#[from] ProviderError),
    /// The kernel cannot do what is needed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Rights could not be given up.
    #[error("giving up rights")]
    Confine(#[from] confine::ConfineError),
    /// The stored policy cannot be kept.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// The first policy was rejected.
    #[error("adopting the policy: {0}: {1}")]
    Rejected(String, String),
    /// The spool cannot be written.
    #[error("opening the spool {0}")]
    Spool(String, #[source] io::Error),
    /// A queue cannot be served.
    #[error(transparent)]
    Queue(#[from] QueueThreadError),
    /// Live flows cannot be followed.
    #[error(transparent)]
    Flows(#[from] FlowsError),
    /// The witness has no thread.
    #[error("starting the witness")]
    Witness(#[source] io::Error),
    /// The control socket cannot be opened.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A listener cannot be opened.
    #[error("listening on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// There is no runtime to be had.
    #[error("starting the control thread")]
    Runtime(#[source] io::Error),
    /// A queue thread ended by itself.
    #[error("a queue thread ended")]
    QueueEnded,
}

/// Runs until SIGTERM or SIGINT. The ruleset stays: judged flows go on, nothing new leaves.
///
/// # Errors
/// When a part cannot be started, or one that must not end does.
pub fn run(config: Config) -> Result<(), DaemonError> {
    let mut provider = config.inventory.as_deref().map(FileProvider::new);
    let draft = provider.as_mut().map(FileProvider::read);
    // Whatever the file says: a machine that forwards already must pass nothing new from here on.
    let kernel = match Kernel::take_over(&config) {
        Ok(kernel) => Arc::new(kernel),
        Err(error) => {
            lock_down();
            // Whoever wrote the file wants to hear of it first.
            if let Some(Err(broken)) = draft {
                return Err(broken.into());
            }
            return Err(error.into());
        }
    };
    // Between the last step that needs root and the first byte of anybody else's.
    confine::daemon(&config)?;
    let result = run_threads(config, kernel, provider, draft);
    if let Err(DaemonError::Kernel(_)) = &result {
        // The ruleset is not ours any more.
        lock_down();
    }
    result
}

/// Stops everything new when our ruleset is not, or no longer, in force.
fn lock_down() {
    match lockdown::engage() {
        Ok(how) => tracing::error!(?how, "lockdown: nothing new leaves"),
        Err(error) => tracing::error!(%error, "lockdown"),
    }
}

fn run_threads(
    config: Config,
    kernel: Arc<Kernel>,
    provider: Option<FileProvider>,
    draft: Option<Result<Draft, ProviderError>>,
) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    let mut threads = Threads::start(&config, kernel)?;
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, async {
        let mut appliance = Appliance::new(
            config,
            threads.take_store()?,
            threads.parts.clone(),
            threads.overlay.take(),
        );
        for fault in threads.faults.drain(..) {
            appliance.fault("snapshot", &fault);
        }
        match draft {
            Some(Ok(draft)) => {
                let adopted = appliance.adopt(draft);
                adopted.map_err(|rejected| DaemonError::Rejected(rejected.place, rejected.why))?;
            }
            Some(Err(broken)) if appliance.policy().is_some() => {
                provider::refused(&mut appliance, &broken);
            }
            Some(Err(broken)) => return Err(broken.into()),
            None => {}
        }
        appliance.read_overlay();
        if appliance.policy().is_none() {
            appliance.log_status();
        }
        appliance.set_queues(threads.serve()?);
        background::step_back();
        let appliance = Rc::new(RefCell::new(appliance));
        listen(&appliance, provider).await?;
        announce(&appliance);
        watch_over(&appliance, &mut threads).await
    });
    threads.stop();
    result
}

/// Every thread beside the control thread.
struct Threads {
    parts: Parts,
    store: Option<PolicyStore>,
    faults: Vec<String>,
    overlay: Option<Overlaid>,
    bound: Vec<BoundQueue>,
    surroundings: Surroundings,
    queues: Vec<QueueHandle>,
    unknown: mpsc::Receiver<std::net::IpAddr>,
    guard: Guard,
    /// Why the ruleset cannot be held any longer; said once.
    lost_kernel: mpsc::Receiver<KernelError>,
    witness: WitnessThread,
    keeper: BindingKeeper,
    flows: FlowThread,
    log: LogThread,
}

impl Threads {
    /// Binds every queue and starts everything but the queue threads.
    fn start(config: &Config, kernel: Arc<Kernel>) -> Result<Self, DaemonError> {
        let (clock, (store, found)) = (Clock::start(), PolicyStore::open(&config.state_dir)?);
        let current = Arc::clone(store.current());
        let (log, log_thread) = start_log(config)?;
        let (bound, tally) = (bind_queues(config.queues)?, Arc::<Tally>::default());
        let bindings = Arc::new(empty_bindings(config));
        let queues: Vec<_> = bound.iter().map(BoundQueue::address).collect();
        let (flow_events, flow_thread) = flows::start(FlowSettings {
            log: log.clone(),
            tally: Arc::clone(&tally),
            bindings: Arc::clone(&bindings),
            clock,
            queues: queues.clone(),
            policy: Arc::clone(&current),
            state_dir: config.state_dir.clone(),
        })?;
        let (unknown, unknown_receiver) = mpsc::channel(UNKNOWN_MAX);
        let audience = Listeners {
            queues,
            unknown: unknown.clone(),
            events: broadcast::channel(EVENTS_MAX).0,
            primed: Arc::default(),
            log: log.clone(),
            appliance: config.appliance.clone(),
            policy: Arc::clone(&current),
            flows: flow_events.clone(),
        };
        let (events, primed) = (audience.events.clone(), Arc::clone(&audience.primed));
        let (witness, witness_thread) = start_witness(config, &bindings, audience, clock)?;
        let keeper = keep(config, &bindings, clock)?;
        let (guard, lost_kernel) = start_guard(&kernel)?;
        let parts = Parts {
            clock,
            queues: Vec::new(),
            kernel,
            bindings,
            witness,
            flows: flow_events,
            live_flows: flow_thread.live(),
            log,
            tally,
            events,
            primed,
        };
        let surroundings = surroundings_of(&parts, current, unknown, clock);
        Ok(Self {
            parts,
            store: Some(store),
            faults: found.faults,
            overlay: found.overlay,
            bound,
            surroundings,
            queues: Vec::new(),
            unknown: unknown_receiver,
            guard,
            lost_kernel,
            witness: witness_thread,
            keeper,
            flows: flow_thread,
            log: log_thread,
        })
    }
}

fn start_guard(kernel: &Arc<Kernel>) -> Result<(Guard, mpsc::Receiver<KernelError>), DaemonError> {
    let (lost, lost_kernel) = mpsc::channel(1);
    let guard = Guard::start(Arc::clone(kernel), move |error| {
        // The receiver is gone only when the daemon ends anyway.
        drop(lost.try_send(error));
    })?;
    Ok((guard, lost_kernel))
}

/// What the queue threads share of the parts.
fn surroundings_of(
    parts: &Parts,
    policy: Arc<crate::policy_store::CurrentPolicy>,
    unknown: mpsc::Sender<std::net::IpAddr>,
    clock: Clock,
) -> Surroundings {
    Surroundings {
        policy,
        bindings: Arc::clone(&parts.bindings),
        witness: parts.witness.clone(),
        log: parts.log.clone(),
        flows: parts.flows.clone(),
        unknown,
        tally: Arc::clone(&parts.tally),
        familiarity: Arc::clone(parts.kernel.familiarity()),
        clock,
    }
}

fn empty_bindings(config: &Config) -> BindingStore {
    let history_ms = u64::from(config.dns.history_seconds).saturating_mul(1_000);
    BindingStore::new(history_ms, Scope::default())
}

fn bind_queues(count: u16) -> Result<Vec<BoundQueue>, QueueThreadError> {
    (0..count)
        .map(|number| queue::bind(usize::from(number), number))
        .collect()
}

fn keep(
    config: &Config,
    bindings: &Arc<BindingStore>,
    clock: Clock,
) -> Result<BindingKeeper, DaemonError> {
    BindingKeeper::start(config.bindings_file(), Arc::clone(bindings), clock)
        .map_err(DaemonError::Witness)
}

fn start_witness(
    config: &Config,
    bindings: &Arc<BindingStore>,
    audience: Listeners,
    clock: Clock,
) -> Result<(Witness, WitnessThread), DaemonError> {
    let settings = WitnessSettings {
        upstreams: config
            .dns
            .upstreams
            .iter()
            .map(|upstream| upstream.0)
            .collect(),
        max_qps: config.dns.max_qps,
        user: config.users.witness.clone(),
        saved: restore(&config.bindings_file(), clock),
        front: front_settings(config),
        certificates: CertificateSettings {
            per_second: config.certificates.per_second,
            anchors: config.certificates.anchors.clone(),
            authorities: config.certificates.authorities.clone(),
            trust_clock: config.certificates.trust_clock,
        },
    };
    witness::start(settings, Arc::clone(bindings), Box::new(audience), clock)
        .map_err(DaemonError::Witness)
}

fn front_settings(config: &Config) -> FrontSettings {
    let types = config.dns.front_record_types.iter();
    let sources = config.dns.resolver_sources.iter();
    FrontSettings {
        appliance: config.appliance.as_str().into(),
        port: FRONT_PORT,
        resolvers: sources.map(|source| source.0).collect(),
        record_types: types.map(|it| it.0.clone()).collect(),
    }
}

/// What was bound before a restart; a file that cannot be used costs look-ups, nothing else.
fn restore(path: &Path, clock: Clock) -> Option<Saved> {
    match bindings::load(path, clock.now()) {
        Ok(saved) => Some(saved),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "reading the bindings kept");
            None
        }
    }
}

fn start_log(config: &Config) -> Result<(FlowLog, LogThread), DaemonError> {
    let dir = config.spool_dir();
    let settings = LogSettings {
        appliance: config.appliance.clone(),
        capacity: flowlog::CAPACITY,
        to_stdout: config.log_stdout,
    };
    let spool_error = |error| DaemonError::Spool(dir.display().to_string(), error);
    let started = flowlog::start(&dir, config.spool.max_bytes, settings).map_err(spool_error)?;
    share_with_group(&dir, &config.users.ipc_group).map_err(spool_error)?;
    Ok(started)
}

/// Lets the group that cloudsync is in read the spool; segments inherit it from their folder.
fn share_with_group(dir: &Path, group: &str) -> io::Result<()> {
    let Some(group) = Group::from_name(group)? else {
        return Ok(());
    };
    if !knows_group(group.gid) {
        return Ok(());
    }
    let streams = Stream::ALL.map(|stream| dir.join(stream.as_str()));
    for folder in std::iter::once(dir.to_owned()).chain(streams) {
        // As a rule the package has made it so, and no right to change it is left.
        let is = std::fs::metadata(&folder)?;
        if is.gid() != group.gid.as_raw() {
            chown(&folder, None, Some(group.gid.as_raw()))?;
        }
        if is.mode() & 0o7777 != SPOOL_FOLDER_MODE {
            std::fs::set_permissions(&folder, Permissions::from_mode(SPOOL_FOLDER_MODE))?;
        }
    }
    Ok(())
}

impl Threads {
    fn take_store(&mut self) -> Result<PolicyStore, DaemonError> {
        self.store.take().ok_or(DaemonError::QueueEnded)
    }

    /// Starts the queue threads: from here on packets are judged.
    fn serve(&mut self) -> Result<Vec<QueueAddress>, DaemonError> {
        let count = self.bound.len().max(1);
        for queue in self.bound.drain(..) {
            self.queues
                .push(queue.serve(self.surroundings.clone(), limits(count))?);
        }
        Ok(self.queues.iter().map(QueueHandle::address).collect())
    }

    fn stop(mut self) {
        self.guard.stop();
        for queue in &mut self.queues {
            queue.stop();
        }
        self.flows.stop();
        self.witness.stop();
        self.keeper.stop();
        self.log.stop();
    }
}

/// The share of one of `queues` inspectors.
fn limits(queues: usize) -> Limits {
    let all = Limits::default();
    let share = |whole: usize| whole.div_ceil(queues);
    Limits {
        flows: share(all.flows),
        bytes: share(all.bytes),
        bytes_per_client: share(all.bytes_per_client),
        unknown_clients: share(all.unknown_clients),
        decided: share(all.decided),
        refusal_clients: share(all.refusal_clients),
        ..all
    }
}

/// Opens every listener and starts the tasks behind them.
async fn listen(appliance: &Shared, provider: Option<FileProvider>) -> Result<(), DaemonError> {
    let config = appliance.borrow().config().clone();
    let socket = control::listen(&config.control_socket, &config.users.ipc_group)?;
    tokio::task::spawn_local(control::serve(socket, Rc::clone(appliance)));
    for (address, page) in [
        (config.health, Page::Health),
        (config.metrics, Page::Metrics),
    ] {
        let Some(address) = address.0 else { continue };
        let listener = health::listen(address)
            .await
            .map_err(|error| DaemonError::Listen(address, error))?;
        tokio::task::spawn_local(health::serve(listener, page, Rc::clone(appliance)));
    }
    match provider {
        Some(provider) => {
            tokio::task::spawn_local(provider::follow(provider, Rc::clone(appliance)));
        }
        None => {
            tokio::task::spawn_local(provider::follow_overlay(Rc::clone(appliance)));
        }
    }
    Ok(())
}

/// Says that flows are judged, to systemd and to whoever reads our log.
fn announce(appliance: &Shared) {
    tell(&[sd_notify::NotifyState::Ready]);
    tell_status(appliance);
    tracing::info!("ready");
}

/// What `systemctl status` shows.
fn tell_status(appliance: &Shared) {
    let status = appliance.borrow().status();
    let text = format!(
        "{}: generation {}, {} clients, {} names, {} flows carried",
        status.mode, status.generation, status.clients, status.names, status.flows_judged
    );
    tell(&[sd_notify::NotifyState::Status(&text)]);
}

/// Says something to systemd, where there is one.
fn tell(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "telling systemd");
    }
}

/// Keeps watch until a signal asks for the end or a part fails.
async fn watch_over(appliance: &Shared, threads: &mut Threads) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Runtime)?;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut around = tokio::time::interval(AROUND_EVERY);
    let mut conditions = Conditions::begin();
    let mut scope = tokio::time::interval(SCOPE_EVERY);
    let mut hour = tokio::time::interval(Duration::from_secs(3_600));
    hour.tick().await;
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    let mut drops_said = 0;
    let from_file = appliance.borrow().config().inventory.is_some();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = second.tick() => check_queues(appliance, threads)?,
            Some(error) = threads.lost_kernel.recv() => return Err(error.into()),
            _ = around.tick() => {
                conditions.look(&mut appliance.borrow_mut());
                tell_status(appliance);
            }
            _ = scope.tick() => appliance.borrow().refresh_scope(),
            _ = hour.tick() => appliance.borrow().log_status(),
            _ = minute.tick() => say_new_drops(&appliance.borrow(), &mut drops_said),
            Some(address) = threads.unknown.recv() => {
                let appliance = appliance.borrow();
                // An inventory file is all there is to know; a cloud is asked by the sidecar.
                if from_file {
                    appliance.refuse_client(address);
                } else {
                    appliance.report_unknown(address);
                }
            }
        }
    }
    drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
    tracing::info!("stopping; the ruleset stays");
    Ok(())
}

/// A status line of its own for packets that found a queue full since the last look: an alarm cannot wait for the hour.
fn say_new_drops(appliance: &Appliance, said: &mut u64) {
    let drops = appliance.packets_queue_full();
    if drops > *said {
        *said = drops;
        appliance.log_status();
    }
}

/// Looks whether packets are served, and tells the supervisor only when they are.
fn check_queues(appliance: &Shared, threads: &Threads) -> Result<(), DaemonError> {
    if threads.queues.iter().any(QueueHandle::is_finished) {
        let fault = Some("a packet queue is not served".to_owned());
        appliance.borrow_mut().set_data_plane_fault(fault);
        return Err(DaemonError::QueueEnded);
    }
    appliance.borrow_mut().free_retired_policies();
    let stuck = threads
        .queues
        .iter()
        .any(|queue| queue.silent_ms() > QUEUE_SILENCE_MAX_MS);
    let fault = stuck.then(|| "a packet queue is not served".to_owned());
    appliance.borrow_mut().set_data_plane_fault(fault);
    if appliance.borrow().data_plane_fault().is_none() {
        tell(&[sd_notify::NotifyState::Watchdog]);
    }
    if let Ok(drops) = nfqueue::drops() {
        appliance.borrow().parts().tally.note_queue_drops(drops);
    }
    Ok(())
}

/// Events that a slow listener may be behind.
const EVENTS_MAX: usize = 256;
/// Reports of unknown clients that may wait; the engine makes ten a second at most.
const UNKNOWN_MAX: usize = 64;
/// Set-group-id, so that every segment belongs to the folder's group.
const SPOOL_FOLDER_MODE: u32 = 0o2750;
/// How often what is around us is looked at.
const AROUND_EVERY: Duration = Duration::from_secs(2);
/// A queue thread comes round twice a second when idle; on a machine without processor time, later.
const QUEUE_SILENCE_MAX_MS: u64 = 4_000;
/// How often our own addresses are looked at.
const SCOPE_EVERY: Duration = Duration::from_secs(30);
