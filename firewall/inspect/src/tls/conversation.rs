//! Both directions of a TLS connection, from the client's hello to the last byte in clear.

use policy::Reason;

use super::client_hello::{ClientHello, second_hello};
use super::framing::Framing;
use super::handshake::Certificates;
use super::server_hello::{ServerAnswer, ServerHello, server_hello};
use super::{Limits, version::TlsVersion};
use crate::progress::{Framed, Progress};

/// Follows a connection whose ClientHello has been judged and admitted.
///
/// Give it every byte of both directions once and in order: the client's from the first after
/// its hello, the server's from its first. [`Framed::safe`] then says up to where each
/// direction may be released. Both directions protected means nothing in clear is left, and the
/// kernel can carry the rest.
///
/// After an error the conversation is over; its state means nothing.
#[derive(Debug)]
pub struct Conversation {
    limits: Limits,
    hello: Box<ClientHello>,
    request: Option<ServerHello>,
    answer: Option<ServerAnswer>,
    client: Framing,
    server: Framing,
    /// The second ClientHello as far as it has come.
    second: Vec<u8>,
    /// The server's answer as far as it has come.
    pending: Vec<u8>,
}

impl Conversation {
    /// Starts after `hello`.
    #[must_use]
    pub fn new(hello: impl Into<Box<ClientHello>>, limits: Limits) -> Self {
        let hello = hello.into();
        Self {
            limits,
            client: Framing::client(&hello),
            server: Framing::server(),
            hello,
            request: None,
            answer: None,
            second: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// Takes the client's next bytes.
    ///
    /// # Errors
    ///
    /// The reason to refuse.
    pub fn client(&mut self, bytes: &[u8]) -> Result<Framed, Reason> {
        let taken = if self.second.is_empty() {
            self.client.advance(bytes)?
        } else {
            0
        };
        if let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            self.second.extend_from_slice(rest);
            self.read_second()?;
        }
        Ok(self.client.framed())
    }

    fn read_second(&mut self) -> Result<(), Reason> {
        // The framing stops for a hello only after a request for one.
        let request = self.request.as_ref().ok_or(Reason::Internal)?;
        match second_hello(&self.second, &self.hello, request, &self.limits) {
            Progress::Incomplete => Ok(()),
            Progress::Refused(rejected) => Err(rejected.reason),
            Progress::Complete(hello) => {
                let read = hello.bytes;
                *self.hello = hello;
                self.client.pass_over(read);
                self.client.repeated();
                let second = std::mem::take(&mut self.second);
                self.client
                    .advance(second.get(read..).unwrap_or_default())
                    .map(|_| ())
            }
        }
    }

    /// Takes the server's next bytes.
    ///
    /// # Errors
    ///
    /// The reason to refuse.
    pub fn server(&mut self, bytes: &[u8]) -> Result<Framed, Reason> {
        let taken = if self.pending.is_empty() {
            self.server.advance(bytes)?
        } else {
            0
        };
        let rest = bytes.get(taken..).unwrap_or_default();
        if !rest.is_empty() {
            let mut pending = std::mem::take(&mut self.pending);
            if pending.is_empty() {
                // Nearly every answer comes in one piece and is read where it lies.
                self.pending = self.read_answers(rest)?.to_vec();
            } else {
                pending.extend_from_slice(rest);
                let left = self.read_answers(&pending)?.len();
                pending.drain(..pending.len().saturating_sub(left));
                self.pending = pending;
            }
        }
        Ok(self.server.framed())
    }

    /// Reads a HelloRetryRequest, then the answer proper: at most two turns with progress. What is
    /// left is the beginning of an answer.
    fn read_answers<'a>(&mut self, mut pending: &'a [u8]) -> Result<&'a [u8], Reason> {
        while !pending.is_empty() {
            if self.request.is_some() && !self.hello.is_second() {
                // An answer to a second hello that has not been sent.
                return Err(Reason::TlsMalformed);
            }
            let answer = match server_hello(pending, &self.hello, &self.limits) {
                Progress::Incomplete => return Ok(pending),
                Progress::Refused(reason) => return Err(reason),
                Progress::Complete(answer) => answer,
            };
            let rest = pending.get(answer.bytes()..).unwrap_or_default();
            self.server.pass_over(answer.bytes());
            self.adopt(answer);
            let taken = self.server.advance(rest)?;
            pending = rest.get(taken..).unwrap_or_default();
        }
        Ok(pending)
    }

    fn adopt(&mut self, answer: ServerAnswer) {
        match answer {
            ServerAnswer::Hello(request) if request.is_retry => {
                self.client.retried(self.hello.early_data);
                self.server.retried(false);
                self.request = Some(request);
            }
            ServerAnswer::Hello(ref hello) => {
                self.client.answered(hello);
                self.server.answered(hello);
                self.answer = Some(answer);
            }
            ServerAnswer::Alert(_) => {
                self.server.end();
                self.answer = Some(answer);
            }
        }
    }

    /// The hello that counts: the second one, once there is one.
    #[must_use]
    pub fn hello(&self) -> &ClientHello {
        &self.hello
    }

    /// The server's answer, once it is whole; a HelloRetryRequest is none.
    #[must_use]
    pub const fn answer(&self) -> Option<&ServerAnswer> {
        self.answer.as_ref()
    }

    /// The server's hello, once it is whole and unless it answered with an alert.
    #[must_use]
    pub const fn server_hello(&self) -> Option<&ServerHello> {
        match &self.answer {
            Some(ServerAnswer::Hello(hello)) => Some(hello),
            Some(ServerAnswer::Alert(_)) | None => None,
        }
    }

    /// The version agreed on, once it is.
    #[must_use]
    pub fn version(&self) -> Option<TlsVersion> {
        self.server_hello().map(|hello| hello.version)
    }

    /// Whether the keys resist a quantum computer: by the group selected where that stands in
    /// clear, else (a request for another hello so far, or nothing) by what is known of it.
    #[must_use]
    pub fn is_pqc(&self) -> bool {
        let selected = self.server_hello().or(self.request.as_ref());
        selected.is_some_and(ServerHello::is_pqc)
    }

    /// The certificates of a TLS 1.2 server, once their message is whole. TLS 1.3 sends them
    /// protected, a resumed session not at all.
    #[must_use]
    pub const fn certificates(&self) -> Option<&Certificates> {
        self.server.certificates()
    }

    /// Whether both sides have sent protected data.
    #[must_use]
    pub const fn is_protected(&self) -> bool {
        self.client.framed().protected && self.server.framed().protected
    }

    /// Bytes held beyond the conversation itself, for the memory account.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.second.capacity() + self.pending.capacity() + self.server.buffered()
    }
}
