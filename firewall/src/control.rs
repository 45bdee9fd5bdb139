//! The control socket: publications from cloudsync, questions from operators.
//!
//! Who may say what is decided by the credentials the kernel states of the peer, never by
//! what the peer says of itself.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ipc::control::{Hello, Message, Rejected, Reply, Request, Welcome};
use ipc::framing::{self, Decoder, FramingError, MESSAGE_BYTES_MAX, PUBLISH_BYTES_MAX};
use ipc::snapshot::{self, ReadDraftError};
use nix::unistd::{Group, Uid, User, getegid, geteuid};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast};

use crate::appliance::Appliance;
use crate::config::Users;
use crate::confine::knows_group;

/// The appliance, shared by the tasks of the control thread.
pub type Shared = Rc<RefCell<Appliance>>;

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Right {
    Nothing,
    Ask,
    Publish,
}

/// Why the control socket could not be opened.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Its folder cannot be made.
    #[error("making the folder of {0}")]
    Folder(String, #[source] io::Error),
    /// It cannot be listened on.
    #[error("opening the control socket")]
    Bind(#[from] ipc::socket::SocketError),
    /// Its owner or mode cannot be set.
    #[error("setting the mode of {0}")]
    Mode(String, #[source] io::Error),
}

/// Why a conversation ended.
#[derive(Debug, Error)]
enum TalkError {
    #[error("reading a request")]
    Framing(#[from] FramingError),
    #[error("talking to the peer")]
    Io(#[from] io::Error),
    #[error("no request within {} s", HELLO_WAIT.as_secs())]
    Silent,
}

/// Listens on `path`, readable and writable for `group` when it exists.
///
/// # Errors
/// When somebody else listens there, or the file system refuses. Must run inside a runtime.
pub fn listen(path: &Path, group: &str) -> Result<UnixListener, ControlError> {
    let shown = || path.display().to_string();
    if let Some(folder) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder
            .create(folder)
            .map_err(|error| ControlError::Folder(shown(), error))?;
    }
    let listener = ipc::socket::bind(path)?;
    let mode = std::fs::Permissions::from_mode(SOCKET_MODE);
    std::fs::set_permissions(path, mode).map_err(|error| ControlError::Mode(shown(), error))?;
    if let Ok(Some(group)) = Group::from_name(group)
        && group.gid != getegid()
        // A user namespace without it has no member of it either.
        && knows_group(group.gid)
    {
        chown(path, None, Some(group.gid.as_raw()))
            .map_err(|error| ControlError::Mode(shown(), error))?;
    }
    let converted = listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener));
    converted.map_err(|error| ControlError::Mode(shown(), error))
}

/// Serves every peer; never returns.
pub async fn serve(listener: UnixListener, appliance: Shared) {
    let places = Arc::new(Semaphore::new(PEERS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::warn!("too many peers on the control socket");
                    continue;
                };
                let appliance = Rc::clone(&appliance);
                tokio::task::spawn_local(async move {
                    let _place = place;
                    if let Err(error) = talk(stream, appliance).await {
                        tracing::debug!(error = crate::cli::chain(&error), "a conversation ends");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting on the control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn talk(mut stream: UnixStream, appliance: Shared) -> Result<(), TalkError> {
    let right = right_of(&stream, &appliance.borrow().config().users)?;
    let limit = if right == Right::Publish {
        PUBLISH_BYTES_MAX
    } else {
        MESSAGE_BYTES_MAX
    };
    let mut peer = Peer {
        decoder: Decoder::new(limit),
        buffer: vec![0; 64 << 10],
    };
    let hello = tokio::time::timeout(HELLO_WAIT, peer.next(&mut stream)).await;
    let Some(hello) = hello.map_err(|_| TalkError::Silent)?? else {
        return Ok(());
    };
    let mut events = match welcome(&hello, right, &appliance) {
        Ok((welcome, events)) => {
            send(&mut stream, &Message::Reply(Reply::Welcome(welcome))).await?;
            events
        }
        Err(why) => return send(&mut stream, &Message::Reply(Reply::Refused { why })).await,
    };
    loop {
        tokio::select! {
            said = peer.next(&mut stream) => {
                let Some(said) = said? else { return Ok(()) };
                let reply = answer(said, right, &appliance);
                send(&mut stream, &Message::Reply(reply)).await?;
            }
            event = next_event(&mut events) => {
                if let Some(event) = event {
                    send(&mut stream, &Message::Event(event)).await?;
                }
            }
        }
    }
}

/// The next event, for a peer that wants them; `None` when it was too slow for some.
async fn next_event(
    events: &mut Option<broadcast::Receiver<ipc::control::Event>>,
) -> Option<ipc::control::Event> {
    match events {
        Some(receiver) => receiver.recv().await.ok(),
        None => std::future::pending().await,
    }
}

/// What a peer said.
#[derive(Debug)]
enum Said {
    /// A policy, as the document it came as.
    Publication(Arc<[u8]>),
    /// Anything else.
    Request(Request),
}

type Welcomed = (Welcome, Option<broadcast::Receiver<ipc::control::Event>>);

fn welcome(said: &Said, right: Right, appliance: &Shared) -> Result<Welcomed, String> {
    let Said::Request(Request::Hello(hello)) = said else {
        return Err("the first request must be a hello".to_owned());
    };
    if right == Right::Nothing {
        return Err("this user may neither publish nor ask".to_owned());
    }
    let version = common_version(hello)?;
    let appliance = appliance.borrow();
    let (name, boot) = appliance.names();
    let welcome = Welcome {
        version,
        program: crate::cli::PROGRAM.to_owned(),
        appliance: name.to_owned(),
        boot: boot.to_owned(),
        policy: appliance.adopted(),
    };
    let wants_events = hello.events && right == Right::Publish;
    if wants_events {
        tracing::info!(program = hello.program, "a publisher connects");
    }
    Ok((welcome, wants_events.then(|| appliance.events())))
}

fn common_version(hello: &Hello) -> Result<u32, String> {
    hello.common_version().ok_or_else(|| {
        format!(
            "no common version: this daemon speaks {} to {}, the peer {} to {}",
            ipc::OLDEST_VERSION,
            ipc::VERSION,
            hello.oldest,
            hello.version
        )
    })
}

fn answer(said: Said, right: Right, appliance: &Shared) -> Reply {
    let needs_publish = match &said {
        Said::Publication(_)
        | Said::Request(
            Request::Publish(_)
            | Request::Shipped(_)
            | Request::Source(_)
            | Request::Poll(_)
            | Request::NotAClient { .. },
        ) => true,
        Said::Request(
            Request::Hello(_) | Request::Status | Request::Explain(_) | Request::Bindings { .. },
        ) => false,
    };
    if needs_publish && right < Right::Publish {
        return Reply::Refused {
            why: "this user may not publish".to_owned(),
        };
    }
    match said {
        Said::Publication(document) => publish(&document, appliance),
        Said::Request(request) => answer_request(request, appliance),
    }
}

fn answer_request(request: Request, appliance: &Shared) -> Reply {
    match request {
        Request::Hello(_) => Reply::Refused {
            why: "a second hello".to_owned(),
        },
        // Written in another way than ours, with a space somewhere.
        Request::Publish(document) => publish(&document.as_json().as_bytes().into(), appliance),
        Request::Shipped(segment) => {
            appliance
                .borrow()
                .parts()
                .log
                .shipped(segment.stream, segment.segment);
            Reply::Noted
        }
        Request::Source(state) => {
            appliance.borrow_mut().note_source(state);
            Reply::Noted
        }
        Request::Poll(state) => {
            appliance.borrow_mut().note_poll(state);
            Reply::Noted
        }
        Request::NotAClient { address } => {
            appliance.borrow().refuse_client(address);
            Reply::Noted
        }
        Request::Status => Reply::Status(Box::new(appliance.borrow().status())),
        Request::Explain(question) => match appliance.borrow().explain(&question) {
            Ok(explanation) => Reply::Explained(explanation),
            Err(why) => Reply::Refused { why },
        },
        Request::Bindings { after } => {
            let appliance = appliance.borrow();
            let parts = appliance.parts();
            let now = parts.clock.now();
            Reply::Bindings(crate::bindings::list(&parts.bindings, after.as_ref(), now))
        }
    }
}

fn publish(document: &Arc<[u8]>, appliance: &Shared) -> Reply {
    let rejected = |place: String, why: String| {
        appliance
            .borrow()
            .fault("policy", &format!("{place}: {why}"));
        Reply::Rejected(Rejected { place, why })
    };
    if appliance.borrow().config().inventory.is_some() {
        let why = "the policy of this daemon comes from an inventory file".to_owned();
        return Reply::Rejected(Rejected {
            place: "publish".to_owned(),
            why,
        });
    }
    let arrival = appliance.borrow().receive(document);
    let draft = match snapshot::read_draft(document) {
        Ok(draft) => draft,
        Err(ReadDraftError::Invalid(invalid)) => return rejected(invalid.place, invalid.why),
        Err(ReadDraftError::Read(error)) => {
            let place = if error.is_version() {
                "version"
            } else {
                "document"
            };
            return rejected(place.to_owned(), crate::cli::chain(&error));
        }
    };
    let mut appliance = appliance.borrow_mut();
    match appliance.publish(draft, arrival) {
        Ok(adopted) => {
            appliance.note_source(ipc::control::SourceState::Current);
            Reply::Adopted(adopted)
        }
        Err(rejected) => Reply::Rejected(rejected),
    }
}

struct Peer {
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl Peer {
    /// The next request; `None` when the peer closed. May be cancelled between reads.
    async fn next(&mut self, stream: &mut UnixStream) -> Result<Option<Said>, TalkError> {
        loop {
            if let Some(body) = self.decoder.next_body()? {
                return Ok(Some(match ipc::control::published(body) {
                    Some(document) => Said::Publication(document.into()),
                    None => {
                        Said::Request(serde_json::from_slice(body).map_err(FramingError::Body)?)
                    }
                }));
            }
            let length = stream.read(&mut self.buffer).await?;
            if length == 0 {
                self.decoder.finish()?;
                return Ok(None);
            }
            self.decoder
                .push(self.buffer.get(..length).unwrap_or_default());
        }
    }
}

async fn send(stream: &mut UnixStream, message: &Message) -> Result<(), TalkError> {
    let bytes = framing::encode(message, MESSAGE_BYTES_MAX)?;
    Ok(stream.write_all(&bytes).await?)
}

fn right_of(stream: &UnixStream, users: &Users) -> io::Result<Right> {
    let peer = stream.peer_cred()?;
    let uid = Uid::from_raw(peer.uid());
    if uid.is_root() || uid == geteuid() {
        return Ok(Right::Publish);
    }
    let name = User::from_uid(uid)?.map(|user| user.name);
    if let Some(name) = &name
        && users.publishers.contains(name)
    {
        return Ok(Right::Publish);
    }
    let Some(operators) = Group::from_name(&users.operators)? else {
        return Ok(Right::Nothing);
    };
    let member = name.is_some_and(|name| operators.mem.contains(&name));
    let right = if member || peer.gid() == operators.gid.as_raw() {
        Right::Ask
    } else {
        Right::Nothing
    };
    Ok(right)
}

/// For `postern` and `postern-ipc` (DESIGN, section 4.5).
const SOCKET_MODE: u32 = 0o660;
/// Peers at once: cloudsync, and operators with a command each. One more is hung up on.
const PEERS_MAX: usize = 64;
/// How long a peer may take to introduce itself.
const HELLO_WAIT: Duration = Duration::from_secs(5);
