//! As much HTTP/1.1 as two programs on one machine need: bodies of a stated length, one exchange per connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The most a body may have.
const BODY_BYTES_MAX: usize = 32 << 20;

/// A request or an answer: its first line, its headers in lower case, its body.
#[derive(Debug, Clone, Default)]
pub(super) struct Message {
    /// `POST / HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub(super) line: String,
    /// By lower-case name; of repeated ones the last.
    pub(super) headers: BTreeMap<String, String>,
    /// The body.
    pub(super) body: Vec<u8>,
}

impl Message {
    /// An answer.
    pub(super) fn answer(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            line: format!("HTTP/1.1 {status} x"),
            headers: [("content-type".to_owned(), kind.to_owned())].into(),
            body: body.into(),
        }
    }

    /// The status of an answer.
    pub(super) fn status(&self) -> u16 {
        self.line
            .split(' ')
            .nth(1)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }

    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Reads one message; `None` when the peer closed instead.
    pub(super) fn read(stream: &mut impl Read) -> Result<Option<Self>> {
        let mut reader = BufReader::new(stream);
        let mut message = Self::default();
        if reader
            .read_line(&mut message.line)
            .context("the first line")?
            == 0
        {
            return Ok(None);
        }
        message.line.truncate(message.line.trim_end().len());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).context("a header")?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').context("a header with a colon")?;
            message
                .headers
                .insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        message.read_body(&mut reader)?;
        Ok(Some(message))
    }

    fn read_body(&mut self, reader: &mut impl BufRead) -> Result<()> {
        if self
            .headers
            .get("transfer-encoding")
            .is_some_and(|value| value == "chunked")
        {
            return self.read_chunks(reader);
        }
        let Some(length) = self.headers.get("content-length") else {
            // An answer without a length goes on to the end; a request without one has no body.
            if self.line.starts_with("HTTP/") {
                reader.read_to_end(&mut self.body).context("a body")?;
            }
            return Ok(());
        };
        let length: usize = length.parse().context("a length")?;
        if length > BODY_BYTES_MAX {
            bail!("a body of {length} bytes");
        }
        self.body.resize(length, 0);
        reader.read_exact(&mut self.body).context("a body")
    }

    fn read_chunks(&mut self, reader: &mut impl BufRead) -> Result<()> {
        loop {
            let mut line = String::new();
            reader
                .read_line(&mut line)
                .context("the length of a chunk")?;
            let length = usize::from_str_radix(line.trim(), 16).context("the length of a chunk")?;
            let start = self.body.len();
            if start + length > BODY_BYTES_MAX {
                bail!("a body too long");
            }
            self.body.resize(start + length, 0);
            reader
                .read_exact(&mut self.body[start..])
                .context("a chunk")?;
            reader.read_line(&mut line).context("the end of a chunk")?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// The bytes to send: its own length, and no second exchange.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            if ![
                "content-length",
                "connection",
                "transfer-encoding",
                "expect",
            ]
            .contains(&name.as_str())
            {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str(&format!(
            "content-length: {}\r\nconnection: close\r\n\r\n",
            self.body.len()
        ));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Sends a request and reads the answer.
pub(super) fn exchange(address: SocketAddr, request: &Message) -> Result<Message> {
    let limit = Duration::from_secs(30);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(&request.bytes())?;
    Message::read(&mut stream)?.context("an answer")
}

/// The pairs of an `application/x-www-form-urlencoded` body.
pub(super) fn form(body: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(body);
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

/// Writes pairs as such a body.
pub(super) fn form_body(pairs: &[(&str, &str)]) -> Vec<u8> {
    let pair = |(key, value): &(&str, &str)| format!("{}={}", encode(key), encode(value));
    pairs
        .iter()
        .map(pair)
        .collect::<Vec<_>>()
        .join("&")
        .into_bytes()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits).into_owned();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_survives_its_own_encoding() {
        let pairs = [
            ("Description", "postern:tls:*.a.example, b & \"c\" + ü"),
            ("X", ""),
        ];
        let read = form(&form_body(&pairs));
        let read: Vec<(&str, &str)> = read
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(read, pairs);
    }
}
