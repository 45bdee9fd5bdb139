//! Amazon's time service: NTP at a link-local address.

use std::net::{SocketAddr, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use crate::netns::Namespace;

/// Where EC2 has it (EC2 user guide, "Amazon Time Sync Service").
pub const ADDRESS: &str = "169.254.169.123";

/// Says this machine's time in a namespace that has the address; ends with the process.
pub(super) fn serve(namespace: &Namespace) -> Result<()> {
    let address: SocketAddr = format!("{ADDRESS}:123").parse()?;
    let socket = namespace.enter(|| UdpSocket::bind(address))?;
    let socket = socket.with_context(|| format!("binding {address}"))?;
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let question = question.get(..length).unwrap_or_default();
            if let Some(answer) = answer(question, now()) {
                // Whoever does not hear it asks again.
                drop(socket.send_to(&answer, from));
            }
        }
    });
    Ok(())
}

/// A server's answer to a client's packet (RFC 5905, section 7.3): no leap second, version 4, stratum 1.
fn answer(question: &[u8], now: u64) -> Option<[u8; 48]> {
    let asked = question.get(40..48)?;
    let mut packet = [0; 48];
    let (head, times) = packet.split_at_mut(16);
    head.copy_from_slice(&[
        0x24, 1, 4, 0xec, 0, 0, 0, 0, 0, 0, 0, 1, b'T', b'E', b'S', b'T',
    ]);
    // Reference, origin, receive and transmit time.
    for (field, value) in times.chunks_exact_mut(8).zip([
        &now.to_be_bytes(),
        asked,
        &now.to_be_bytes(),
        &now.to_be_bytes(),
    ] as [&[u8]; 4])
    {
        field.copy_from_slice(value);
    }
    Some(packet)
}

/// In NTP's format: seconds since 1900 and their fraction, 32 bits each.
fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (since.as_secs().wrapping_add(TO_1970) << 32) | fraction
}

/// From 1900 to 1970, in seconds.
const TO_1970: u64 = 2_208_988_800;
