//! The daemon's end of the control socket without a daemon: adopts everything and remembers what it was told.

use std::cell::Cell;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipc::control::{
    Adopted, Event, Message, PollState, Reply, Request, Segment, SourceState, Welcome,
};
use ipc::framing::PUBLISH_BYTES_MAX;
use ipc::snapshot::{self, SnapshotV1};
use ipc::socket::{Connection, bind};

/// One publication, as it came.
#[derive(Debug, Clone)]
pub struct Published {
    /// When.
    pub at: Instant,
    /// What.
    pub snapshot: SnapshotV1,
}

/// Asked about every segment that is reported as shipped.
type OnShipped = Box<dyn Fn(Segment) + Send>;

#[derive(Default)]
struct Heard {
    published: Vec<Published>,
    generation: u64,
    shipped: Vec<Segment>,
    sources: Vec<SourceState>,
    polls: Vec<PollState>,
    nobody: Vec<IpAddr>,
    peers: Vec<UnixStream>,
    on_shipped: Option<OnShipped>,
}

/// A listening double; ends when dropped.
pub struct DaemonDouble {
    path: PathBuf,
    heard: Arc<Mutex<Heard>>,
    boots: AtomicU32,
    alive: Mutex<Arc<AtomicBool>>,
}

impl std::fmt::Debug for DaemonDouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DaemonDouble")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl DaemonDouble {
    /// Listens on `folder/control.sock`.
    pub fn start(folder: &Path) -> Result<Self> {
        let this = Self {
            path: folder.join("control.sock"),
            heard: Arc::default(),
            boots: AtomicU32::new(0),
            alive: Mutex::default(),
        };
        this.listen()?;
        Ok(this)
    }

    fn listen(&self) -> Result<()> {
        let listener = bind(&self.path).context("listening on the control socket")?;
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        let alive = Arc::new(AtomicBool::new(true));
        *self.alive.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&alive);
        let heard = Arc::clone(&self.heard);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !alive.load(Ordering::Relaxed) {
                    return;
                }
                let heard = Arc::clone(&heard);
                // A peer that was killed mid-way is part of the tests.
                std::thread::spawn(move || drop(converse(stream, &heard, boot)));
            }
        });
        Ok(())
    }

    /// Ends as if killed: every conversation, and the socket.
    pub fn stop(&self) -> Result<()> {
        self.alive
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .store(false, Ordering::Relaxed);
        // Wakes the thread that listens, which then sees that it is over.
        drop(UnixStream::connect(&self.path));
        std::fs::remove_file(&self.path).context("removing the control socket")?;
        for peer in self.heard().peers.drain(..) {
            // Gone already is as good.
            drop(peer.shutdown(std::net::Shutdown::Both));
        }
        Ok(())
    }

    /// Is there again.
    pub fn restart(&self) -> Result<()> {
        self.listen()
    }

    /// Asks `check` about every segment reported from now on, before the answer.
    pub fn on_shipped(&self, check: impl Fn(Segment) + Send + 'static) {
        self.heard().on_shipped = Some(Box::new(check));
    }

    /// Reports a client nobody knows to whoever listens.
    pub fn unknown_client(&self, address: IpAddr) -> Result<()> {
        let event = Message::Event(Event::UnknownClient { address });
        for peer in &mut self.heard().peers {
            ipc::framing::write(peer, &event, PUBLISH_BYTES_MAX)?;
        }
        Ok(())
    }

    /// Says that the names of a policy are known.
    pub fn primed(&self, generation: u64) -> Result<()> {
        let event = Message::Event(Event::Primed { generation });
        for peer in &mut self.heard().peers {
            ipc::framing::write(peer, &event, PUBLISH_BYTES_MAX)?;
        }
        Ok(())
    }

    /// Every publication so far.
    pub fn published(&self) -> Vec<Published> {
        self.heard().published.clone()
    }

    /// Forgets every publication but the last: a large policy in many versions is much to keep.
    pub fn forget(&self) {
        let published = &mut self.heard().published;
        let last = published.pop();
        published.clear();
        published.extend(last);
    }

    /// How many there were so far.
    pub fn publications(&self) -> usize {
        self.heard().published.len()
    }

    /// What the sidecar said about its source.
    pub fn sources(&self) -> Vec<SourceState> {
        self.heard().sources.clone()
    }

    /// Addresses the sidecar said are nobody's.
    pub fn nobody(&self) -> Vec<IpAddr> {
        self.heard().nobody.clone()
    }

    /// How often the sidecar said it reads, each time it said so.
    pub fn polls(&self) -> Vec<PollState> {
        self.heard().polls.clone()
    }

    /// Segments reported as shipped.
    pub fn shipped(&self) -> Vec<Segment> {
        self.heard().shipped.clone()
    }

    /// Waits until the newest publication is as wanted.
    pub fn wait_policy(
        &self,
        limit: Duration,
        wanted: impl Fn(&SnapshotV1) -> bool,
    ) -> Result<Published> {
        // One publication of a large account is megabytes: each is looked at once.
        let looked_at = Cell::new(0);
        let newest = || {
            let heard = self.heard();
            let count = heard.published.len();
            if looked_at.replace(count) == count {
                return None;
            }
            let newest = heard.published.last().cloned();
            drop(heard);
            newest.filter(|newest| wanted(&newest.snapshot))
        };
        match crate::wait::until(limit, newest) {
            Some(published) => Ok(published),
            None => bail!(
                "no such policy within {limit:?}; the last one: {:#?}",
                self.published().pop()
            ),
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DaemonDouble {
    fn drop(&mut self) {
        // Stopped already is as good.
        drop(self.stop());
    }
}

/// One conversation, to its end.
fn converse(stream: UnixStream, heard: &Mutex<Heard>, boot: u32) -> Result<()> {
    let peer = stream.try_clone()?;
    let mut connection = Connection::new(stream, PUBLISH_BYTES_MAX);
    let mut peer = Some(peer);
    while let Some(request) = connection.receive::<Request>()? {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = heard.answer(request, boot)?;
        connection.send(&Message::Reply(reply))?;
        // Events come after the welcome.
        heard.peers.extend(peer.take());
    }
    Ok(())
}

impl Heard {
    fn answer(&mut self, request: Request, boot: u32) -> Result<Reply> {
        let policy_id = "0123456789abcdef".to_owned();
        Ok(match request {
            Request::Hello(_) => Reply::Welcome(Welcome {
                version: ipc::VERSION,
                program: "double".to_owned(),
                appliance: "fw-test".to_owned(),
                boot: boot.to_string(),
                policy: None,
            }),
            Request::Publish(document) => {
                let snapshot = snapshot::read(document.as_json().as_bytes())?;
                self.published.push(Published {
                    at: Instant::now(),
                    snapshot,
                });
                self.generation += 1;
                Reply::Adopted(Adopted {
                    generation: self.generation,
                    policy_id,
                })
            }
            Request::Shipped(segment) => {
                if let Some(check) = &self.on_shipped {
                    check(segment);
                }
                self.shipped.push(segment);
                Reply::Noted
            }
            Request::Source(state) => {
                self.sources.push(state);
                Reply::Noted
            }
            Request::Poll(state) => {
                self.polls.push(state);
                Reply::Noted
            }
            Request::NotAClient { address } => {
                self.nobody.push(address);
                Reply::Noted
            }
            Request::Status | Request::Explain(_) | Request::Bindings { .. } => Reply::Refused {
                why: "a double".to_owned(),
            },
        })
    }
}
