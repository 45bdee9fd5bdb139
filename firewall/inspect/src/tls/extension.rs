//! The extensions block of a hello: walked strictly, every vector consumed exactly.

use policy::Reason;
use smallvec::SmallVec;

use super::client_hello::{Groups, KeyShares};
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

/// The extensions of a hello, in their order.
#[derive(Debug, Clone)]
pub(super) struct Extensions<'a> {
    block: Reader<'a>,
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(Extension {
            kind: self.block.u16()?,
            content: self.block.vec16()?.rest(),
        })
    }
}

/// Splits what follows the compression methods of a hello into its extensions.
///
/// `None` unless the block is absent or fills the rest of the message exactly, its entries fill
/// it exactly, and none of them overruns.
pub(super) fn split(mut message: Reader<'_>) -> Option<Extensions<'_>> {
    let block = if message.is_empty() {
        message
    } else {
        message.vec16()?
    };
    let mut entries = block;
    while !entries.is_empty() {
        entries.u16()?;
        entries.vec16()?;
    }
    message.is_empty().then_some(Extensions { block })
}

/// Whether a kind other than `except` stands there twice (RFC 8446, section 4.2).
pub(super) fn has_duplicates(extensions: Extensions<'_>, except: Option<u16>) -> bool {
    // Nearly all kinds are below 64; the others are few, unless somebody tries.
    let mut low = 0_u64;
    let mut high: SmallVec<[u16; 16]> = SmallVec::new();
    for extension in extensions {
        let kind = extension.kind;
        if kind >= 64 {
            high.push(kind);
            continue;
        }
        let bit = 1_u64 << kind;
        if low & bit != 0 && Some(kind) != except {
            return true;
        }
        low |= bit;
    }
    high.sort_unstable();
    high.windows(2).any(|pair| match pair {
        [one, other] => one == other && Some(*one) != except,
        _ => false,
    })
}

/// What the extensions of a ClientHello say, as far as anything here depends on it.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) server_name: ServerName,
    pub(super) listed_versions: Option<Versions>,
    pub(super) groups: Groups,
    pub(super) key_shares: KeyShares,
    pub(super) ech: bool,
    pub(super) early_data: bool,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            server_name: ServerName::Absent,
            listed_versions: None,
            groups: SmallVec::new(),
            key_shares: SmallVec::new(),
            ech: false,
            early_data: false,
        }
    }
}

impl Offer {
    /// Reads every extension this module knows; on a refusal what was read before it stays.
    pub(super) fn read(&mut self, extensions: &Extensions<'_>) -> Result<(), Reason> {
        let mut left = extensions.clone();
        while let Some(extension) = left.next() {
            let is_last = left.block.is_empty();
            self.take(&extension, is_last).ok_or(Reason::TlsMalformed)?;
        }
        if has_duplicates(extensions.clone(), Some(SERVER_NAME)) {
            return Err(Reason::TlsMalformed);
        }
        Ok(())
    }

    fn take(&mut self, extension: &Extension<'_>, is_last: bool) -> Option<()> {
        let content = Reader::new(extension.content);
        match extension.kind {
            SERVER_NAME => self.take_server_name(extension.content),
            SUPPORTED_VERSIONS => {
                let list = not_empty(whole(content, Reader::vec8)?.u16s()?)?;
                self.listed_versions = Some(Versions::listed(list));
            }
            SUPPORTED_GROUPS => {
                let list = not_empty(whole(content, Reader::vec16)?.u16s()?)?;
                self.groups = list.filter(|&group| !is_grease(group)).collect();
            }
            KEY_SHARE => self.key_shares = key_shares(content)?,
            ALPN => return has_protocols(content),
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

fn not_empty<T: ExactSizeIterator>(list: T) -> Option<T> {
    (list.len() > 0).then_some(list)
}

/// Groups of the client's key shares (RFC 8446, section 4.2.8), GREASE left out; no group twice.
fn key_shares(content: Reader<'_>) -> Option<KeyShares> {
    let mut list = whole(content, Reader::vec16)?;
    let mut groups = KeyShares::new();
    while !list.is_empty() {
        groups.push(list.u16()?);
        if list.vec16()?.is_empty() {
            return None;
        }
    }
    let mut sorted = groups.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != groups.len() {
        return None;
    }
    groups.retain(|group| !is_grease(*group));
    Some(groups)
}

/// Whether these are protocol names (RFC 7301, section 3.1), at least one. Which is of no interest.
fn has_protocols(content: Reader<'_>) -> Option<()> {
    let mut list = whole(content, Reader::vec16)?;
    if list.is_empty() {
        return None;
    }
    while !list.is_empty() {
        if list.vec8()?.is_empty() {
            return None;
        }
    }
    Some(())
}
