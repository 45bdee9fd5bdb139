//! The ClientHello (RFC 8446, section 4.1.2; RFC 5246, section 7.4.1.2).

use std::sync::Arc;

use policy::Reason;
use smallvec::SmallVec;

use super::extension::{self, Offer};
use super::record::{Collected, Message, first_message};
use super::server_hello::ServerHello;
use super::server_name::ServerName;
use super::version::{TlsVersion, Versions};
use super::{Limits, cross_check, group, is_grease};
use crate::progress::Progress;
use crate::reader::Reader;

/// Message type of a ClientHello.
const CLIENT_HELLO: u8 = 1;

/// Whether a hello carries Encrypted Client Hello.
///
/// A client that knows no ECH keys sends the extension all the same, filled with noise, and
/// by design nobody but the server can tell (RFC 9849, section 6.2). `Present` therefore
/// means "may hide another name", and policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ech {
    /// Neither `encrypted_client_hello` nor the older `encrypted_server_name`.
    Absent,
    /// One of them.
    Present,
}

/// Groups with a key share; as many as clients send stand in the hello itself.
pub type KeyShares = SmallVec<[u16; 4]>;
/// Supported groups, likewise.
pub type Groups = SmallVec<[u16; 12]>;
/// Cipher suites, likewise.
pub type CipherSuites = SmallVec<[u16; 32]>;
/// A session id.
pub type SessionId = SmallVec<[u8; 32]>;

/// A whole, well-formed ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The name asked for.
    pub server_name: ServerName,
    /// Versions offered: `supported_versions`, or everything up to `legacy_version`.
    pub versions: Versions,
    /// Version field of the message itself, which a server older than TLS 1.3 goes by.
    pub legacy_version: TlsVersion,
    /// Whether an inner hello may be hidden in it.
    pub ech: Ech,
    /// Groups with a key share, in the client's order, GREASE left out.
    pub key_shares: KeyShares,
    /// Groups supported, in the client's order, GREASE left out.
    pub groups: Groups,
    /// Cipher suites, in the client's order, GREASE left out.
    pub cipher_suites: CipherSuites,
    /// Session id, which a TLS 1.3 server echoes; at most 32 bytes.
    pub session_id: SessionId,
    /// The client's random: the same in the second hello after a HelloRetryRequest.
    pub random: [u8; 32],
    /// Whether data encrypted under an earlier session may follow at once.
    pub early_data: bool,
    /// Stream bytes read, record headers included: what follows starts a new record.
    pub bytes: usize,
    /// What a HelloRetryRequest chose, when this is the hello that answers one.
    pub(super) retry: Option<Retry>,
}

/// What a HelloRetryRequest fixed for the rest of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) cipher: u16,
    pub(super) group: Option<u16>,
}

impl ClientHello {
    /// Greatest published version offered; `None` when every one is unknown.
    #[must_use]
    pub fn max_version(&self) -> Option<TlsVersion> {
        self.versions.max()
    }

    /// Whether a key share for a post-quantum group is in it.
    #[must_use]
    pub fn is_pqc_offered(&self) -> bool {
        has_post_quantum(&self.key_shares)
    }

    /// Why no rule by name can admit this hello, if none can: an old version first, then the
    /// name. ECH is not a fault here, policy decides about it.
    ///
    /// The hello is well formed all the same, so that an `address` rule or see-thru may still
    /// let it pass and have the server's answer judged.
    #[must_use]
    pub fn fault(&self) -> Option<Reason> {
        if self.max_version() < Some(TlsVersion::TLS1_2) {
            return Some(Reason::TlsVersionClient);
        }
        self.server_name.fault()
    }

    /// What the log says of it.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen {
            server_name: self.server_name.shared_text(),
            version: self.max_version(),
            pqc: self.is_pqc_offered(),
        }
    }

    /// Whether this hello is the answer to a HelloRetryRequest.
    #[must_use]
    pub const fn is_second(&self) -> bool {
        self.retry.is_some()
    }
}

/// A hello that is refused as malformed, with what could be read of it for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The reason, one of DESIGN.md, section 5.1.
    pub reason: Reason,
    /// What was understood before the fault.
    pub seen: Box<Seen>,
}

/// What the log can say of a hello, malformed or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Text of the server name, escaped and capped at 253 bytes; empty when not reached.
    pub server_name: Arc<str>,
    /// Greatest version offered, when known.
    pub version: Option<TlsVersion>,
    /// Whether a post-quantum key share was seen.
    pub pqc: bool,
}

impl From<Reason> for Rejected {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            seen: Box::default(),
        }
    }
}

/// Reads the ClientHello at the start of a client's stream.
///
/// Linear in the number of records until the message is whole, then once linear in its length.
#[must_use]
pub fn client_hello(stream: &[u8], limits: &Limits) -> Progress<ClientHello, Rejected> {
    match first_message(stream, CLIENT_HELLO, Reason::TlsMalformed, limits) {
        Collected::Incomplete => Progress::Incomplete,
        Collected::Refused(reason) => Progress::Refused(reason.into()),
        // A client sends nothing with its hello before it has an answer; a record that goes on
        // after it is how a second message is smuggled past a reader of first messages.
        Collected::Message(message) if message.record_left > 0 => {
            Progress::Refused(refused_after(&message))
        }
        Collected::Message(message) => match read(&message) {
            Ok(hello) => Progress::Complete(hello),
            Err(rejected) => Progress::Refused(rejected),
        },
    }
}

/// A record that goes on after its hello: `record_abuse`, with the hello's name for the log.
fn refused_after(message: &Message<'_>) -> Rejected {
    let seen = match read(message) {
        Ok(hello) => Box::new(hello.seen()),
        Err(rejected) => rejected.seen,
    };
    Rejected {
        reason: Reason::RecordAbuse,
        seen,
    }
}

/// Reads the second ClientHello, which answers a HelloRetryRequest.
///
/// `stream` starts at its first record. It must repeat the first hello but for what RFC 8446,
/// section 4.1.2 lets change; another name is `sni_multiple`.
#[must_use]
pub fn second_hello(
    stream: &[u8],
    first: &ClientHello,
    request: &ServerHello,
    limits: &Limits,
) -> Progress<ClientHello, Rejected> {
    match client_hello(stream, limits) {
        Progress::Complete(mut second) => match conflict(first, &second) {
            Some(reason) => Progress::Refused(Rejected {
                reason,
                seen: Box::new(second.seen()),
            }),
            None => {
                second.retry = Some(Retry {
                    cipher: request.cipher,
                    group: request.group,
                });
                Progress::Complete(second)
            }
        },
        Progress::Incomplete => Progress::Incomplete,
        Progress::Refused(rejected) => Progress::Refused(rejected),
    }
}

/// What differs between the two hellos of a retried handshake that must not.
fn conflict(first: &ClientHello, second: &ClientHello) -> Option<Reason> {
    if first.server_name != second.server_name {
        return Some(Reason::SniMultiple);
    }
    let repeated = first.random == second.random
        && first.legacy_version == second.legacy_version
        && first.versions == second.versions
        && first.session_id == second.session_id
        && first.cipher_suites == second.cipher_suites
        && first.ech == second.ech
        && !second.early_data;
    (!repeated).then_some(Reason::TlsMalformed)
}

/// Reads a whole message, then has `tls-parser` read it too.
fn read(message: &Message<'_>) -> Result<ClientHello, Rejected> {
    let malformed = || Rejected::from(Reason::TlsMalformed);
    let fixed = Fixed::read(&message.bytes).ok_or_else(malformed)?;
    let legacy = Versions::up_to(fixed.legacy_version).max();
    let mut offer = Offer::default();
    let offered = match extension::split(fixed.rest) {
        Some(extensions) => offer.read(&extensions),
        None => Err(Reason::TlsMalformed),
    };
    if let Err(reason) = offered {
        let version = offer.listed_versions.and_then(Versions::max).or(legacy);
        let seen = Box::new(Seen {
            server_name: offer.server_name.shared_text(),
            version,
            pqc: has_post_quantum(&offer.key_shares),
        });
        return Err(Rejected { reason, seen });
    }
    let hello = ClientHello {
        versions: offer.versions(fixed.legacy_version),
        server_name: offer.server_name,
        legacy_version: fixed.legacy_version,
        ech: if offer.ech { Ech::Present } else { Ech::Absent },
        key_shares: offer.key_shares,
        groups: offer.groups,
        cipher_suites: fixed.cipher_suites,
        session_id: SmallVec::from_slice(fixed.session_id),
        random: fixed.random,
        early_data: offer.early_data,
        bytes: message.end,
        retry: None,
    };
    if cross_check::client_hello(&message.bytes, &hello) {
        return Ok(hello);
    }
    let mut seen = hello.seen();
    seen.version = seen.version.or(legacy);
    Err(Rejected {
        reason: Reason::TlsMalformed,
        seen: Box::new(seen),
    })
}

fn has_post_quantum(groups: &[u16]) -> bool {
    groups.iter().any(|&group| group::is_post_quantum(group))
}

/// The part of a ClientHello that has been the same since SSL 3.0.
struct Fixed<'a> {
    legacy_version: TlsVersion,
    random: [u8; 32],
    session_id: &'a [u8],
    /// GREASE left out.
    cipher_suites: CipherSuites,
    rest: Reader<'a>,
}

impl<'a> Fixed<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(message);
        reader.u8()?;
        let mut body = reader.vec24().filter(|_| reader.is_empty())?;
        let legacy_version = TlsVersion(body.u16()?);
        let random = body.array()?;
        let session_id = body.vec8().filter(|id| id.remaining() <= 32)?.rest();
        let suites = body.vec16()?.u16s().filter(|list| list.len() > 0)?;
        let cipher_suites = suites.filter(|&suite| !is_grease(suite)).collect();
        // The null method is compulsory (RFC 5246, section 7.4.1.2).
        body.vec8().filter(|methods| methods.rest().contains(&0))?;
        Some(Self {
            legacy_version,
            random,
            session_id,
            cipher_suites,
            rest: body,
        })
    }
}
