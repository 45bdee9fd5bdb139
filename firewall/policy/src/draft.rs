//! What is published: plain data, in no particular order, before anything is compiled.

use ipnet::IpNet;

use crate::preferences::Preferences;
use crate::{Date, Fault, HostKeyPin, Kind, Name, Pattern, PortRange, RuleTransport};

/// One whole policy, as a provider read it.
///
/// Order carries no meaning anywhere in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Settings of the whole deployment.
    pub preferences: Preferences,
    /// Who may reach what.
    pub groups: Vec<Group>,
    /// Which addresses belong to which groups.
    pub clients: Vec<Client>,
    /// The prefixes whose addresses may be clients at all.
    pub served: Vec<IpNet>,
    /// What was wrong with the objects this was read from.
    pub faults: Vec<Fault>,
}

/// A security group (AWS), an annotated firewall rule (GCP) or a `[[group]]` of an inventory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// The cloud's id, or the inventory's; the log's `gid`.
    pub gid: String,
    /// Its rules; they add up.
    pub rules: Vec<Rule>,
}

/// One egress rule and what its description allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The cloud's rule id; in an inventory the position within the group, from 1.
    pub rule: String,
    /// The protocol the rule is for.
    pub transport: RuleTransport,
    /// The destination ports the rule is for.
    pub ports: PortRange,
    /// The destination prefix; compared by `address` entries only.
    pub cidr: Option<IpNet>,
    /// What the description allows.
    pub entries: Vec<Entry>,
}

/// One thing that a rule allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// One exact name.
    Name {
        /// The protocol in which the name is claimed.
        kind: Kind,
        /// The name.
        name: Name,
        /// The only host key accepted, for `ssh`.
        host_key: Option<HostKeyPin>,
        /// The external list that holds this entry, as the description refers to it.
        list: Option<String>,
    },
    /// Every name that a pattern covers.
    Pattern {
        /// The protocol in which the name is claimed.
        kind: Kind,
        /// The pattern.
        pattern: Pattern,
        /// The external list that holds this entry, as the description refers to it.
        list: Option<String>,
    },
    /// Everything within the rule's protocol, ports and CIDR, with no name claimed.
    Address {
        /// What the author wrote about it.
        comment: Option<String>,
    },
    /// Everything within the rule's protocol and ports, through a day.
    SeeThru {
        /// The last day, UTC.
        until: Date,
    },
}

impl Entry {
    /// The external list this entry came from, if it came from one.
    pub fn list(&self) -> Option<&str> {
        match self {
            Self::Name { list, .. } | Self::Pattern { list, .. } => list.as_deref(),
            Self::Address { .. } | Self::SeeThru { .. } => None,
        }
    }
}

/// One address or prefix that is a client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// Its address or prefix; the longest prefix that holds an address decides.
    pub net: IpNet,
    /// The instance behind it; the log's `instance`.
    pub instance: String,
    /// The groups it belongs to, by gid; groups that do not exist allow nothing.
    pub groups: Vec<String>,
}
