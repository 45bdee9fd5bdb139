//! Both streams of a TLS connection: two bytes of length, the client's, then the server's. What
//! may leave does not depend on how the server's bytes came in.
#![no_main]

use inspect::Framed;
use inspect::tls::{ClientHello, Conversation, Limits, client_hello};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&[high, low], rest)) = input.split_first_chunk() else {
        return;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (client, server) = rest.split_at(length.min(rest.len()));
    let Some(hello) = client_hello(client, &Limits::default()).complete() else {
        return;
    };
    let at_once = play(hello.clone(), client, server, server.len().max(1));
    let in_pieces = play(hello, client, server, 3);
    assert_eq!(at_once.is_some(), in_pieces.is_some());
    if let (Some(one), Some(other)) = (at_once, in_pieces) {
        assert_eq!(one, other);
        assert!(one.1.safe <= server.len() as u64);
    }
});

fn play(hello: ClientHello, client: &[u8], server: &[u8], step: usize) -> Option<(Framed, Framed)> {
    let rest = &client[hello.bytes..];
    let mut conversation = Conversation::new(hello, Limits::default());
    for piece in server.chunks(step) {
        conversation.server(piece).ok()?;
    }
    for piece in rest.chunks(step) {
        conversation.client(piece).ok()?;
    }
    Some((
        conversation.client(&[]).ok()?,
        conversation.server(&[]).ok()?,
    ))
}
