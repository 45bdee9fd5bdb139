//! Rules on lines and packets built by hand, then whole captured connections.

use policy::Reason;
use proptest::prelude::*;

use super::*;
use crate::progress::Progress;

macro_rules! captured {
    ($name:literal) => {
        include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/testdata/",
            $name,
            ".bin"
        ))
    };
}

/// Fingerprint of the host key in the captures, as `ssh-keygen -lf` printed it.
const FINGERPRINT: &str = "eMJf6iOOW5dYd1X4jfyJIiSmMcDqrgClQToK5QwFVKM";

const CAPTURES: [(&str, &[u8], &[u8]); 3] = [
    (
        "sntrup761x25519-sha512",
        captured!("openssh-sntrup.client"),
        captured!("openssh-sntrup.server"),
    ),
    (
        "curve25519-sha256",
        captured!("openssh-curve25519.client"),
        captured!("openssh-curve25519.server"),
    ),
    (
        "diffie-hellman-group-exchange-sha256",
        captured!("openssh-group-exchange.client"),
        captured!("openssh-group-exchange.server"),
    ),
];

fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (5 + payload.len() + 4) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap();
    let padding_length = u8::try_from(padding).unwrap();
    [
        &length.to_be_bytes()[..],
        &[padding_length],
        payload,
        &vec![0; padding],
    ]
    .concat()
}

fn string(content: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(content.len()).unwrap().to_be_bytes()[..],
        content,
    ]
    .concat()
}

fn kexinit(key_exchange: &[u8], host_key: &[u8]) -> Vec<u8> {
    let mut payload = vec![20];
    payload.extend([0xaa; 16]);
    payload.extend(string(key_exchange));
    payload.extend(string(host_key));
    for _ in 0..8 {
        payload.extend(string(b"none"));
    }
    payload.extend([0; 5]);
    payload
}

fn plain_kexinit() -> Vec<u8> {
    packet(&kexinit(b"curve25519-sha256,ext-info-c", b"ssh-ed25519"))
}

/// A conversation after both identifications and KEXINITs.
fn begun() -> Conversation {
    let mut conversation = Conversation::new();
    conversation.client(b"SSH-2.0-a\r\n").unwrap();
    conversation.server(b"SSH-2.0-b\r\n").unwrap();
    conversation.client(&plain_kexinit()).unwrap();
    conversation.server(&plain_kexinit()).unwrap();
    conversation
}

fn client_refusal(line: &[u8]) -> Option<Reason> {
    client_identification(line).refusal()
}

#[test]
fn a_client_begins_with_its_identification() {
    let line = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n";
    let read = client_identification(line).complete().unwrap();
    assert_eq!(&*read.software, "OpenSSH_9.2p1 Debian-2");
    assert_eq!(read.bytes, line.len());
    assert_eq!(
        client_identification(b"SSH-2.0-x\n")
            .complete()
            .unwrap()
            .bytes,
        10
    );
    for bad in [
        &b"\r\nSSH-2.0-x\r\n"[..],
        b"hello\r\nSSH-2.0-x\r\n",
        b"SSH-2.0-\r\n",
        b"SSH-2.0- x\r\n",
        b"SSH-2.0-a\0b\r\n",
        b"SSH-2.0-a\rb\r\n",
        b"SSH-2.0-a\r\r\n",
        b"SSH-2.0-b\xc3\xbccher\r\n",
        b"SSH\n",
    ] {
        assert_eq!(
            client_refusal(bad),
            Some(Reason::SshMalformed),
            "{}",
            bad.escape_ascii()
        );
    }
}

#[test]
fn only_version_2_0_is_spoken() {
    for old in [
        &b"SSH-1.99-x\r\n"[..],
        b"SSH-1.5-x\r\n",
        b"SSH-2.1-x\r\n",
        b"SSH-x\r\n",
    ] {
        assert_eq!(client_refusal(old), Some(Reason::SshVersion));
        assert_eq!(
            server_identification(old),
            Progress::Refused(Reason::SshVersion)
        );
    }
}

#[test]
fn an_identification_is_at_most_255_bytes() {
    let line = |length: usize| {
        let mut line = b"SSH-2.0-".to_vec();
        line.resize(length - 2, b'x');
        [line, b"\r\n".to_vec()].concat()
    };
    assert!(client_identification(&line(255)).complete().is_some());
    assert_eq!(client_refusal(&line(256)), Some(Reason::SshMalformed));
    assert_eq!(
        client_identification(&line(255)[..254]),
        Progress::Incomplete
    );
}

#[test]
fn a_server_may_say_something_first() {
    let stream = b"Welcome.\r\nSSHoo\nSSH-2.0-x\r\n";
    let read = server_identification(stream).complete().unwrap();
    assert_eq!(read.bytes, stream.len());
    assert_eq!(&*read.software, "x");
    for length in 0..stream.len() {
        assert_eq!(
            server_identification(&stream[..length]),
            Progress::Incomplete,
            "{length}"
        );
    }
    let long = [vec![b'x'; PRE_BANNER_MAX - 1], b"\nSSH-2.0-x\n".to_vec()].concat();
    assert!(server_identification(&long).complete().is_some());
    let longer = vec![b'x'; PRE_BANNER_MAX + 1];
    assert_eq!(
        server_identification(&longer),
        Progress::Refused(Reason::SshMalformed)
    );
    assert_eq!(
        server_identification(b"a\0"),
        Progress::Refused(Reason::SshMalformed)
    );
}

#[test]
fn lines_before_the_identification_pass_whole() {
    let mut conversation = Conversation::new();
    assert_eq!(conversation.server(b"Wel").unwrap().safe, 0);
    assert_eq!(conversation.server(b"come\r\nto").unwrap().safe, 9);
    assert_eq!(conversation.server(b" us\r\nSSH-2.0-").unwrap().safe, 16);
    assert_eq!(conversation.server(b"x\r\n").unwrap().safe, 27);
    assert!(conversation.server_identification().is_some());
}

#[test]
fn kexinit_comes_first_and_once() {
    let first = |payload: &[u8]| {
        let mut conversation = Conversation::new();
        conversation.client(b"SSH-2.0-a\r\n").unwrap();
        conversation.client(&packet(payload)).err()
    };
    assert_eq!(first(&kexinit(b"a", b"b")), None);
    assert_eq!(
        first(&[2, 0, 0, 0, 0]),
        Some(Reason::SshMalformed),
        "IGNORE"
    );
    assert_eq!(first(&[21]), Some(Reason::SshMalformed), "NEWKEYS");
    assert_eq!(first(&[30, 0]), Some(Reason::SshMalformed));
    assert_eq!(
        begun().client(&plain_kexinit()),
        Err(Reason::SshMalformed),
        "twice"
    );
    for number in [5, 6, 7, 50, 60, 80, 90, 0, 255] {
        assert_eq!(
            begun().client(&packet(&[number])),
            Err(Reason::SshMalformed),
            "{number}"
        );
    }
    assert_eq!(
        begun().client(&packet(&[21])),
        Err(Reason::SshMalformed),
        "before the exchange"
    );
    for number in [2, 3, 4, 30, 34] {
        assert!(begun().client(&packet(&[number])).is_ok(), "{number}");
    }
    let flood = packet(&[2]).repeat(17);
    assert_eq!(begun().client(&flood), Err(Reason::SshMalformed));
}

#[test]
fn name_lists_are_strict() {
    let refused = |key_exchange: &[u8], host_key: &[u8]| {
        let mut conversation = Conversation::new();
        conversation.client(b"SSH-2.0-a\r\n").unwrap();
        conversation
            .client(&packet(&kexinit(key_exchange, host_key)))
            .err()
    };
    for bad in [
        &b""[..],
        b",",
        b"a,",
        b",a",
        b"a,,b",
        b"a b",
        b"a\0",
        b"\xc3\xa9",
        &[b'a'; 65],
    ] {
        assert_eq!(
            refused(bad, b"ssh-ed25519"),
            Some(Reason::SshMalformed),
            "{bad:?}"
        );
        assert_eq!(
            refused(b"curve25519-sha256", bad),
            Some(Reason::SshMalformed),
            "{bad:?}"
        );
    }
    let mut trailing = kexinit(b"a", b"b");
    trailing.push(0);
    let cut = &trailing[..trailing.len() - 2];
    for payload in [&trailing[..], cut] {
        let mut conversation = Conversation::new();
        conversation.client(b"SSH-2.0-a\r\n").unwrap();
        assert_eq!(
            conversation.client(&packet(payload)),
            Err(Reason::SshMalformed)
        );
    }
}

#[test]
fn packet_lengths_and_padding_are_checked() {
    let cases: [&[u8]; 7] = [
        &[0, 0, 0, 0],
        &[0, 0, 0, 4],
        &[0, 0, 0, 13, 4],   // not a multiple of eight
        &[0, 0, 0x88, 0xb9], // 35,001 and over
        &[0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 12, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // too little padding
        &[0, 0, 0, 12, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // no payload
    ];
    for bytes in cases {
        assert_eq!(
            begun().client(bytes),
            Err(Reason::SshMalformed),
            "{bytes:?}"
        );
    }
}

#[test]
fn a_disconnect_ends_its_direction() {
    let mut conversation = Conversation::new();
    conversation.server(b"SSH-2.0-b\r\n").unwrap();
    let goodbye = packet(&[1, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(conversation.server(&goodbye).unwrap().ended);
    assert_eq!(conversation.server(&[0]), Err(Reason::SshMalformed));
    let mut trailing = begun();
    assert_eq!(
        trailing.server(&[goodbye, vec![0]].concat()),
        Err(Reason::SshMalformed)
    );
}

#[test]
fn the_clients_first_choice_that_the_server_knows_is_negotiated() {
    let mut conversation = Conversation::new();
    conversation.client(b"SSH-2.0-a\r\n").unwrap();
    conversation.server(b"SSH-2.0-b\r\n").unwrap();
    let ours = kexinit(
        b"ext-info-c,kex-strict-c-v00@openssh.com,x,y",
        b"rsa-sha2-512,ssh-ed25519",
    );
    let theirs = kexinit(b"ext-info-c,y,x", b"ssh-ed25519");
    conversation.client(&packet(&ours)).unwrap();
    assert!(conversation.negotiated().is_none());
    conversation.server(&packet(&theirs)).unwrap();
    let agreed = conversation.negotiated().unwrap();
    assert_eq!(
        (&*agreed.key_exchange, &*agreed.host_key),
        ("x", "ssh-ed25519")
    );
}

#[test]
fn a_second_host_key_is_refused() {
    let reply = packet(&[&[31][..], &string(&string(b"ssh-ed25519")), &string(b"q")].concat());
    let mut conversation = begun();
    conversation.server(&reply).unwrap();
    assert!(conversation.host_key().is_some());
    assert_eq!(conversation.server(&reply), Err(Reason::SshMalformed));
}

#[test]
fn a_server_cannot_answer_a_half_it_has_not_seen() {
    let mut conversation = Conversation::new();
    conversation.server(b"SSH-2.0-b\r\n").unwrap();
    conversation.server(&plain_kexinit()).unwrap();
    let reply = packet(&[&[31][..], &string(&string(b"ssh-ed25519"))].concat());
    assert_eq!(conversation.server(&reply), Err(Reason::SshMalformed));
}

/// Everything the client sent first, then the server: legal, since nothing here waits.
fn play(client: &[u8], server: &[u8], step: usize) -> Conversation {
    let mut conversation = Conversation::new();
    for piece in client.chunks(step) {
        conversation.client(piece).unwrap();
    }
    for piece in server.chunks(step) {
        conversation.server(piece).unwrap();
    }
    assert_eq!(conversation.client(&[]).unwrap().safe, client.len() as u64);
    assert_eq!(conversation.server(&[]).unwrap().safe, server.len() as u64);
    conversation
}

#[test]
fn captured_connections_end_encrypted_with_their_host_key() {
    for (method, client, server) in CAPTURES {
        for step in [1, 13, 1460, 65536] {
            let played = play(client, server, step);
            assert!(
                played.is_protected() && played.has_server_new_keys(),
                "{method}"
            );
            assert_eq!(&*played.negotiated().unwrap().key_exchange, method);
            assert_eq!(
                played.host_key().unwrap().fingerprint(),
                FINGERPRINT,
                "{method}"
            );
            let software = &played.client_identification().unwrap().software;
            assert!(software.starts_with("OpenSSH_9.2p1"), "{software}");
        }
    }
}

#[test]
fn nothing_of_a_packet_is_safe_before_the_packet_is_whole() {
    let mut conversation = begun();
    let before = conversation.client(&[]).unwrap().safe;
    let bytes = packet(&[30, 1, 2, 3]);
    let (head, last) = bytes.split_at(bytes.len() - 1);
    assert_eq!(conversation.client(head).unwrap().safe, before);
    assert_eq!(
        conversation.client(last).unwrap().safe,
        before + bytes.len() as u64
    );
}

#[test]
fn every_prefix_of_a_captured_identification_is_incomplete() {
    for (_, client, server) in CAPTURES {
        let whole = client_identification(client).complete().unwrap();
        for length in 0..whole.bytes {
            assert_eq!(
                client_identification(&client[..length]),
                Progress::Incomplete
            );
        }
        let whole = server_identification(server).complete().unwrap();
        for length in 0..whole.bytes {
            assert_eq!(
                server_identification(&server[..length]),
                Progress::Incomplete
            );
        }
    }
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic(
        which in 0..CAPTURES.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        step in 1..3000usize,
    ) {
        let (_, client, server) = CAPTURES[which];
        let (mut client, mut server) = (client.to_vec(), server.to_vec());
        for (place, byte) in flips {
            let place = place.index(client.len() + server.len());
            match client.get_mut(place) {
                Some(slot) => *slot = byte,
                None => server[place - client.len()] = byte,
            }
        }
        let mut conversation = Conversation::new();
        let read = client.chunks(step).try_for_each(|piece| conversation.client(piece).map(|_| ()));
        if read.is_ok() {
            let _end = server.chunks(step).try_for_each(|piece| conversation.server(piece).map(|_| ()));
        }
    }
}
