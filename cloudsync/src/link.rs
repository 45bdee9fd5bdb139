//! The conversation with the daemon: one connection, made again whenever it breaks.
//!
//! The newest policy is published after every connect and whenever it changes; the daemon
//! answers a policy it has with the generation it has. What the other tasks have to say goes
//! through a queue and is lost with a connection: each of them notices and says it again.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ipc::control::{Adopted, Document, Event, Hello, Message, Reply, Request};
use ipc::framing::{self, Decoder, FramingError, MESSAGE_BYTES_MAX, PUBLISH_BYTES_MAX};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::assemble::Publication;
use crate::schedule::Backoff;

/// How long the daemon may take to answer, or to take a message.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Messages other tasks may have waiting. Beyond it they wait too.
pub(crate) const QUEUE: usize = 256;

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("connecting to {path}")]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("talking to the daemon")]
    Framing(#[from] FramingError),
    #[error("the daemon closed the connection")]
    Closed,
    #[error("the daemon did not answer within {ANSWER_TIME:?}")]
    Silent,
    #[error("the daemon refuses: {0}")]
    Refused(String),
    #[error("the daemon answered something else than was asked: {0}")]
    Unexpected(String),
}

/// How the conversation stands, for the other tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// Counts connections; 0 before the first.
    pub(crate) connection: u64,
    /// Whether there is one now.
    pub(crate) connected: bool,
    /// The appliance's name, once the daemon has said it.
    pub(crate) appliance: Option<String>,
    /// What the daemon enforces.
    pub(crate) adopted: Option<Adopted>,
    /// Whether it has said, since it was started, that a policy's names are known.
    pub(crate) primed: bool,
}

/// The task that talks to the daemon.
#[derive(Debug)]
pub(crate) struct Link {
    /// The daemon's socket.
    pub(crate) path: PathBuf,
    /// The newest policy.
    pub(crate) policy: watch::Receiver<Option<Rc<Publication>>>,
    /// What others have to say.
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Where clients nobody knows are reported.
    pub(crate) unknown: mpsc::Sender<IpAddr>,
    /// How it stands.
    pub(crate) state: watch::Sender<LinkState>,
}

impl Link {
    /// Talks for ever.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::starting_at(Duration::from_millis(100), Duration::from_secs(2));
        let mut complained = false;
        loop {
            let before = self.state.borrow().connection;
            let Err(error) = self.converse().await else {
                return;
            };
            self.state.send_modify(|state| state.connected = false);
            if self.state.borrow().connection > before {
                backoff.reset();
                complained = false;
            }
            if !complained {
                tracing::warn!(
                    error = crate::chain(&error),
                    "no conversation with the daemon; trying again"
                );
                complained = true;
            }
            sleep(backoff.after_failure()).await;
        }
    }

    /// One connection, from greeting to its end. `Ok` when nobody is left to talk for.
    async fn converse(&mut self) -> Result<(), LinkError> {
        let mut wire = Wire::connect(&self.path).await?;
        let program = concat!("postern-cloudsync ", env!("CARGO_PKG_VERSION"));
        wire.send(&Request::Hello(Hello::new(program, true)))
            .await?;
        self.greeted(&mut wire).await?;
        self.policy.mark_changed();
        let mut asked = Asked::default();
        loop {
            tokio::select! {
                changed = self.policy.changed(), if !asked.is_publishing() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let policy = self.policy.borrow_and_update().clone();
                    if let Some(policy) = policy {
                        wire.publish(&policy).await?;
                        asked.push(Question::Publication);
                    }
                }
                request = self.requests.recv(), if asked.has_room() => {
                    let Some(request) = request else { return Ok(()) };
                    wire.send(&request).await?;
                    asked.push(Question::Note);
                }
                message = wire.receive() => self.heard(message?, &mut asked)?,
                () = asked.overdue() => return Err(LinkError::Silent),
            }
        }
    }

    /// Waits for the welcome.
    async fn greeted(&self, wire: &mut Wire) -> Result<(), LinkError> {
        let message = timeout(ANSWER_TIME, wire.receive())
            .await
            .map_err(|_| LinkError::Silent)??;
        match message {
            Message::Reply(Reply::Welcome(welcome)) => {
                tracing::info!(
                    daemon = welcome.program,
                    appliance = welcome.appliance,
                    "talking to the daemon"
                );
                self.state.send_modify(|state| {
                    state.connection += 1;
                    state.connected = true;
                    state.appliance = Some(welcome.appliance);
                    state.adopted = welcome.policy;
                });
                Ok(())
            }
            Message::Reply(Reply::Refused { why }) => Err(LinkError::Refused(why)),
            other @ (Message::Reply(_) | Message::Event(_)) => {
                Err(LinkError::Unexpected(format!("{other:?}")))
            }
        }
    }

    /// Takes note of one message.
    fn heard(&self, message: Message, asked: &mut Asked) -> Result<(), LinkError> {
        let reply = match message {
            Message::Event(Event::Primed { generation }) => {
                tracing::info!(generation, "primed");
                self.state.send_modify(|state| state.primed = true);
                return Ok(());
            }
            Message::Event(Event::UnknownClient { address }) => {
                // A full queue loses the report; the daemon makes it again while packets come.
                if let Err(error) = self.unknown.try_send(address) {
                    tracing::debug!(%address, %error, "not looked up");
                }
                return Ok(());
            }
            Message::Reply(reply) => reply,
        };
        match (asked.answered(), reply) {
            (Some(Question::Publication), Reply::Adopted(adopted)) => {
                tracing::info!(adopted.generation, adopted.policy_id, "adopted");
                self.state
                    .send_modify(|state| state.adopted = Some(adopted));
                Ok(())
            }
            (Some(Question::Publication), Reply::Rejected(rejected)) => {
                tracing::error!(
                    rejected.place,
                    rejected.why,
                    "the daemon rejects this policy and keeps the last one"
                );
                Ok(())
            }
            (Some(Question::Note), Reply::Noted) => Ok(()),
            (Some(_), Reply::Refused { why }) => Err(LinkError::Refused(why)),
            (_, other) => Err(LinkError::Unexpected(format!("{other:?}"))),
        }
    }
}

/// What was sent and is not yet answered.
#[derive(Debug, Default)]
struct Asked {
    questions: VecDeque<(Question, Option<Instant>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Publication,
    Note,
}

impl Asked {
    fn push(&mut self, question: Question) {
        self.questions
            .push_back((question, Instant::now().checked_add(ANSWER_TIME)));
    }

    fn answered(&mut self) -> Option<Question> {
        self.questions.pop_front().map(|(question, _)| question)
    }

    fn is_publishing(&self) -> bool {
        self.questions
            .iter()
            .any(|(question, _)| *question == Question::Publication)
    }

    fn has_room(&self) -> bool {
        self.questions.len() < QUEUE
    }

    /// Ends when the oldest question should have been answered; never without one.
    async fn overdue(&self) {
        match self.questions.front() {
            Some((_, Some(deadline))) => tokio::time::sleep_until(*deadline).await,
            Some((_, None)) | None => std::future::pending().await,
        }
    }
}

/// A connected socket and what came through it.
#[derive(Debug)]
struct Wire {
    stream: UnixStream,
    decoder: Decoder,
    chunk: Vec<u8>,
}

impl Wire {
    async fn connect(path: &Path) -> Result<Self, LinkError> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| LinkError::Connect {
                path: path.to_owned(),
                source,
            })?;
        let decoder = Decoder::new(MESSAGE_BYTES_MAX);
        Ok(Self {
            stream,
            decoder,
            chunk: vec![0; 16 << 10],
        })
    }

    async fn send(&mut self, request: &Request) -> Result<(), LinkError> {
        let bytes = framing::encode(request, PUBLISH_BYTES_MAX)?;
        let sent = timeout(ANSWER_TIME, self.stream.write_all(&bytes)).await;
        sent.map_err(|_| LinkError::Silent)?
            .map_err(FramingError::Io)?;
        Ok(())
    }

    async fn publish(&mut self, policy: &Publication) -> Result<(), LinkError> {
        tracing::info!(
            policy_id = policy.policy_id,
            bytes = policy.json.len(),
            "publishing"
        );
        let document = Document::from_json(policy.json.clone()).map_err(FramingError::Body)?;
        self.send(&Request::Publish(document)).await
    }

    /// The next message. Nothing is lost when the wait for it is given up.
    async fn receive(&mut self) -> Result<Message, LinkError> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(message);
            }
            match self
                .stream
                .read(&mut self.chunk)
                .await
                .map_err(FramingError::Io)?
            {
                0 => {
                    self.decoder.finish()?;
                    return Err(LinkError::Closed);
                }
                count => self
                    .decoder
                    .push(self.chunk.get(..count).unwrap_or_default()),
            }
        }
    }
}
