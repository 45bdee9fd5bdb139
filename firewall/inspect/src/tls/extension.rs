//! The extensions block of a hello: walked strictly, every vector consumed exactly.

use policy::Reason;

use super::version::{TlsVersion, Versions};
use super::{is_grease, server_name::ServerName};
use crate::reader::Reader;

pub(super) const SERVER_NAME: u16 = 0;
pub(super) const SUPPORTED_GROUPS: u16 = 10;
pub(super) const ALPN: u16 = 16;
pub(super) const PRE_SHARED_KEY: u16 = 41;
pub(super) const EARLY_DATA: u16 = 42;
pub(super) const SUPPORTED_VERSIONS: u16 = 43;
pub(super) const KEY_SHARE: u16 = 51;
/// RFC 9849, section 5.
pub(super) const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// Its predecessor, draft-ietf-tls-esni-02.
pub(super) const ENCRYPTED_SERVER_NAME: u16 = 0xffce;

/// One extension of a hello.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extension<'a> {
    pub(super) kind: u16,
    pub(super) content: &'a [u8],
}

/// Splits what follows the compression methods of a hello into its extensions.
///
/// `None` unless the block is absent or fills the rest of the message exactly, its entries fill
/// it exactly, and none of them overruns.
pub(super) fn split(mut message: Reader<'_>) -> Option<Vec<Extension<'_>>> {
    let mut found = Vec::new();
    if message.is_empty() {
        return Some(found);
    }
    let mut block = message.vec16()?;
    while !block.is_empty() {
        found.push(Extension {
            kind: block.u16()?,
            content: block.vec16()?.rest(),
        });
    }
    message.is_empty().then_some(found)
}

/// Whether a kind other than `except` stands there twice (RFC 8446, section 4.2).
pub(super) fn has_duplicates(extensions: &[Extension<'_>], except: Option<u16>) -> bool {
    let mut kinds: Vec<u16> = extensions.iter().map(|extension| extension.kind).collect();
    kinds.sort_unstable();
    kinds.windows(2).any(|pair| match pair {
        [one, other] => one == other && Some(*one) != except,
        _ => false,
    })
}

/// What the extensions of a ClientHello say, as far as anything here depends on it.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) server_name: ServerName,
    pub(super) listed_versions: Option<Versions>,
    pub(super) groups: Vec<u16>,
    pub(super) key_shares: Vec<u16>,
    pub(super) alpn: Vec<Box<[u8]>>,
    pub(super) ech: bool,
    pub(super) early_data: bool,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            server_name: ServerName::Absent,
            listed_versions: None,
            groups: Vec::new(),
            key_shares: Vec::new(),
            alpn: Vec::new(),
            ech: false,
            early_data: false,
        }
    }
}

impl Offer {
    /// Reads every extension this module knows; on a refusal what was read before it stays.
    pub(super) fn read(&mut self, extensions: &[Extension<'_>]) -> Result<(), Reason> {
        for (index, extension) in extensions.iter().enumerate() {
            let is_last = index + 1 == extensions.len();
            self.take(extension, is_last).ok_or(Reason::TlsMalformed)?;
        }
        if has_duplicates(extensions, Some(SERVER_NAME)) {
            return Err(Reason::TlsMalformed);
        }
        Ok(())
    }

    fn take(&mut self, extension: &Extension<'_>, is_last: bool) -> Option<()> {
        let content = Reader::new(extension.content);
        match extension.kind {
            SERVER_NAME => self.take_server_name(extension.content),
            SUPPORTED_VERSIONS => {
                let list = whole(content, Reader::vec8)?.u16s()?;
                self.listed_versions = Some(Versions::listed(&not_empty(list)?));
            }
            SUPPORTED_GROUPS => {
                let list = whole(content, Reader::vec16)?.u16s()?;
                self.groups = without_grease(not_empty(list)?);
            }
            KEY_SHARE => self.key_shares = without_grease(key_shares(content)?),
            ALPN => self.alpn = protocols(content)?,
            EARLY_DATA => {
                self.early_data = true;
                return content.is_empty().then_some(());
            }
            // RFC 8446, section 4.2.11: the binders are over everything in front of them.
            PRE_SHARED_KEY => return is_last.then_some(()),
            ENCRYPTED_CLIENT_HELLO | ENCRYPTED_SERVER_NAME => self.ech = true,
            _ => {}
        }
        Some(())
    }

    fn take_server_name(&mut self, content: &[u8]) {
        self.server_name = if self.server_name == ServerName::Absent {
            ServerName::read(content)
        } else {
            ServerName::Multiple(self.server_name.log_text().into())
        };
    }

    /// The versions offered (RFC 8446, section 4.2.1: the list, if there is one, alone counts).
    pub(super) fn versions(&self, legacy: TlsVersion) -> Versions {
        self.listed_versions
            .unwrap_or_else(|| Versions::up_to(legacy))
    }
}

/// Reads one vector that must fill `content`.
fn whole<'a>(
    mut content: Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Option<Reader<'a>>,
) -> Option<Reader<'a>> {
    let vector = read(&mut content)?;
    content.is_empty().then_some(vector)
}

fn not_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn without_grease(mut list: Vec<u16>) -> Vec<u16> {
    list.retain(|&value| !is_grease(value));
    list
}

/// Groups of the client's key shares (RFC 8446, section 4.2.8); no group twice.
fn key_shares(content: Reader<'_>) -> Option<Vec<u16>> {
    let mut list = whole(content, Reader::vec16)?;
    let mut groups = Vec::new();
    while !list.is_empty() {
        groups.push(list.u16()?);
        if list.vec16()?.is_empty() {
            return None;
        }
    }
    let mut sorted = groups.clone();
    sorted.sort_unstable();
    sorted.dedup();
    (sorted.len() == groups.len()).then_some(groups)
}

/// Protocol names (RFC 7301, section 3.1).
fn protocols(content: Reader<'_>) -> Option<Vec<Box<[u8]>>> {
    let mut list = whole(content, Reader::vec16)?;
    let mut names: Vec<Box<[u8]>> = Vec::new();
    while !list.is_empty() {
        let name = list.vec8()?;
        if name.is_empty() {
            return None;
        }
        names.push(name.rest().into());
    }
    not_empty(names)
}
