//! Messages made by hand, small and sound, and the captured ones beside them.

/// A TLS record.
pub(crate) fn record(content: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[content, 3, 3, len[0], len[1]], body].concat()
}

fn vec16(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vec16(content)].concat()
}

fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind, len[1], len[2], len[3]], body].concat()
}

/// What goes into a ClientHello.
#[derive(Clone, Debug)]
pub(crate) struct Hello<'a> {
    pub(crate) names: Vec<&'a [u8]>,
    /// Server name extensions, each with all of the names.
    pub(crate) name_extensions: usize,
    pub(crate) versions: Vec<u16>,
    pub(crate) legacy: u16,
    /// Group and length of each key share.
    pub(crate) shares: Vec<(u16, usize)>,
    pub(crate) groups: Vec<u16>,
    pub(crate) ech: bool,
    pub(crate) early_data: bool,
    pub(crate) padding: usize,
}

impl Default for Hello<'_> {
    fn default() -> Self {
        Self {
            names: vec![b"api.example.com"],
            name_extensions: 1,
            versions: vec![0x0a0a, 0x0304, 0x0303],
            legacy: 0x0303,
            shares: vec![(0x2a2a, 1), (29, 32)],
            groups: vec![0x2a2a, 29, 23],
            ech: false,
            early_data: false,
            padding: 0,
        }
    }
}

impl Hello<'_> {
    /// The handshake message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        for _ in 0..self.name_extensions {
            let list: Vec<u8> = self
                .names
                .iter()
                .flat_map(|n| [&[0], &vec16(n)[..]].concat())
                .collect();
            extensions.extend(extension(0, &vec16(&list)));
        }
        if !self.versions.is_empty() {
            let list: Vec<u8> = self.versions.iter().flat_map(|v| v.to_be_bytes()).collect();
            let len = u8::try_from(list.len()).unwrap();
            extensions.extend(extension(43, &[&[len], &list[..]].concat()));
        }
        let groups: Vec<u8> = self.groups.iter().flat_map(|g| g.to_be_bytes()).collect();
        extensions.extend(extension(10, &vec16(&groups)));
        let shares: Vec<u8> = self
            .shares
            .iter()
            .flat_map(|(g, n)| [&g.to_be_bytes()[..], &vec16(&vec![7; *n])].concat())
            .collect();
        extensions.extend(extension(51, &vec16(&shares)));
        extensions.extend(extension(13, &vec16(&[4, 3, 8, 4])));
        if self.ech {
            extensions.extend(extension(0xfe0d, &[0; 40]));
        }
        if self.early_data {
            extensions.extend(extension(42, &[]));
            extensions.extend(extension(45, &[1, 1]));
        }
        if self.padding > 0 {
            extensions.extend(extension(21, &vec![0; self.padding]));
        }
        if self.early_data {
            // The binder comes last (RFC 8446, section 4.2.11).
            let identity = [&vec16(&[9; 16])[..], &[0; 4]].concat();
            let binder = [&[32u8][..], &[5; 32]].concat();
            extensions.extend(extension(41, &[vec16(&identity), vec16(&binder)].concat()));
        }
        let mut body = self.legacy.to_be_bytes().to_vec();
        body.extend([3; 32]);
        body.push(32);
        body.extend([4; 32]);
        body.extend(vec16(&[
            0x0a, 0x0a, 0x13, 0x01, 0x13, 0x02, 0xc0, 0x2f, 0xc0, 0x30,
        ]));
        body.extend([1, 0]);
        body.extend(vec16(&extensions));
        handshake(1, &body)
    }

    /// In one record.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        records(&self.message(), 16_384)
    }
}

/// A handshake message in records of at most `size` bytes.
pub(crate) fn records(message: &[u8], size: usize) -> Vec<u8> {
    message
        .chunks(size)
        .flat_map(|chunk| record(22, chunk))
        .collect()
}

pub(crate) fn hello() -> Vec<u8> {
    Hello::default().bytes()
}

pub(crate) fn hello_for(name: &str) -> Vec<u8> {
    Hello {
        names: vec![name.as_bytes()],
        ..Hello::default()
    }
    .bytes()
}

/// A hello with an X25519MLKEM768 share, about 1.5 KB.
pub(crate) fn pq_hello() -> Vec<u8> {
    Hello {
        shares: vec![(4588, 1216), (29, 32)],
        groups: vec![4588, 29, 23],
        ..Hello::default()
    }
    .bytes()
}

fn server_message(random: [u8; 32], version: Option<u16>, suite: u16, share: &[u8]) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(version) = version {
        extensions.extend(extension(43, &version.to_be_bytes()));
    }
    if !share.is_empty() {
        extensions.extend(extension(51, share));
    }
    let mut body = vec![3, 3];
    body.extend(random);
    body.push(32);
    body.extend([4; 32]);
    body.extend(suite.to_be_bytes());
    body.push(0);
    body.extend(vec16(&extensions));
    handshake(2, &body)
}

fn share(group: u16, len: usize) -> Vec<u8> {
    [&group.to_be_bytes()[..], &vec16(&vec![8; len])].concat()
}

/// A TLS 1.3 ServerHello with a share of `group`.
pub(crate) fn server_hello_13(group: u16) -> Vec<u8> {
    let len = if group == 4588 { 1120 } else { 32 };
    record(
        22,
        &server_message([6; 32], Some(0x0304), 0x1301, &share(group, len)),
    )
}

/// The server's first flight in TLS 1.3: hello, change_cipher_spec, protected extensions.
pub(crate) fn server_flight_13(group: u16) -> Vec<u8> {
    [
        server_hello_13(group),
        record(20, &[1]),
        record(23, &[9; 900]),
    ]
    .concat()
}

/// A TLS 1.2 ServerHello, with the last eight bytes of its random as given.
pub(crate) fn server_hello_12(tail: [u8; 8]) -> Vec<u8> {
    let mut random = [6; 32];
    random[24..].copy_from_slice(&tail);
    record(22, &server_message(random, None, 0xc02f, &[]))
}

/// A HelloRetryRequest for `group`.
pub(crate) fn retry_request(group: u16) -> Vec<u8> {
    const RANDOM: [u8; 32] = [
        0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8,
        0x91, 0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8,
        0x33, 0x9C,
    ];
    record(
        22,
        &server_message(RANDOM, Some(0x0304), 0x1301, &group.to_be_bytes()),
    )
}

/// What a TLS 1.3 client sends once it has the server's flight.
pub(crate) fn client_finished_13() -> Vec<u8> {
    [record(20, &[1]), record(23, &[9; 53])].concat()
}

/// TLS 1.2: certificate and hello done, in clear.
pub(crate) fn server_rest_12() -> Vec<u8> {
    let der = [&[0u8, 0, 8][..], &[0x30; 8]].concat();
    let list = [&[0u8, 0, 11][..], &der].concat();
    [
        record(22, &handshake(11, &list)),
        record(22, &handshake(14, &[])),
    ]
    .concat()
}

/// TLS 1.2: key exchange, change of cipher and the protected Finished.
pub(crate) fn client_rest_12() -> Vec<u8> {
    let exchange = [&[32u8][..], &[5; 32]].concat();
    [
        record(22, &handshake(16, &exchange)),
        record(20, &[1]),
        record(22, &[9; 40]),
    ]
    .concat()
}

pub(crate) fn server_finished_12() -> Vec<u8> {
    [record(20, &[1]), record(22, &[9; 40])].concat()
}

pub(crate) fn alert(description: u8) -> Vec<u8> {
    record(21, &[2, description])
}

/// An SSH binary packet before encryption (RFC 4253, section 6).
pub(crate) fn ssh_packet(payload: &[u8]) -> Vec<u8> {
    let mut padding = 8 - (payload.len() + 5) % 8;
    if padding < 4 {
        padding += 8;
    }
    let len = u32::try_from(payload.len() + padding + 1).unwrap();
    let mut packet = len.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap());
    packet.extend(payload);
    packet.extend(vec![0; padding]);
    packet
}

fn ssh_string(bytes: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..],
        bytes,
    ]
    .concat()
}

pub(crate) fn ssh_kexinit() -> Vec<u8> {
    let mut payload = vec![20];
    payload.extend([7; 16]);
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
        payload.extend(ssh_string(list.as_bytes()));
    }
    payload.extend([0; 5]);
    ssh_packet(&payload)
}

/// The client's half of the exchange.
pub(crate) fn ssh_ecdh_init() -> Vec<u8> {
    ssh_packet(&[&[30u8][..], &ssh_string(&[5; 32])].concat())
}

/// The server's host key, as a blob.
pub(crate) fn ssh_host_key() -> Vec<u8> {
    [ssh_string(b"ssh-ed25519"), ssh_string(&[3; 32])].concat()
}

/// The server's half, with its host key.
pub(crate) fn ssh_ecdh_reply() -> Vec<u8> {
    let payload = [
        vec![31],
        ssh_string(&ssh_host_key()),
        ssh_string(&[6; 32]),
        ssh_string(&[ssh_string(b"ssh-ed25519"), ssh_string(&[1; 64])].concat()),
    ]
    .concat();
    ssh_packet(&payload)
}

pub(crate) fn ssh_new_keys() -> Vec<u8> {
    ssh_packet(&[21])
}

/// Both directions of one captured connection.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    pub(crate) file: String,
    pub(crate) client: Vec<u8>,
    pub(crate) server: Vec<u8>,
}

/// Every captured connection, by file name.
pub(crate) fn captures() -> Vec<Capture> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".client.bin") else {
            continue;
        };
        let server = std::fs::read(folder.join(format!("{stem}.server.bin"))).unwrap_or_default();
        let client = std::fs::read(&path).unwrap();
        found.push(Capture {
            file: stem.to_owned(),
            client,
            server,
        });
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    assert!(found.len() >= 10, "captures are missing");
    found
}
