//! Both streams of an SSH connection: two bytes of length, the client's, then the server's. What
//! may leave does not depend on how the bytes came in.
#![no_main]

use inspect::Framed;
use inspect::ssh::Conversation;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&[high, low], rest)) = input.split_first_chunk() else {
        return;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (client, server) = rest.split_at(length.min(rest.len()));
    let at_once = play(client, server, input.len());
    let in_pieces = play(client, server, 3);
    assert_eq!(at_once, in_pieces);
    if let Some((one, other)) = at_once {
        assert!(one.safe <= client.len() as u64 && other.safe <= server.len() as u64);
    }
});

fn play(client: &[u8], server: &[u8], step: usize) -> Option<(Framed, Framed)> {
    let mut conversation = Conversation::new();
    for piece in client.chunks(step) {
        conversation.client(piece).ok()?;
    }
    for piece in server.chunks(step) {
        conversation.server(piece).ok()?;
    }
    Some((
        conversation.client(&[]).ok()?,
        conversation.server(&[]).ok()?,
    ))
}
