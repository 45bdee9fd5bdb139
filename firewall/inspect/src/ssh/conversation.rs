//! Both directions of an SSH connection, from the first byte to NEWKEYS.

use policy::Reason;

use super::host_key::HostKey;
use super::identification::{
    Identification, client_identification, lines_before, server_identification,
};
use super::kexinit::{KexInit, Negotiated, negotiate};
use super::packet::{Order, Packet, Role};
use crate::progress::{Framed, Progress};

/// Follows an SSH connection.
///
/// Give it every byte of both directions once and in order. [`Framed::safe`] then says up to
/// where each direction is understood; whether it may be released is the engine's decision: a
/// client's identification, for instance, waits for the address to be judged.
///
/// After an error the conversation is over; its state means nothing.
#[derive(Debug, Default)]
pub struct Conversation {
    client: Direction,
    server: Direction,
    negotiated: Option<Negotiated>,
    host_key: Option<HostKey>,
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    identification: Option<Identification>,
    kexinit: Option<KexInit>,
    order: Order,
    has_new_keys: bool,
    framed: Framed,
    /// Bytes of a line or packet that is not whole.
    pending: Vec<u8>,
}

impl Conversation {
    /// Starts before the first byte of either side.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the client's next bytes.
    ///
    /// # Errors
    ///
    /// The reason to refuse.
    pub fn client(&mut self, bytes: &[u8]) -> Result<Framed, Reason> {
        self.client
            .take(bytes, client_identification, |_, _| Ok(()))?;
        self.agree();
        Ok(self.client.framed)
    }

    /// Takes the server's next bytes.
    ///
    /// # Errors
    ///
    /// The reason to refuse.
    pub fn server(&mut self, bytes: &[u8]) -> Result<Framed, Reason> {
        let Self {
            client,
            server,
            negotiated,
            host_key,
        } = self;
        server.take(bytes, server_identification, |kexinit, payload| {
            let agreed = match negotiated {
                Some(agreed) => agreed,
                // A server answers the client's half of the exchange: both KEXINITs are known.
                None => {
                    let both = client.kexinit.as_ref().zip(kexinit);
                    let agreed = both.and_then(|(client, server)| negotiate(client, server));
                    negotiated.insert(agreed.ok_or(Reason::SshMalformed)?)
                }
            };
            if let Some(key) = HostKey::read(payload, agreed) {
                // One exchange, one key: a second would leave open which one was checked.
                if host_key.replace(key).is_some() {
                    return Err(Reason::SshMalformed);
                }
            }
            Ok(())
        })?;
        if self.server.identification.is_none() {
            // Lines in front of it are text for the user: each may pass once it is whole.
            self.server.framed.safe = lines_before(&self.server.pending)?.0 as u64;
        }
        self.agree();
        Ok(self.server.framed)
    }

    fn agree(&mut self) {
        if self.negotiated.is_none()
            && let Some((client, server)) = self
                .client
                .kexinit
                .as_ref()
                .zip(self.server.kexinit.as_ref())
        {
            self.negotiated = negotiate(client, server);
        }
    }

    /// The client's identification, once it is whole.
    #[must_use]
    pub const fn client_identification(&self) -> Option<&Identification> {
        self.client.identification.as_ref()
    }

    /// The server's identification, once it is whole.
    #[must_use]
    pub const fn server_identification(&self) -> Option<&Identification> {
        self.server.identification.as_ref()
    }

    /// The client's KEXINIT, once it is whole.
    #[must_use]
    pub const fn client_kexinit(&self) -> Option<&KexInit> {
        self.client.kexinit.as_ref()
    }

    /// The server's KEXINIT, once it is whole.
    #[must_use]
    pub const fn server_kexinit(&self) -> Option<&KexInit> {
        self.server.kexinit.as_ref()
    }

    /// What both sides agree on, once both KEXINITs are whole and if they do.
    #[must_use]
    pub const fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }

    /// The host key the server has presented. A rule that pins one must find it here before the
    /// server's NEWKEYS is released: where a method presents none, this stays empty.
    #[must_use]
    pub const fn host_key(&self) -> Option<&HostKey> {
        self.host_key.as_ref()
    }

    /// Whether the server has switched to encryption.
    #[must_use]
    pub const fn has_server_new_keys(&self) -> bool {
        self.server.has_new_keys
    }

    /// Whether both sides have sent encrypted data.
    #[must_use]
    pub const fn is_protected(&self) -> bool {
        self.client.framed.protected && self.server.framed.protected
    }

    /// Bytes held beyond the conversation itself, for the memory account.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.client.pending.capacity() + self.server.pending.capacity()
    }
}

impl Direction {
    /// Takes bytes, reading lines until the identification and packets from there.
    ///
    /// `exchange` sees the payload of every key exchange packet.
    fn take(
        &mut self,
        bytes: &[u8],
        identify: fn(&[u8]) -> Progress<Identification>,
        mut exchange: impl FnMut(Option<&KexInit>, &[u8]) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        if self.framed.ended && !bytes.is_empty() {
            return Err(Reason::SshMalformed);
        }
        if self.has_new_keys {
            self.pass(bytes.len());
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let read = self.read(&pending, identify, &mut exchange)?;
        pending.drain(..read);
        self.pending = pending;
        Ok(())
    }

    /// Reads whole lines and packets; says how many bytes they are.
    fn read(
        &mut self,
        stream: &[u8],
        identify: fn(&[u8]) -> Progress<Identification>,
        exchange: &mut impl FnMut(Option<&KexInit>, &[u8]) -> Result<(), Reason>,
    ) -> Result<usize, Reason> {
        let mut position = 0;
        if self.identification.is_none() {
            match identify(stream) {
                Progress::Refused(reason) => return Err(reason),
                Progress::Incomplete => return Ok(0),
                Progress::Complete(identification) => {
                    position = identification.bytes;
                    self.framed.safe = position as u64;
                    self.identification = Some(identification);
                }
            }
        }
        loop {
            let rest = stream.get(position..).unwrap_or_default();
            if self.has_new_keys {
                self.pass(rest.len());
                return Ok(stream.len());
            }
            if self.framed.ended && !rest.is_empty() {
                return Err(Reason::SshMalformed);
            }
            let Some(packet) = Packet::read(rest)? else {
                return Ok(position);
            };
            self.packet(packet.payload, exchange)?;
            self.framed.safe += packet.bytes as u64;
            position += packet.bytes;
        }
    }

    fn packet(
        &mut self,
        payload: &[u8],
        exchange: &mut impl FnMut(Option<&KexInit>, &[u8]) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        match self.order.admit(payload)? {
            Role::KexInit => {
                self.kexinit = Some(KexInit::read(payload).ok_or(Reason::SshMalformed)?);
            }
            Role::KeyExchange => exchange(self.kexinit.as_ref(), payload)?,
            Role::NewKeys => self.has_new_keys = true,
            Role::Disconnect => self.framed.ended = true,
            Role::Aside => {}
        }
        Ok(())
    }

    /// Encrypted bytes: nothing in them can be read.
    fn pass(&mut self, bytes: usize) {
        self.framed.safe += bytes as u64;
        self.framed.protected |= bytes > 0;
    }
}
