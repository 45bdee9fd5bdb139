//! Hellos built field by field, so that each test breaks one thing.

use crate::progress::Progress;
use crate::tls::{ClientHello, Limits, Rejected, client_hello};

pub(super) const HOST: &str = "api.allowed.example";

/// A ClientHello in parts; the default is a plain TLS 1.3 one for [`HOST`].
#[derive(Clone)]
pub(super) struct Client {
    pub(super) legacy_version: u16,
    pub(super) session_id: Vec<u8>,
    pub(super) suites: Vec<u16>,
    pub(super) compression: Vec<u8>,
    pub(super) extensions: Vec<(u16, Vec<u8>)>,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            legacy_version: 0x0303,
            session_id: vec![7; 32],
            suites: vec![0x1301, 0xc02f],
            compression: vec![0],
            extensions: vec![
                (0, server_name(HOST.as_bytes())),
                (10, u16s16(&[29, 24])),
                (43, u16s8(&[0x0304, 0x0303])),
                (51, key_shares(&[29])),
            ],
        }
    }
}

impl Client {
    /// The default, to be changed field by field.
    pub(super) fn plain() -> Self {
        Self::default()
    }

    pub(super) fn with(mut self, kind: u16, content: Vec<u8>) -> Self {
        match self.extensions.iter_mut().find(|(known, _)| *known == kind) {
            Some(slot) => slot.1 = content,
            None => self.extensions.push((kind, content)),
        }
        self
    }

    pub(super) fn without(mut self, kind: u16) -> Self {
        self.extensions.retain(|(known, _)| *known != kind);
        self
    }

    pub(super) fn and(mut self, kind: u16, content: Vec<u8>) -> Self {
        self.extensions.push((kind, content));
        self
    }

    pub(super) fn message(&self) -> Vec<u8> {
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend([9; 32]);
        body.extend(vec8(&self.session_id));
        body.extend(u16s16(&self.suites));
        body.extend(vec8(&self.compression));
        body.extend(vec16(&extensions(&self.extensions)));
        message(1, &body)
    }

    pub(super) fn stream(&self) -> Vec<u8> {
        record(22, &self.message())
    }

    pub(super) fn read(&self) -> Progress<ClientHello, Rejected> {
        client_hello(&self.stream(), &Limits::default())
    }

    pub(super) fn hello(&self) -> ClientHello {
        let Progress::Complete(hello) = self.read() else {
            panic!("{:?}", self.read());
        };
        hello
    }
}

/// A ServerHello in parts; the default selects TLS 1.3 with X25519.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) legacy_version: u16,
    pub(super) random: [u8; 32],
    pub(super) session_id: Vec<u8>,
    pub(super) suite: u16,
    pub(super) compression: u8,
    pub(super) extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            legacy_version: 0x0303,
            random: [3; 32],
            session_id: vec![7; 32],
            suite: 0x1301,
            compression: 0,
            extensions: Some(vec![
                (43, vec![3, 4]),
                (51, [&[0, 29][..], &vec16(&[5; 32])].concat()),
            ]),
        }
    }
}

impl Server {
    /// The default, to be changed field by field.
    pub(super) fn plain() -> Self {
        Self::default()
    }

    pub(super) fn tls12() -> Self {
        Self {
            suite: 0xc02f,
            extensions: Some(vec![(0xff01, vec![0])]),
            ..Self::default()
        }
    }

    pub(super) fn retry(group: u16) -> Self {
        Self {
            random: RETRY,
            extensions: Some(vec![(43, vec![3, 4]), (51, group.to_be_bytes().to_vec())]),
            ..Self::default()
        }
    }

    pub(super) fn ending(mut self, sentinel: &[u8; 8]) -> Self {
        self.random[24..].copy_from_slice(sentinel);
        self
    }

    pub(super) fn message(&self) -> Vec<u8> {
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend(self.random);
        body.extend(vec8(&self.session_id));
        body.extend(self.suite.to_be_bytes());
        body.push(self.compression);
        if let Some(list) = &self.extensions {
            body.extend(vec16(&extensions(list)));
        }
        message(2, &body)
    }

    pub(super) fn stream(&self) -> Vec<u8> {
        record(22, &self.message())
    }
}

/// SHA-256 of "HelloRetryRequest", from RFC 8446, section 4.1.3.
const RETRY: [u8; 32] = [
    207, 33, 173, 116, 229, 154, 97, 17, 190, 29, 140, 2, 30, 101, 184, 145, 194, 162, 17, 22, 122,
    187, 140, 94, 7, 158, 9, 226, 200, 168, 51, 156,
];

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

pub(super) fn record(content: u8, body: &[u8]) -> Vec<u8> {
    [&[content, 3, 1][..], &vec16(body)].concat()
}

/// One handshake message over records of the given sizes; the last takes what is left.
pub(super) fn records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut rest = message;
    for &size in sizes {
        let (head, tail) = rest.split_at(size);
        stream.extend(record(22, head));
        rest = tail;
    }
    if !rest.is_empty() {
        stream.extend(record(22, rest));
    }
    stream
}

pub(super) fn server_name(host: &[u8]) -> Vec<u8> {
    vec16(&[&[0][..], &vec16(host)].concat())
}

pub(super) fn key_shares(groups: &[u16]) -> Vec<u8> {
    let shares: Vec<u8> = groups
        .iter()
        .flat_map(|group| [&group.to_be_bytes()[..], &vec16(&[1; 32])].concat())
        .collect();
    vec16(&shares)
}

fn extensions(list: &[(u16, Vec<u8>)]) -> Vec<u8> {
    list.iter()
        .flat_map(|(kind, content)| [&kind.to_be_bytes()[..], &vec16(content)].concat())
        .collect()
}

pub(super) fn vec8(content: &[u8]) -> Vec<u8> {
    [&[u8::try_from(content.len()).unwrap()][..], content].concat()
}

pub(super) fn vec16(content: &[u8]) -> Vec<u8> {
    [
        &u16::try_from(content.len()).unwrap().to_be_bytes()[..],
        content,
    ]
    .concat()
}

pub(super) fn u16s8(list: &[u16]) -> Vec<u8> {
    vec8(
        &list
            .iter()
            .flat_map(|value| value.to_be_bytes())
            .collect::<Vec<u8>>(),
    )
}

pub(super) fn u16s16(list: &[u16]) -> Vec<u8> {
    vec16(
        &list
            .iter()
            .flat_map(|value| value.to_be_bytes())
            .collect::<Vec<u8>>(),
    )
}
