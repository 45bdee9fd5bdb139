//! Questions over TCP: two bytes of length before each message (RFC 1035, section 4.2.2).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Event, ReplyTo};

/// Serves a listener until nobody takes its questions any more.
pub(super) async fn serve(
    listener: TcpListener,
    resolvers: Vec<IpNet>,
    events: mpsc::Sender<Event>,
) {
    let mut conversations = JoinSet::new();
    let mut held: HashMap<IpAddr, usize> = HashMap::new();
    while !events.is_closed() {
        tokio::select! {
            Some(ended) = conversations.join_next() => {
                // A conversation never panics; were it to, its source keeps one place less.
                if let Ok(source) = ended && let Some(count) = held.get_mut(&source) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        held.remove(&source);
                    }
                }
            }
            accepted = listener.accept() => {
                let Ok((stream, from)) = accepted else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                let most = if resolvers.iter().any(|net| net.contains(&from.ip())) {
                    PER_RESOLVER_MAX
                } else {
                    PER_SOURCE_MAX
                };
                let count = held.get(&from.ip()).copied().unwrap_or(0);
                if count >= most || conversations.len() >= CONVERSATIONS_MAX {
                    continue;
                }
                held.insert(from.ip(), count.saturating_add(1));
                let events = events.clone();
                conversations.spawn(async move {
                    // Whoever is slow or gone has no claim on an answer.
                    drop(converse(stream, from, &events).await);
                    from.ip()
                });
            }
        }
    }
}

async fn converse(
    mut stream: TcpStream,
    from: SocketAddr,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        timeout(IDLE, stream.read_exact(&mut length)).await??;
        let length = usize::from(u16::from_be_bytes(length));
        if length > QUESTION_BYTES_MAX {
            return Ok(());
        }
        let mut bytes = vec![0; length];
        timeout(IDLE, stream.read_exact(&mut bytes)).await??;
        let (reply, answer) = oneshot::channel();
        let event = Event::Message {
            bytes,
            from,
            reply: ReplyTo::Stream(reply),
        };
        if events.send(event).await.is_err() {
            return Ok(());
        }
        // Left without an answer, a connection is of no use to anybody.
        let Ok(answer) = answer.await else {
            return Ok(());
        };
        let Ok(length) = u16::try_from(answer.len()) else {
            return Ok(());
        };
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(&answer);
        timeout(IDLE, stream.write_all(&message)).await??;
    }
}

/// How long a connection may stand still.
const IDLE: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const CONVERSATIONS_MAX: usize = 512;
const PER_SOURCE_MAX: usize = 16;
const PER_RESOLVER_MAX: usize = 256;
/// A question has one name of 255 bytes at most, and some options.
const QUESTION_BYTES_MAX: usize = 4_096;
