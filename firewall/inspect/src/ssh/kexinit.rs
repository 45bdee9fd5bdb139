//! KEXINIT: the algorithms each side is willing to use (RFC 4253, section 7.1).

use crate::reader::Reader;

/// Message number.
pub(super) const KEXINIT: u8 = 20;
/// Greatest number of names in one list; OpenSSH sends about fifteen.
const NAMES_MAX: usize = 256;
/// Greatest algorithm name (RFC 4251, section 6).
const NAME_MAX: usize = 64;
/// Entries of the key exchange list that announce an extension and name no algorithm
/// (RFC 8308; OpenSSH's strict key exchange).
const SIGNALS: [&str; 6] = [
    "ext-info-c",
    "ext-info-s",
    "kex-strict-c",
    "kex-strict-s",
    "kex-strict-c-v00@openssh.com",
    "kex-strict-s-v00@openssh.com",
];

/// The lists of one side that decide the key exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KexInit {
    /// Key exchange methods, best first, signals included.
    pub key_exchange: Box<[Box<str>]>,
    /// Host key algorithms, best first.
    pub host_key: Box<[Box<str>]>,
    /// Whether the packet after this one is a guess at the other side's choice.
    pub first_packet_follows: bool,
}

impl KexInit {
    /// Reads the payload of a KEXINIT packet, its message number included.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        reader.u8().filter(|&number| number == KEXINIT)?;
        reader.bytes(16)?;
        let key_exchange = name_list(&mut reader)?;
        let host_key = name_list(&mut reader)?;
        // Ciphers, MACs, compression and languages, each way: not ours to judge, but they must
        // be lists.
        for _ in 0..8 {
            name_list(&mut reader)?;
        }
        let first_packet_follows = reader.u8()? != 0;
        let reserved = reader.u32()?;
        let legal =
            reserved == 0 && reader.is_empty() && !key_exchange.is_empty() && !host_key.is_empty();
        legal.then_some(Self {
            key_exchange,
            host_key,
            first_packet_follows,
        })
    }
}

/// A name-list (RFC 4251, section 5): printable ASCII names between single commas.
fn name_list(reader: &mut Reader<'_>) -> Option<Box<[Box<str>]>> {
    let bytes = reader.vec32()?.rest();
    if bytes.is_empty() {
        return Some(Box::default());
    }
    let mut names: Vec<Box<str>> = Vec::new();
    for name in bytes.split(|&byte| byte == b',') {
        let legal = (1..=NAME_MAX).contains(&name.len())
            && name.iter().all(|byte| matches!(byte, 0x21..=0x7e))
            && names.len() < NAMES_MAX;
        names.push(str::from_utf8(name).ok().filter(|_| legal)?.into());
    }
    Some(names.into_boxed_slice())
}

/// What two KEXINITs agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The key exchange method.
    pub key_exchange: Box<str>,
    /// The host key algorithm.
    pub host_key: Box<str>,
}

/// The first of the client's algorithms that the server knows too (RFC 4253, section 7.1).
///
/// `None` when there is none: the sides will disconnect.
#[must_use]
pub fn negotiate(client: &KexInit, server: &KexInit) -> Option<Negotiated> {
    let first = |ours: &[Box<str>], theirs: &[Box<str>]| {
        ours.iter()
            .find(|name| !SIGNALS.contains(&&***name) && theirs.contains(name))
            .cloned()
    };
    Some(Negotiated {
        key_exchange: first(&client.key_exchange, &server.key_exchange)?,
        host_key: first(&client.host_key, &server.host_key)?,
    })
}
