//! Which addresses are bound to which names: part of the answer behind `postern status --json`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::record::Timestamp;

/// One page of bindings, in ascending order of names and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BindingsReply {
    /// Those that count now.
    pub bindings: Vec<BindingState>,
    /// Whether there are others after the last.
    pub more: bool,
}

/// Where a binding stands among the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingPlace {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

/// One address of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingState {
    /// The name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// The type of the record that named it first: `A`, `AAAA`, or `HTTPS` for a hint.
    pub record: String,
    /// The aliases followed to it in that answer, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// The resolver that gave that answer, `address:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// When that was.
    pub learnt: Timestamp,
    /// When the newest answer that held it goes stale.
    pub fresh_until: Timestamp,
    /// When it counts no more, unless another answer holds it.
    pub expires: Timestamp,
    /// Answers that held it.
    pub sightings: u32,
    /// Whether a flow to it was judged and allowed under this name.
    pub judged: bool,
}

impl BindingState {
    /// Where it stands, to ask for what comes after it.
    #[must_use]
    pub fn place(&self) -> BindingPlace {
        BindingPlace {
            name: self.name.clone(),
            address: self.address,
        }
    }
}
