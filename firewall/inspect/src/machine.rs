//! What follows a flow from its client's first message to the last byte in clear.

use policy::{HostKeyPin, Name, Reason};

use crate::claim::Candidate;
use crate::flow::Side;
use crate::progress::Framed;
use crate::{ssh, tls};

/// The protocol of a flow whose client has been allowed.
#[derive(Debug)]
pub(crate) enum Machine {
    Tls(Box<TlsMachine>),
    Ssh(Box<SshMachine>),
}

#[derive(Debug)]
pub(crate) struct TlsMachine {
    conversation: tls::Conversation,
    name: Option<Name>,
    /// Stream bytes of the first hello, which the conversation does not count.
    hello_bytes: usize,
}

#[derive(Debug)]
pub(crate) struct SshMachine {
    conversation: ssh::Conversation,
    /// Names the flow may be for; those whose pins the server's key does not match drop out.
    candidates: Vec<Candidate>,
}

impl Machine {
    pub(crate) fn tls(hello: Box<tls::ClientHello>) -> Self {
        Self::Tls(Box::new(TlsMachine {
            name: hello.server_name.name().cloned(),
            hello_bytes: hello.bytes,
            conversation: tls::Conversation::new(hello, tls::Limits::default()),
        }))
    }

    pub(crate) fn ssh(candidates: Vec<Candidate>) -> Self {
        Self::Ssh(Box::new(SshMachine {
            conversation: ssh::Conversation::new(),
            candidates,
        }))
    }

    /// Where in the client's stream reading begins.
    pub(crate) const fn starts_at(&self) -> usize {
        match self {
            Self::Tls(tls) => tls.hello_bytes,
            Self::Ssh(_) => 0,
        }
    }

    /// Takes the next bytes of one side. `safe` counts from the start of that side's stream.
    pub(crate) fn take(&mut self, side: Side, bytes: &[u8]) -> Result<Framed, Reason> {
        match self {
            Self::Tls(tls) => match side {
                Side::Client => {
                    let mut framed = tls.conversation.client(bytes)?;
                    let hello = u64::try_from(tls.hello_bytes).unwrap_or(u64::MAX);
                    framed.safe = framed.safe.saturating_add(hello);
                    Ok(framed)
                }
                Side::Server => tls.conversation.server(bytes),
            },
            Self::Ssh(ssh) => match side {
                Side::Client => ssh.conversation.client(bytes),
                Side::Server => {
                    let framed = ssh.conversation.server(bytes)?;
                    ssh.check_host_key()?;
                    Ok(framed)
                }
            },
        }
    }

    /// Whether the server's first message is complete and was found good.
    pub(crate) fn is_answered(&self) -> bool {
        match self {
            Self::Tls(tls) => tls.conversation.answer().is_some(),
            Self::Ssh(ssh) => {
                let checked = ssh.candidates.is_empty()
                    || ssh
                        .candidates
                        .iter()
                        .any(|candidate| candidate.pins.is_empty())
                    || ssh.conversation.host_key().is_some();
                checked && ssh.conversation.server_kexinit().is_some()
            }
        }
    }

    /// The version agreed on, for the server's line.
    pub(crate) fn version(&self) -> &'static str {
        match self {
            Self::Tls(tls) => tls
                .conversation
                .version()
                .map_or("", tls::TlsVersion::as_str),
            Self::Ssh(ssh) => {
                if ssh.conversation.server_identification().is_some() {
                    "2.0"
                } else {
                    ""
                }
            }
        }
    }

    /// Whether a post-quantum key exchange was agreed on.
    pub(crate) fn is_pqc(&self) -> bool {
        match self {
            Self::Tls(tls) => tls.conversation.is_pqc(),
            Self::Ssh(_) => false,
        }
    }

    /// The name the flow is for, as far as that is settled.
    pub(crate) fn name(&self) -> Option<&Name> {
        match self {
            Self::Tls(tls) => tls.name.as_ref(),
            Self::Ssh(ssh) => ssh.candidates.first().map(|candidate| &candidate.name),
        }
    }

    /// Bytes kept inside, beyond the streams.
    pub(crate) fn buffered(&self) -> usize {
        match self {
            Self::Tls(tls) => tls.conversation.buffered(),
            Self::Ssh(ssh) => ssh.conversation.buffered(),
        }
    }
}

impl SshMachine {
    /// Drops the candidates whose pins the server's key does not match. Nothing of the packet
    /// the key came in, or of the NEWKEYS that would hide it, is let through on failure.
    fn check_host_key(&mut self) -> Result<(), Reason> {
        let pinned = self
            .candidates
            .iter()
            .any(|candidate| !candidate.pins.is_empty());
        if !pinned {
            return Ok(());
        }
        let key = self
            .conversation
            .host_key()
            .map(|key| HostKeyPin::new(key.sha256));
        if key.is_none() && !self.conversation.has_server_new_keys() {
            return Ok(());
        }
        self.candidates.retain(|candidate| {
            candidate.pins.is_empty() || key.is_some_and(|key| candidate.pins.contains(&key))
        });
        if self.candidates.is_empty() {
            Err(Reason::SshHostKey)
        } else {
            Ok(())
        }
    }
}
