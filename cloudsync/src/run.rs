//! `postern-cloudsync run`: the reader, the conversation with the daemon and the shippers, until
//! somebody says stop.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use anyhow::{Context as _, bail};
use ipc::control::Request;
use ipc::record::Stream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::aws::{CloudWatch, Session};
use crate::cloud::{Cloud, LogSink, Store};
use crate::config::{Config, ProviderKind};
use crate::documents::Documents;
use crate::file::{FileCloud, NoStore};
use crate::gcp::{CloudLogging, ExternalAddress, Gcp, Secrets};
use crate::link::{self, Link, LinkState};
use crate::schedule::Backoff;
use crate::ship::{Cursor, Shipper, Turns};
use crate::sync::{Sync, Wires};

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// When it cannot start, or a task ends that never should.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let config = Rc::new(config);
    let mut stop = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut tasks = JoinSet::new();
    match config.provider {
        ProviderKind::Aws => {
            let session = Session::load(&config).await;
            let cloud = session.cloud(&config).await;
            let sink = config.logs.ship.then(|| session.sink(&config.logs));
            let store = Some(session.store());
            let parts = Parts { cloud, store, sink };
            let link = start(&mut tasks, &config, parts)?;
            let duties = session.duties(&config, link);
            tasks.spawn_local(async {
                duties.await;
                // Done; a task that ends is taken for a failure.
                std::future::pending().await
            });
        }
        ProviderKind::File => {
            let cloud = FileCloud::new(config.file.inventory.clone());
            let (store, sink) = (None::<NoStore>, None::<CloudWatch>);
            start(&mut tasks, &config, Parts { cloud, store, sink })?;
        }
        ProviderKind::Gcp => {
            let cloud = Gcp::new(&config).await?;
            if let Some(address) = ExternalAddress::new(&config).await? {
                tasks.spawn_local(address.run());
            }
            let sink = match config.logs.ship {
                true => Some(CloudLogging::new(&config).await?),
                false => None,
            };
            let store = Some(Secrets::new(&config).await?);
            start(&mut tasks, &config, Parts { cloud, store, sink })?;
        }
    }
    // Nobody waits for this in a terminal or a test; systemd does.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "no service manager");
    }
    tokio::select! {
        _ = stop.recv() => {}
        _ = interrupt.recv() => {}
        ended = tasks.join_next() => bail!("a task ended: {ended:?}"),
    }
    tracing::info!("stopping");
    Ok(())
}

/// What a provider brings.
struct Parts<C, D, S> {
    cloud: C,
    store: Option<D>,
    sink: Option<S>,
}

/// Starts every task; how the conversation with the daemon stands is for whoever else needs it.
fn start<C: Cloud + 'static, D: Store + 'static, S: LogSink + 'static>(
    tasks: &mut JoinSet<()>,
    config: &Rc<Config>,
    parts: Parts<C, D, S>,
) -> anyhow::Result<watch::Receiver<LinkState>> {
    let (policy, newest_policy) = watch::channel(None);
    let (requests, to_say) = mpsc::channel(link::QUEUE);
    let (unknown, to_look_up) = mpsc::channel(link::QUEUE);
    let (state, link_state) = watch::channel(LinkState::default());
    let link = Link {
        path: config.control_socket.clone(),
        policy: newest_policy,
        requests: to_say,
        unknown,
        state,
    };
    tasks.spawn_local(link.run());
    if let Some(sink) = parts.sink {
        ship(tasks, config, sink, &requests, &link_state)?;
    }
    let (wanted, wanted_lists) = watch::channel(BTreeSet::new());
    let (keep, kept) = watch::channel(None);
    let documents = Documents::new(parts.store.map(Rc::new), Rc::clone(config));
    tasks.spawn_local(documents.run(wanted_lists, keep));
    let wires = Wires {
        policy,
        requests,
        wanted,
        kept,
    };
    let sync = Sync::new(parts.cloud, Rc::clone(config), wires);
    tasks.spawn_local(sync.run(to_look_up));
    Ok(link_state)
}

/// Starts one shipper for each stream.
fn ship<S: LogSink + 'static>(
    tasks: &mut JoinSet<()>,
    config: &Config,
    sink: S,
    requests: &mpsc::Sender<Request>,
    link: &watch::Receiver<LinkState>,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("making {}", config.state_dir.display()))?;
    let cursor = Rc::new(RefCell::new(Cursor::open(&config.state_dir)?));
    let sink = Rc::new(sink);
    let turns = Rc::new(Turns::new(Backoff::new(config.poll.max_backoff())));
    for stream in Stream::ALL {
        let shipper = Shipper {
            stream,
            sink: Rc::clone(&sink),
            spool: config.spool.clone(),
            cursor: Rc::clone(&cursor),
            linger: config.logs.linger(),
            max_backoff: config.poll.max_backoff(),
            turns: Rc::clone(&turns),
            requests: requests.clone(),
            link: link.clone(),
        };
        tasks.spawn_local(shipper.run());
    }
    Ok(())
}
