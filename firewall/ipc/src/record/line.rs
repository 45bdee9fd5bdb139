//! From a record to one line of the spool, and back as far as the shipper needs.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use super::Timestamp;

/// One JSON object, all of it printable ASCII, with the new line that ends it.
///
/// Names and user agents are chosen by whoever connects: escaping everything outside ASCII, and
/// DEL, keeps terminal sequences, bidirectional overrides and the line separators U+2028 and
/// U+2029 out of whatever shows the line, and loses nothing.
///
/// # Errors
///
/// When `record` cannot be JSON; none of the types in this module ever fails.
pub fn to_line<T: Serialize>(record: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = Vec::with_capacity(512);
    append_line(&mut line, record)?;
    Ok(line)
}

/// As [`to_line`], behind what `lines` holds already; on an error those stay as they were.
///
/// # Errors
///
/// As [`to_line`].
pub fn append_line<T: Serialize>(lines: &mut Vec<u8>, record: &T) -> Result<(), serde_json::Error> {
    let before = lines.len();
    let written = record.serialize(&mut Serializer::with_formatter(&mut *lines, AsciiFormatter));
    match written {
        Ok(()) => lines.push(b'\n'),
        Err(_) => lines.truncate(before),
    }
    written
}

/// The time a line was written with, for sorting, without reading the rest of it.
#[must_use]
pub fn peek_time(line: &[u8]) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Head {
        time: Timestamp,
    }
    serde_json::from_slice::<Head>(line)
        .ok()
        .map(|head| head.time)
}

/// JSON without a byte above 0x7e.
struct AsciiFormatter;

impl Formatter for AsciiFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return CompactFormatter.write_string_fragment(writer, fragment);
        }
        let mut plain_from = 0;
        for (at, character) in fragment.char_indices() {
            if matches!(character, ' '..='~') {
                continue;
            }
            let plain = fragment.get(plain_from..at).unwrap_or_default();
            CompactFormatter.write_string_fragment(writer, plain)?;
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain_from = at.saturating_add(character.len_utf8());
        }
        let plain = fragment.get(plain_from..).unwrap_or_default();
        CompactFormatter.write_string_fragment(writer, plain)
    }
}
