//! The snapshot document: what is published, and what the daemon keeps on disk.
//!
//! A document says its version; [`read`] looks at that first, so that a daemon that was rolled
//! back knows a later build's file when it sees one (DESIGN, section 4.4). Within a version an
//! unknown field is an error: a field that was not understood might have been a restriction.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{OLDEST_VERSION, VERSION};

mod convert;
mod large;
mod stored;

pub use convert::InvalidSnapshot;
pub use large::{ReadDraftError, read_draft};
pub use stored::{StoredOverlayV1, StoredV1, read_stored, stored_head, stored_tail};

/// Why a document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadSnapshotError {
    /// A later build wrote it.
    #[error(
        "version {found} was written by a later build; this one reads {OLDEST_VERSION} to {VERSION}"
    )]
    Newer {
        /// The version it says.
        found: u32,
    },
    /// A build wrote it that is too old.
    #[error("version {found} is too old; this build reads {OLDEST_VERSION} to {VERSION}")]
    Older {
        /// The version it says.
        found: u32,
    },
    /// It is not a snapshot document.
    #[error("not a snapshot document")]
    Malformed(#[source] serde_json::Error),
}

impl ReadSnapshotError {
    /// Whether the document may be fine for another build.
    #[must_use]
    pub fn is_version(&self) -> bool {
        !matches!(self, Self::Malformed(_))
    }
}

/// Reads a document of any version this build knows.
///
/// # Errors
///
/// See [`ReadSnapshotError`].
pub fn read(json: &[u8]) -> Result<SnapshotV1, ReadSnapshotError> {
    read_versioned(json, |document: &SnapshotV1| document.version)
}

/// Reads `json` as a `T` of version 1, or says which version it has instead.
fn read_versioned<T: for<'de> Deserialize<'de>>(
    json: &[u8],
    version_of: impl FnOnce(&T) -> u32,
) -> Result<T, ReadSnapshotError> {
    #[derive(Deserialize)]
    struct Header {
        version: u32,
    }
    let shape = match serde_json::from_slice::<T>(json) {
        Ok(document) if version_of(&document) == 1 => return Ok(document),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    let header: Header = serde_json::from_slice(json).map_err(ReadSnapshotError::Malformed)?;
    match (header.version, shape) {
        (found, _) if found > VERSION => Err(ReadSnapshotError::Newer { found }),
        (found, _) if found < OLDEST_VERSION => Err(ReadSnapshotError::Older { found }),
        (_, Some(error)) => Err(ReadSnapshotError::Malformed(error)),
        (found, None) => Err(ReadSnapshotError::Older { found }),
    }
}

/// Version 1 of the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotV1 {
    /// Always 1.
    pub version: u32,
    /// Deployment-wide preferences.
    pub preferences: PreferencesV1,
    /// Who lists which names.
    pub groups: Vec<GroupV1>,
    /// Whose addresses are in which groups.
    pub clients: Vec<ClientV1>,
    /// Networks whose unknown addresses are worth waiting for.
    pub served: Vec<IpNet>,
    /// What was found wrong while reading.
    pub faults: Vec<FaultV1>,
}

impl SnapshotV1 {
    /// The document as JSON, the same bytes for the same content.
    ///
    /// # Errors
    ///
    /// Never in fact: nothing in a snapshot fails to be JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// A security group, or a firewall rule of GCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupV1 {
    /// As logs show it.
    pub gid: String,
    /// Its annotated rules.
    pub rules: Vec<RuleV1>,
}

/// One rule with an annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleV1 {
    /// The cloud's id of it.
    pub rule: String,
    /// Protocols it carries.
    pub transport: TransportV1,
    /// First and last port; 0 and 65535 for all.
    pub ports: (u16, u16),
    /// Compared by `address` entries only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<IpNet>,
    /// What its annotation lists.
    pub entries: Vec<EntryV1>,
}

/// Protocols a rule carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportV1 {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Any IP protocol.
    All,
}

/// One entry of an annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EntryV1 {
    /// An exact name.
    Name {
        /// Which protocol may claim it.
        kind: KindV1,
        /// The name, lower case.
        name: String,
        /// `SHA256:` and base64: the only host key its SSH server may show.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_key: Option<String>,
        /// The external list it came from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<String>,
    },
    /// A pattern of names.
    Pattern {
        /// Which protocol may claim a name it matches.
        kind: KindV1,
        /// The pattern, lower case.
        pattern: String,
        /// The external list it came from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<String>,
    },
    /// The rule's own protocol, ports and CIDR, no name claimed.
    Address {
        /// What the annotation says about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    /// Everything within the rule's ports, logged.
    SeeThru {
        /// Through this day, UTC: `YYYY-MM-DD`.
        until: String,
    },
}

/// A protocol that claims names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KindV1 {
    /// TLS, by server name.
    Tls,
    /// SSH, by the names bound to the address.
    Ssh,
    /// HTTP, by Host header.
    Http,
}

/// Who has an address, and which groups it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientV1 {
    /// Its address, as a prefix of full length, or its prefix.
    pub net: IpNet,
    /// As logs show it.
    pub instance: String,
    /// Group ids.
    pub groups: Vec<String>,
}

/// Something written wrong, that spared the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultV1 {
    /// The object it is in: a gid, a list, `preferences`.
    pub object: String,
    /// The rule of that object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The external list that holds the offending text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// The line of the list, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in the description or the line, counted in characters from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// A stable word for what is wrong.
    pub kind: String,
    /// The offending text, as written.
    pub text: String,
    /// What is wrong with it, for people.
    pub detail: String,
}

/// The preferences of DESIGN, section 4.2, all of them, in the words written there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "each field is a key of DESIGN, section 4.2, and is explained there"
)]
pub struct PreferencesV1 {
    pub wildcard_exposure: String,
    pub flow_log_verbosity: String,
    pub see_thru: Option<String>,
    pub x509_crls: String,
    pub certificate_check: String,
    pub address_mismatch: String,
    pub ech: String,
    pub plaintext_http: String,
    pub address_rules: String,
    pub quic: String,
    pub on_policy_change: String,
    pub allow_private_answers: Vec<IpNet>,
    pub dns_front: String,
    pub internal_zones: Vec<String>,
}

impl Default for PreferencesV1 {
    fn default() -> Self {
        Self::from(&policy::Preferences::default())
    }
}

#[cfg(test)]
mod tests;
