//! The server's first answer: ServerHello, HelloRetryRequest or an alert (RFC 8446, sections
//! 4.1.3, 4.1.4 and 6; RFC 5246, section 7.4.1.3).

use policy::Reason;

use super::client_hello::ClientHello;
use super::extension::{self, Extensions, KEY_SHARE, SUPPORTED_VERSIONS};
use super::record::{ALERT, Collected, HEADER_BYTES, Header, Message, first_message};
use super::version::TlsVersion;
use super::{Limits, cross_check, group};
use crate::progress::Progress;
use crate::reader::Reader;

/// Message type of a ServerHello.
const SERVER_HELLO: u8 = 2;
/// SHA-256 of "HelloRetryRequest": a ServerHello with this random is one (RFC 8446, section 4.1.3).
const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
/// End of the random of a server that was brought down to TLS 1.2 (RFC 8446, section 4.1.3).
const DOWNGRADED_TO_1_2: &[u8] = b"DOWNGRD\x01";
/// The same, brought down to TLS 1.1 or below.
const DOWNGRADED_BELOW_1_2: &[u8] = b"DOWNGRD\x00";
/// TLS_EMPTY_RENEGOTIATION_INFO_SCSV and TLS_FALLBACK_SCSV: signals no server may select.
const SIGNALLING_SUITES: [u16; 2] = [0x00ff, 0x5600];
/// Warnings a server may send before its hello (RFC 6066, section 3: unrecognized_name).
const WARNINGS_MAX: usize = 4;
/// Level of an alert that leaves the connection open.
pub(super) const WARNING: u8 = 1;
/// Warning and fatal (RFC 8446, section 6).
pub(super) const ALERT_LEVELS: [u8; 2] = [WARNING, 2];
/// The sender will send nothing more.
pub(super) const CLOSE_NOTIFY: u8 = 0;

/// How a server answers a ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAnswer {
    /// It goes on with the handshake.
    Hello(ServerHello),
    /// It gives up, in clear. The alert may pass; nothing may follow it.
    Alert(Alert),
}

impl ServerAnswer {
    /// Stream bytes the answer takes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        match self {
            Self::Hello(hello) => hello.bytes,
            Self::Alert(alert) => alert.bytes,
        }
    }
}

/// An alert in clear (RFC 8446, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// Number of the alert: 40 is handshake_failure, 70 protocol_version, 112 unrecognized_name.
    pub description: u8,
    /// Stream bytes up to its end.
    pub bytes: usize,
}

/// A whole, well-formed ServerHello that fits the hello it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerHello {
    /// The version selected: TLS 1.2 or 1.3.
    pub version: TlsVersion,
    /// The cipher suite selected, one of the client's.
    pub cipher: u16,
    /// Whether this is a HelloRetryRequest, which a second ClientHello must answer.
    pub is_retry: bool,
    /// The key-exchange group selected, where it stands in clear here: TLS 1.3 with a key share.
    pub group: Option<u16>,
    /// Stream bytes up to the end of the message, record headers included.
    pub bytes: usize,
    /// Bytes of the record the message ended in that follow it: TLS 1.2 only.
    pub(super) record_left: usize,
}

impl ServerHello {
    /// Whether the group selected is post-quantum.
    #[must_use]
    pub fn is_pqc(&self) -> bool {
        self.group.is_some_and(group::is_post_quantum)
    }
}

/// Reads the server's answer to `client` at the start of the server's stream.
///
/// For the answer to a second hello the stream starts after the HelloRetryRequest and the
/// change_cipher_spec that may follow it. Warnings in front of the hello are passed over.
#[must_use]
pub fn server_hello(
    stream: &[u8],
    client: &ClientHello,
    limits: &Limits,
) -> Progress<ServerAnswer> {
    let mut skipped = 0;
    for _ in 0..=WARNINGS_MAX {
        let rest = stream.get(skipped..).unwrap_or_default();
        if rest.first() != Some(&ALERT) {
            return first_hello(rest, skipped, client, limits);
        }
        match alert(rest) {
            Err(reason) => return Progress::Refused(reason),
            Ok(None) => return Progress::Incomplete,
            Ok(Some((WARNING, description))) if description != CLOSE_NOTIFY => {
                skipped += HEADER_BYTES + 2;
            }
            Ok(Some((_, description))) => {
                let bytes = skipped + HEADER_BYTES + 2;
                return Progress::Complete(ServerAnswer::Alert(Alert { description, bytes }));
            }
        }
    }
    Progress::Refused(Reason::ServerNotTls)
}

/// Level and description of an alert record, once it is whole.
fn alert(record: &[u8]) -> Result<Option<(u8, u8)>, Reason> {
    let Some(header) = Header::read(record).map_err(|_| Reason::ServerNotTls)? else {
        return Ok(None);
    };
    if header.length != 2 {
        return Err(Reason::ServerNotTls);
    }
    let mut body = Reader::new(record.get(HEADER_BYTES..).unwrap_or_default());
    let level = body.u8();
    if level.is_some_and(|level| !ALERT_LEVELS.contains(&level)) {
        return Err(Reason::ServerNotTls);
    }
    Ok(level.zip(body.u8()))
}

fn first_hello(
    stream: &[u8],
    skipped: usize,
    client: &ClientHello,
    limits: &Limits,
) -> Progress<ServerAnswer> {
    match first_message(stream, SERVER_HELLO, Reason::ServerNotTls, limits) {
        Collected::Incomplete => Progress::Incomplete,
        // The very first header decides whether this is TLS at all.
        Collected::Refused(Reason::TlsMalformed) => Progress::Refused(Reason::ServerNotTls),
        Collected::Refused(reason) => Progress::Refused(reason),
        Collected::Message(message) => match read(&message, client) {
            Ok(mut hello) => {
                hello.bytes += skipped;
                Progress::Complete(ServerAnswer::Hello(hello))
            }
            Err(reason) => Progress::Refused(reason),
        },
    }
}

fn read(message: &Message<'_>, client: &ClientHello) -> Result<ServerHello, Reason> {
    let fixed = Fixed::read(&message.bytes).ok_or(Reason::TlsMalformed)?;
    let extensions = extension::split(fixed.rest).ok_or(Reason::TlsMalformed)?;
    if extension::has_duplicates(extensions.clone(), None) {
        return Err(Reason::TlsMalformed);
    }
    let is_retry = fixed.random == RETRY_RANDOM;
    let selected = Selected::read(extensions, is_retry).ok_or(Reason::TlsMalformed)?;
    let hello = ServerHello {
        version: selected.version.unwrap_or(fixed.legacy_version),
        cipher: fixed.cipher,
        is_retry,
        group: selected.group,
        bytes: message.end,
        record_left: message.record_left,
    };
    judge_version(&hello, &fixed, &selected, client)?;
    judge_parameters(&hello, &fixed, client)?;
    if !cross_check::server_hello(&message.bytes, &hello) {
        return Err(Reason::TlsMalformed);
    }
    Ok(hello)
}

/// A server brought down is reported as such, before its old version is.
fn judge_version(
    hello: &ServerHello,
    fixed: &Fixed<'_>,
    selected: &Selected,
    client: &ClientHello,
) -> Result<(), Reason> {
    let offered_1_3 = client.versions.contains(TlsVersion::TLS1_3);
    let offered_1_2 = offered_1_3 || client.versions.contains(TlsVersion::TLS1_2);
    let below_1_2 = hello.version < TlsVersion::TLS1_2;
    let signalled = (fixed.random.ends_with(DOWNGRADED_TO_1_2) && offered_1_3)
        || (fixed.random.ends_with(DOWNGRADED_BELOW_1_2)
            && offered_1_2
            && (offered_1_3 || below_1_2));
    if signalled && hello.version < TlsVersion::TLS1_3 {
        return Err(Reason::TlsDowngrade);
    }
    if below_1_2 {
        return Err(Reason::TlsVersionServer);
    }
    // RFC 8446, section 4.2.1: the extension selects 1.3 and nothing older, and the message's own
    // field then says 1.2; without it, 1.3 cannot be selected.
    let consistent = match selected.version {
        Some(version) => {
            version == TlsVersion::TLS1_3 && fixed.legacy_version == TlsVersion::TLS1_2
        }
        None => fixed.legacy_version == TlsVersion::TLS1_2 && !hello.is_retry,
    };
    if consistent && client.versions.contains(hello.version) {
        Ok(())
    } else {
        Err(Reason::TlsMalformed)
    }
}

/// Suite, compression, session id and group must answer what was offered.
fn judge_parameters(
    hello: &ServerHello,
    fixed: &Fixed<'_>,
    client: &ClientHello,
) -> Result<(), Reason> {
    let is_1_3 = hello.version == TlsVersion::TLS1_3;
    let suite_fits = client.cipher_suites.contains(&hello.cipher)
        && !SIGNALLING_SUITES.contains(&hello.cipher)
        && is_tls13_suite(hello.cipher) == is_1_3;
    let echo_fits = !is_1_3 || fixed.session_id == &*client.session_id;
    let group_fits = match (hello.group, hello.is_retry) {
        (None, _) => true,
        (Some(group), false) => client.key_shares.contains(&group),
        (Some(group), true) => {
            client.groups.contains(&group) && !client.key_shares.contains(&group)
        }
    };
    // TLS 1.3 changes keys here: a record that goes on would be half in clear.
    let aligned = !is_1_3 || hello.record_left == 0;
    let follows_retry = match client.retry {
        None => true,
        Some(retry) => {
            is_1_3
                && !hello.is_retry
                && hello.cipher == retry.cipher
                && (retry.group.is_none() || hello.group.is_none() || hello.group == retry.group)
        }
    };
    if suite_fits && echo_fits && group_fits && aligned && follows_retry && fixed.compression == 0 {
        Ok(())
    } else {
        Err(Reason::TlsMalformed)
    }
}

/// Suites that TLS 1.3 alone uses: RFC 8446 and AEGIS, ShangMi (RFC 8998), integrity-only
/// (RFC 9150), GOST (RFC 9367).
const fn is_tls13_suite(suite: u16) -> bool {
    matches!(suite, 0x1301..=0x1307 | 0x00c6 | 0x00c7 | 0xc0b4 | 0xc0b5 | 0xc103..=0xc106)
}

/// What the extensions of a ServerHello select.
struct Selected {
    version: Option<TlsVersion>,
    group: Option<u16>,
}

impl Selected {
    fn read(extensions: Extensions<'_>, is_retry: bool) -> Option<Self> {
        let mut selected = Self {
            version: None,
            group: None,
        };
        for extension in extensions {
            let mut content = Reader::new(extension.content);
            match extension.kind {
                SUPPORTED_VERSIONS => selected.version = Some(TlsVersion(content.u16()?)),
                KEY_SHARE => {
                    selected.group = Some(content.u16()?);
                    // A HelloRetryRequest names the group alone.
                    if !is_retry && content.vec16()?.is_empty() {
                        return None;
                    }
                }
                _ => continue,
            }
            if !content.is_empty() {
                return None;
            }
        }
        Some(selected)
    }
}

/// The part of a ServerHello that has been the same since SSL 3.0.
struct Fixed<'a> {
    legacy_version: TlsVersion,
    random: [u8; 32],
    session_id: &'a [u8],
    cipher: u16,
    compression: u8,
    rest: Reader<'a>,
}

impl<'a> Fixed<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(message);
        reader.u8()?;
        let mut body = reader.vec24().filter(|_| reader.is_empty())?;
        Some(Self {
            legacy_version: TlsVersion(body.u16()?),
            random: body.array()?,
            session_id: body.vec8().filter(|id| id.remaining() <= 32)?.rest(),
            cipher: body.u16()?,
            compression: body.u8()?,
            rest: body,
        })
    }
}
