//! A second reading of every hello, by the general parser.
//!
//! Our own walk decides what is legal. `tls-parser` then reads the same bytes, and if it sees
//! another name, version, suite or key share, two readers of this hello exist and a server may
//! be a third: it is refused.

use tls_parser::{
    TlsClientHelloContents, TlsExtension, TlsMessage, TlsMessageHandshake, TlsServerHelloContents,
    parse_tls_extension, parse_tls_message_handshake,
};

use super::extension::{KEY_SHARE, SERVER_NAME, SUPPORTED_VERSIONS};
use super::version::Versions;
use super::{ClientHello, ServerHello, TlsVersion, is_grease};
use crate::reader::Reader;

/// Whether `tls-parser` reads `message` as our walk read it into `hello`.
pub(super) fn client_hello(message: &[u8], hello: &ClientHello) -> bool {
    let Ok((rest, TlsMessage::Handshake(TlsMessageHandshake::ClientHello(read)))) =
        parse_tls_message_handshake(message)
    else {
        return false;
    };
    let suites = read
        .ciphers
        .iter()
        .map(|suite| suite.0)
        .filter(|&suite| !is_grease(suite));
    rest.is_empty()
        && read.version.0 == hello.legacy_version.0
        && read.random == hello.random
        && read.session_id.unwrap_or_default() == &*hello.session_id
        && suites.eq(hello.cipher_suites.iter().copied())
        && client_extensions(&read, hello)
}

fn client_extensions(read: &TlsClientHelloContents<'_>, hello: &ClientHello) -> bool {
    let mut names = Names::None;
    let mut versions = None;
    let mut key_share: &[u8] = &[];
    let mut block = Reader::new(read.ext.unwrap_or_default());
    while !block.is_empty() {
        let Some(extension) = next_extension(&mut block) else {
            return false;
        };
        if !matters(extension) {
            continue;
        }
        // A server_name list that our walk already calls malformed may be unreadable here.
        let Ok((rest, parsed)) = parse_tls_extension(extension) else {
            return hello.server_name.name().is_none();
        };
        if !rest.is_empty() {
            return false;
        }
        note(parsed, &mut names, &mut versions, &mut key_share);
    }
    let claimed = hello
        .server_name
        .name()
        .map(|name| name.as_str().as_bytes());
    let named = match (claimed, names) {
        (Some(ours), Names::One(theirs)) => ours.eq_ignore_ascii_case(theirs),
        (Some(_), Names::None | Names::Several) => false,
        (None, _) => true,
    };
    let offered = versions.unwrap_or_else(|| Versions::up_to(hello.legacy_version));
    named && offered == hello.versions && key_shares(key_share).eq(hello.key_shares.iter().copied())
}

/// The server names that `tls-parser` sees.
#[derive(Clone, Copy)]
enum Names<'a> {
    None,
    One(&'a [u8]),
    Several,
}

fn note<'a>(
    parsed: TlsExtension<'a>,
    names: &mut Names<'a>,
    versions: &mut Option<Versions>,
    key_share: &mut &'a [u8],
) {
    if let TlsExtension::SNI(list) = parsed {
        for (_, name) in list {
            *names = match names {
                Names::None => Names::One(name),
                Names::One(_) | Names::Several => Names::Several,
            };
        }
    } else if let TlsExtension::SupportedVersions(list) = parsed {
        *versions = Some(Versions::listed(list.iter().map(|version| version.0)));
    } else if let TlsExtension::KeyShare(content) = parsed {
        *key_share = content;
    }
}

/// Type, length and content of the next extension, as one slice.
fn next_extension<'a>(block: &mut Reader<'a>) -> Option<&'a [u8]> {
    let whole = block.rest();
    block.u16()?;
    let length = block.vec16()?.remaining();
    whole.get(..length + 4)
}

fn matters(extension: &[u8]) -> bool {
    let kind = Reader::new(extension).u16();
    kind.is_some_and(|kind| matches!(kind, SERVER_NAME | SUPPORTED_VERSIONS | KEY_SHARE))
}

/// Groups in the content of a client's key_share, which `tls-parser` leaves as it stands; GREASE left out.
fn key_shares(content: &[u8]) -> impl Iterator<Item = u16> {
    let mut list = Reader::new(content).vec16().unwrap_or(Reader::new(&[]));
    let groups = std::iter::from_fn(move || {
        let group = list.u16()?;
        let _share = list.vec16()?;
        Some(group)
    });
    groups.filter(|&group| !is_grease(group))
}

/// Whether `tls-parser` reads `message` as our walk read it into `hello`.
pub(super) fn server_hello(message: &[u8], hello: &ServerHello) -> bool {
    let Ok((rest, TlsMessage::Handshake(TlsMessageHandshake::ServerHello(read)))) =
        parse_tls_message_handshake(message)
    else {
        return false;
    };
    rest.is_empty()
        && read.cipher.0 == hello.cipher
        && read.compression.0 == 0
        && server_version(&read) == Some(hello.version)
}

fn server_version(read: &TlsServerHelloContents<'_>) -> Option<TlsVersion> {
    let mut block = Reader::new(read.ext.unwrap_or_default());
    while !block.is_empty() {
        let extension = next_extension(&mut block)?;
        if Reader::new(extension).u16() == Some(SUPPORTED_VERSIONS) {
            let selected = Reader::new(extension.get(4..)?).u16()?;
            return Some(TlsVersion(selected));
        }
    }
    Some(TlsVersion(read.version.0))
}
