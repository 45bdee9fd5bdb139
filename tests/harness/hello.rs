//! First messages of TLS, SSH and HTTP, honest and not. Nothing here does cryptography: a middlebox that cannot decrypt
//! cannot tell, so a server's protected data may be any bytes in a well-framed record.

/// TLS versions as on the wire.
pub mod version {
    /// TLS 1.0.
    pub const TLS10: u16 = 0x0301;
    /// TLS 1.1.
    pub const TLS11: u16 = 0x0302;
    /// TLS 1.2, and what every later message calls itself.
    pub const TLS12: u16 = 0x0303;
    /// TLS 1.3, only inside `supported_versions`.
    pub const TLS13: u16 = 0x0304;
}

/// Extension numbers of the IANA registry.
pub mod extension {
    /// server_name, RFC 6066, section 3.
    pub const SERVER_NAME: u16 = 0;
    /// supported_groups.
    pub const GROUPS: u16 = 10;
    /// signature_algorithms.
    pub const SIGNATURES: u16 = 13;
    /// supported_versions, RFC 8446, section 4.2.1.
    pub const VERSIONS: u16 = 43;
    /// cookie.
    pub const COOKIE: u16 = 44;
    /// key_share.
    pub const KEY_SHARE: u16 = 51;
    /// encrypted_client_hello, RFC 9849.
    pub const ECH: u16 = 0xfe0d;
    /// One of the values RFC 8701 keeps meaningless.
    pub const GREASE: u16 = 0x1a1a;
}

/// A client hello to be written. [`ClientHello::new`] is honest; change fields to lie.
#[derive(Debug, Clone)]
pub struct ClientHello {
    /// The version field that TLS 1.3 freezes at 1.2.
    pub legacy_version: u16,
    /// supported_versions; the extension is left out when empty.
    pub versions: Vec<u16>,
    /// Host names of one server_name extension; left out when empty.
    pub names: Vec<Vec<u8>>,
    /// Cipher suites.
    pub ciphers: Vec<u16>,
    /// Whether a key share of X25519MLKEM768, 1,216 bytes, goes before the one of X25519.
    pub hybrid: bool,
    /// More extensions, after the usual ones.
    pub extensions: Vec<(u16, Vec<u8>)>,
    /// Bytes behind the extensions, inside the message.
    pub trailing: Vec<u8>,
}

impl ClientHello {
    /// TLS 1.3 with 1.2 as a fall-back, naming `name`.
    pub fn new(name: &str) -> Self {
        Self {
            legacy_version: version::TLS12,
            versions: vec![version::TLS13, version::TLS12],
            names: vec![name.as_bytes().to_vec()],
            ciphers: vec![0x1301, 0x1302, 0xc02f, 0xc030],
            hybrid: false,
            extensions: Vec::new(),
            trailing: Vec::new(),
        }
    }

    /// As browsers send it since 2024: an X25519MLKEM768 share, GREASE values, padding-free, about 1,800 bytes.
    pub fn post_quantum(name: &str) -> Self {
        let mut hello = Self::new(name);
        hello.hybrid = true;
        hello.versions.insert(0, extension::GREASE);
        hello.ciphers.insert(0, extension::GREASE);
        hello.extensions.push((extension::GREASE, vec![0]));
        hello
            .extensions
            .push((0x0010, b"\0\x0c\x02h2\x08http/1.1".to_vec()));
        hello.extensions.push((0x0029 + 0x2000, vec![0x5a; 280]));
        hello
    }

    /// Only this version, without the extension that names any.
    pub fn old(name: &str, version: u16) -> Self {
        let mut hello = Self::new(name);
        hello.legacy_version = version;
        hello.versions.clear();
        hello.ciphers = vec![0xc013, 0x002f];
        hello
    }

    /// The handshake message, header included.
    pub fn message(&self) -> Vec<u8> {
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend([0x11; 32]);
        body.push(32);
        body.extend([0x22; 32]);
        let ciphers: Vec<u8> = self
            .ciphers
            .iter()
            .flat_map(|suite| suite.to_be_bytes())
            .collect();
        body.extend(sized16(&ciphers));
        body.extend([1, 0]);
        let mut extensions = Vec::new();
        for (kind, content) in self.all_extensions() {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(sized16(&content));
        }
        body.extend(sized16(&extensions));
        body.extend(&self.trailing);
        message(1, &body)
    }

    /// The message in one record.
    pub fn record(&self) -> Vec<u8> {
        record(22, &self.message())
    }

    /// The message in records of `size` bytes each.
    pub fn records(&self, size: usize) -> Vec<u8> {
        self.message()
            .chunks(size)
            .flat_map(|chunk| record(22, chunk))
            .collect()
    }

    fn all_extensions(&self) -> Vec<(u16, Vec<u8>)> {
        let mut all = Vec::new();
        if !self.names.is_empty() {
            all.push((extension::SERVER_NAME, server_name(&self.names)));
        }
        all.push((extension::GROUPS, sized16(&[0x11, 0xec, 0x00, 0x1d])));
        all.push((
            extension::SIGNATURES,
            sized16(&[0x04, 0x03, 0x08, 0x04, 0x04, 0x01]),
        ));
        if !self.versions.is_empty() {
            let versions: Vec<u8> = self
                .versions
                .iter()
                .flat_map(|version| version.to_be_bytes())
                .collect();
            let mut content = vec![versions.len() as u8];
            content.extend(versions);
            all.push((extension::VERSIONS, content));
            let mut share = Vec::new();
            if self.hybrid {
                share.extend(0x11ec_u16.to_be_bytes());
                share.extend(sized16(&[0x34; 1216]));
            }
            share.extend(0x001d_u16.to_be_bytes());
            share.extend(sized16(&[0x33; 32]));
            all.push((extension::KEY_SHARE, sized16(&share)));
        }
        all.extend(self.extensions.iter().cloned());
        all
    }
}

/// The content of a server_name extension with these host names.
pub fn server_name(names: &[Vec<u8>]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|name| {
            let mut entry = vec![0];
            entry.extend(sized16(name));
            entry
        })
        .collect();
    sized16(&list)
}

/// The content of an ECH extension: outer, one suite, 32 bytes of key and 208 of what may be a payload (or GREASE).
pub fn ech() -> Vec<u8> {
    let mut content = vec![0, 0, 1, 0, 1, 0x2a];
    content.extend(sized16(&[0x44; 32]));
    content.extend(sized16(&[0x55; 208]));
    content
}

/// A server hello.
#[derive(Debug, Clone)]
pub struct ServerHello {
    /// The version field.
    pub legacy_version: u16,
    /// supported_versions; left out when `None`.
    pub selected: Option<u16>,
    /// The random, where RFC 8446, section 4.1.3 puts its sentinels.
    pub random: [u8; 32],
    /// The cipher suite.
    pub cipher: u16,
    /// More extensions.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl ServerHello {
    /// Selects TLS 1.3.
    pub fn tls13() -> Self {
        Self {
            legacy_version: version::TLS12,
            selected: Some(version::TLS13),
            random: [0x66; 32],
            cipher: 0x1301,
            extensions: vec![(
                extension::KEY_SHARE,
                [&[0, 0x1d][..], &sized16(&[0x77; 32])].concat(),
            )],
        }
    }

    /// Selects `version` the old way.
    pub fn old(version: u16) -> Self {
        let cipher = if version >= version::TLS12 {
            0xc02f
        } else {
            0xc013
        };
        Self {
            legacy_version: version,
            selected: None,
            random: [0x66; 32],
            cipher,
            extensions: Vec::new(),
        }
    }

    /// Asks for another client hello.
    pub fn retry_request() -> Self {
        let mut hello = Self::tls13();
        hello.random = RETRY;
        // A group that clients of this module list and send no share of.
        hello.extensions = vec![(extension::KEY_SHARE, vec![0x11, 0xec])];
        hello
    }

    /// With the sentinel of a server that could do 1.3 and was talked down to 1.2.
    pub fn downgraded() -> Self {
        let mut hello = Self::old(version::TLS12);
        hello.random[24..].copy_from_slice(b"DOWNGRD\x01");
        hello
    }

    /// The message in one record.
    pub fn record(&self) -> Vec<u8> {
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend(self.random);
        body.push(32);
        body.extend([0x22; 32]);
        body.extend(self.cipher.to_be_bytes());
        body.push(0);
        let mut extensions = Vec::new();
        let selected = self
            .selected
            .map(|version| (extension::VERSIONS, version.to_be_bytes().to_vec()));
        for (kind, content) in selected.into_iter().chain(self.extensions.iter().cloned()) {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(sized16(&content));
        }
        if !extensions.is_empty() {
            body.extend(sized16(&extensions));
        }
        record_version(
            22,
            self.legacy_version.min(version::TLS12),
            &message(2, &body),
        )
    }
}

/// All that a TLS 1.3 server sends first: its hello, a compatibility change_cipher_spec, protected data.
pub fn server_flight() -> Vec<u8> {
    [
        ServerHello::tls13().record(),
        change_cipher_spec(),
        protected(b"certificate and more"),
    ]
    .concat()
}

/// All that a TLS 1.3 client sends next.
pub fn client_finish() -> Vec<u8> {
    [change_cipher_spec(), protected(b"finished, with its tag")].concat()
}

/// A record of protected data. Its content is in the clear here, so that tests find it again.
pub fn protected(content: &[u8]) -> Vec<u8> {
    record(23, content)
}

/// The record that middleboxes expect, RFC 8446, appendix D.4.
pub fn change_cipher_spec() -> Vec<u8> {
    record(20, &[1])
}

/// A fatal alert.
pub fn alert(description: u8) -> Vec<u8> {
    record(21, &[2, description])
}

/// A record of TLS 1.0 to 1.3.
pub fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    record_version(
        kind,
        if kind == 22 {
            version::TLS10
        } else {
            version::TLS12
        },
        content,
    )
}

/// A record with a version of its own.
pub fn record_version(kind: u8, version: u16, content: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(version.to_be_bytes());
    out.extend(sized16(content));
    out
}

/// A client hello of SSL 2.0 that offers TLS 1.2, RFC 5246, appendix E.2.
pub fn sslv2() -> Vec<u8> {
    let mut body = vec![1, 3, 3, 0, 6, 0, 0, 0, 16, 0, 0, 0x2f, 0, 0, 0x35];
    body.extend([0x11; 16]);
    let length = 0x8000 | body.len() as u16;
    [&length.to_be_bytes()[..], &body].concat()
}

/// An SSH identification line and a key exchange proposal, as clients send them.
pub fn ssh(identification: &str) -> Vec<u8> {
    [identification.as_bytes(), &ssh_kexinit()].concat()
}

/// A key exchange proposal, RFC 4253, section 7.1.
pub fn ssh_kexinit() -> Vec<u8> {
    let mut payload = vec![20];
    payload.extend([0x42; 16]);
    for list in [
        "curve25519-sha256",
        "ssh-ed25519",
        "aes128-ctr",
        "aes128-ctr",
        "hmac-sha2-256",
        "hmac-sha2-256",
        "none",
        "none",
        "",
        "",
    ] {
        payload.extend((list.len() as u32).to_be_bytes());
        payload.extend(list.as_bytes());
    }
    payload.extend([0; 5]);
    let padding = 8 - (payload.len() + 5) % 8 + 8;
    let mut packet = ((payload.len() + 1 + padding) as u32)
        .to_be_bytes()
        .to_vec();
    packet.push(padding as u8);
    packet.extend(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[kind][..], &length[1..], body].concat()
}

fn sized16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

// SHA-256 of "HelloRetryRequest", RFC 8446, section 4.1.3.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_add_up() {
        let record = ClientHello::new("api.allowed.example").record();
        assert_eq!(
            usize::from(u16::from_be_bytes([record[3], record[4]])),
            record.len() - 5
        );
        assert_eq!(record[5], 1);
        assert_eq!(
            usize::from(u16::from_be_bytes([record[7], record[8]])),
            record.len() - 9
        );
    }

    #[test]
    fn a_post_quantum_hello_needs_two_segments() {
        let length = ClientHello::post_quantum("api.allowed.example")
            .record()
            .len();
        assert!((1700..1900).contains(&length), "{length}");
    }

    #[test]
    fn records_split_a_message_without_changing_it() {
        let hello = ClientHello::new("a.example");
        let mut rest = &hello.records(7)[..];
        let mut joined: Vec<u8> = Vec::new();
        while rest.len() >= 5 {
            let end = 5 + usize::from(u16::from_be_bytes([rest[3], rest[4]]));
            joined.extend(&rest[5..end]);
            rest = &rest[end..];
        }
        assert_eq!(joined, hello.message());
    }

    #[test]
    fn ssh_packets_are_a_multiple_of_eight() {
        assert_eq!(ssh_kexinit().len() % 8, 0);
    }
}
