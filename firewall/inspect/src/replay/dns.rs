//! DNS answers, as far as they tie a name to addresses (RFC 1035; RFC 9460 for hints).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use policy::Name;

use crate::reader::Reader;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const SVCB: u16 = 64;
const HTTPS: u16 = 65;
const INTERNET: u16 = 1;
/// Keys of the hints (RFC 9460, section 14.3.2).
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;
/// Response flag, opcode and response code in the second word of the header.
const RESPONSE: u16 = 0x8000;
const OPCODE_AND_RCODE: u16 = 0x780f;
/// Jumps followed in one name; an honest one needs one or two.
const JUMPS_MAX: usize = 16;
/// Records read of one answer.
const RECORDS_MAX: u16 = 256;

/// A name and the addresses one answer gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The name that was asked for.
    pub name: Name,
    /// Its addresses, aliases within the answer followed, hints included.
    pub addresses: Vec<IpAddr>,
}

/// Reads a DNS message; `None` unless it is a positive answer to one question about a name
/// that is well formed.
#[must_use]
pub fn read_answer(message: &[u8]) -> Option<Resolved> {
    let mut reader = Reader::new(message);
    reader.u16()?;
    let flags = reader.u16()?;
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    reader.u32()?;
    if flags & RESPONSE == 0 || flags & OPCODE_AND_RCODE != 0 || questions != 1 {
        return None;
    }
    let asked = read_name(message, &mut reader)?;
    reader.u32()?;
    let mut owner = asked.clone();
    let mut addresses = Vec::new();
    for _ in 0..answers.min(RECORDS_MAX) {
        let name = read_name(message, &mut reader)?;
        let (kind, class) = (reader.u16()?, reader.u16()?);
        reader.u32()?;
        let data = reader.vec16()?;
        if class != INTERNET || name != owner {
            continue;
        }
        match kind {
            A => addresses.push(v4(data)?),
            AAAA => addresses.push(v6(data)?),
            CNAME => {
                // The target may be compressed, so it is read within the message.
                let mut target = data;
                owner = read_name(message, &mut target)?;
            }
            HTTPS | SVCB => read_hints(data, &mut addresses),
            _ => {}
        }
    }
    let name = Name::parse(&asked).ok()?;
    Some(Resolved { name, addresses })
}

fn v4(mut data: Reader<'_>) -> Option<IpAddr> {
    Some(IpAddr::V4(Ipv4Addr::from(data.array::<4>()?)))
}

fn v6(mut data: Reader<'_>) -> Option<IpAddr> {
    Some(IpAddr::V6(Ipv6Addr::from(data.array::<16>()?)))
}

/// Adds the address hints of a service binding; stops at what it cannot read.
fn read_hints(mut data: Reader<'_>, addresses: &mut Vec<IpAddr>) {
    // Priority, then a target that is never compressed.
    if data.u16().is_none() {
        return;
    }
    while let Some(length) = data.u8().filter(|length| *length > 0) {
        if data.bytes(usize::from(length)).is_none() {
            return;
        }
    }
    while let Some((key, value)) = data.u16().and_then(|key| Some((key, data.vec16()?))) {
        match key {
            IPV4_HINT => {
                let (chunks, _) = value.rest().as_chunks::<4>();
                addresses.extend(chunks.iter().map(|chunk| IpAddr::from(*chunk)));
            }
            IPV6_HINT => {
                let (chunks, _) = value.rest().as_chunks::<16>();
                addresses.extend(chunks.iter().map(|chunk| IpAddr::from(*chunk)));
            }
            _ => {}
        }
    }
}

/// A name in text form and lower case, compression followed (RFC 1035, section 4.1.4).
fn read_name<'m>(message: &'m [u8], reader: &mut Reader<'m>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut rest = *reader;
    let mut jumps = 0;
    loop {
        let length = rest.u8()?;
        match length >> 6 {
            0 if length == 0 => break,
            0 => {
                if !text.is_empty() {
                    text.push(b'.');
                }
                text.extend(rest.bytes(usize::from(length))?.to_ascii_lowercase());
                if text.len() > 255 {
                    return None;
                }
            }
            3 => {
                let low = rest.u8()?;
                if jumps == 0 {
                    *reader = rest;
                }
                jumps = if jumps < JUMPS_MAX {
                    jumps.saturating_add(1)
                } else {
                    return None;
                };
                let at = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                rest = Reader::new(message.get(at..)?);
            }
            _ => return None,
        }
    }
    if jumps == 0 {
        *reader = rest;
    }
    Some(text)
}
