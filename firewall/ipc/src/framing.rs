//! One message on a stream: four bytes of length, most significant first, then that much JSON.
//!
//! [`Decoder`] does no I/O, so that the daemon's event loop, a blocking client and the fuzzer
//! all run the same code. It allocates as bytes arrive, never by what a length promises.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most a peer may send in one message: a whole snapshot (DESIGN, section 4.4).
pub const PUBLISH_BYTES_MAX: usize = 64 << 20;

/// The most anything else takes. A status reply, the largest of them, is a few KiB.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// Bytes in front of every message.
pub const HEADER_BYTES: usize = 4;

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    /// The length announced is over the limit for this peer.
    #[error("a message of {announced} bytes, over the limit of {limit}")]
    TooLong {
        /// What the header says.
        announced: usize,
        /// What this decoder, or this kind of message, allows.
        limit: usize,
    },
    /// The body is not the JSON expected.
    #[error("message body")]
    Body(#[source] serde_json::Error),
    /// The stream ended inside a message.
    #[error("the stream ends {missing} bytes before the end of a message")]
    Truncated {
        /// Bytes still owed.
        missing: usize,
    },
    /// The stream could not be read or written.
    #[error("the stream itself")]
    Io(#[source] io::Error),
}

/// Encodes one message, header included.
///
/// # Errors
///
/// [`FramingError::TooLong`] when the body exceeds `limit`.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, FramingError> {
    let mut bytes = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut bytes, message).map_err(FramingError::Body)?;
    let announced = bytes.len().saturating_sub(HEADER_BYTES);
    let header = u32::try_from(announced).ok().filter(|_| announced <= limit);
    let Some(header) = header else {
        return Err(FramingError::TooLong { announced, limit });
    };
    for (place, byte) in bytes.iter_mut().zip(header.to_be_bytes()) {
        *place = byte;
    }
    Ok(bytes)
}

/// Encodes one message and writes it whole.
///
/// # Errors
///
/// As [`encode`], and when the stream does not take it.
pub fn write<T: Serialize>(
    stream: &mut impl Write,
    message: &T,
    limit: usize,
) -> Result<(), FramingError> {
    let bytes = encode(message, limit)?;
    stream
        .write_all(&bytes)
        .and_then(|()| stream.flush())
        .map_err(FramingError::Io)
}

/// Bytes in, messages out.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    buffer: Vec<u8>,
    /// Bytes of `buffer` already handed out.
    taken: usize,
}

impl Decoder {
    /// A decoder that takes bodies of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            buffer: Vec::new(),
            taken: 0,
        }
    }

    /// Changes the limit, once it is known who the peer is.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
            // A snapshot passes once a day; its 64 MiB are not kept for the small messages after.
            self.buffer.shrink_to(MESSAGE_BYTES_MAX);
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The body of the next whole message, if it is there.
    ///
    /// # Errors
    ///
    /// [`FramingError::TooLong`] as soon as the header says so. The stream is of no use after.
    pub fn next_body(&mut self) -> Result<Option<&[u8]>, FramingError> {
        let Some(announced) = self.announced() else {
            return Ok(None);
        };
        if announced > self.limit {
            return Err(FramingError::TooLong {
                announced,
                limit: self.limit,
            });
        }
        let start = self.taken.saturating_add(HEADER_BYTES);
        let end = start.saturating_add(announced);
        if self.buffer.len() < end {
            return Ok(None);
        }
        self.taken = end;
        Ok(self.buffer.get(start..end))
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    ///
    /// As [`Decoder::next_body`], and [`FramingError::Body`] when the body is no `T`; the
    /// stream stays in step then, and the next message can be read.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FramingError> {
        match self.next_body()? {
            None => Ok(None),
            Some(body) => serde_json::from_slice(body)
                .map(Some)
                .map_err(FramingError::Body),
        }
    }

    /// Says whether a stream that ends here ends between two messages.
    ///
    /// # Errors
    ///
    /// [`FramingError::Truncated`] when it does not.
    pub fn finish(&self) -> Result<(), FramingError> {
        let waiting = self.buffer.len().saturating_sub(self.taken);
        if waiting == 0 {
            return Ok(());
        }
        let owed = self.announced().unwrap_or(0).saturating_add(HEADER_BYTES);
        Err(FramingError::Truncated {
            missing: owed.saturating_sub(waiting),
        })
    }

    /// Length of the message that begins where the last one ended.
    fn announced(&self) -> Option<usize> {
        let header = self
            .buffer
            .get(self.taken..)?
            .first_chunk::<HEADER_BYTES>()?;
        usize::try_from(u32::from_be_bytes(*header)).ok()
    }
}

/// Reads until one whole message is there; `None` when the peer closed between two.
///
/// # Errors
///
/// As [`Decoder::next_message`] and [`Decoder::finish`]; [`FramingError::Io`] with the kind
/// `WouldBlock` or `TimedOut` when the stream has a time-out, which loses nothing: call again.
pub fn read<T: DeserializeOwned>(
    stream: &mut impl Read,
    decoder: &mut Decoder,
) -> Result<Option<T>, FramingError> {
    let mut chunk = [0; 16 << 10];
    loop {
        if let Some(message) = decoder.next_message()? {
            return Ok(Some(message));
        }
        match stream.read(&mut chunk) {
            Ok(0) => return decoder.finish().map(|()| None),
            Ok(count) => decoder.push(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FramingError::Io(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cut_anywhere_is_read_once_it_is_whole() {
        let mut bytes = encode(&"first", 64).unwrap();
        bytes.extend(encode(&"second", 64).unwrap());
        for cut in 0..=bytes.len() {
            let mut decoder = Decoder::new(64);
            let mut read = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.push(part);
                while let Some(message) = decoder.next_message::<String>().unwrap() {
                    read.push(message);
                }
            }
            assert_eq!(read, ["first", "second"], "cut at {cut}");
            decoder.finish().unwrap();
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_from_its_header_alone() {
        let mut decoder = Decoder::new(8);
        decoder.push(&[0, 0, 0, 9]);
        assert!(matches!(
            decoder.next_body(),
            Err(FramingError::TooLong {
                announced: 9,
                limit: 8
            })
        ));
        assert!(matches!(
            encode(&"0123456789", 8),
            Err(FramingError::TooLong { .. })
        ));
    }

    #[test]
    fn a_promised_length_allocates_nothing() {
        let mut decoder = Decoder::new(PUBLISH_BYTES_MAX);
        decoder.push(&[3, 255, 255, 255, b'{']);
        assert!(decoder.next_body().unwrap().is_none());
        assert!(decoder.buffer.capacity() < 64);
    }

    #[test]
    fn a_body_that_is_no_message_leaves_the_stream_in_step() {
        let mut decoder = Decoder::new(64);
        decoder.push(&[0, 0, 0, 1, b'}']);
        decoder.push(&encode(&7u8, 64).unwrap());
        assert!(matches!(
            decoder.next_message::<u8>(),
            Err(FramingError::Body(_))
        ));
        assert_eq!(decoder.next_message::<u8>().unwrap(), Some(7));
    }

    #[test]
    fn an_end_inside_a_message_says_how_much_is_missing() {
        let bytes = encode(&"cut", 64).unwrap();
        let mut decoder = Decoder::new(64);
        let end = read::<String>(&mut &bytes[..bytes.len() - 2], &mut decoder);
        assert!(
            matches!(end, Err(FramingError::Truncated { missing: 2 })),
            "{end:?}"
        );
    }
}
