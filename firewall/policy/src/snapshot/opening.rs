//! What a name opens and for whom, turned around: for an index from addresses to clients, so that
//! a SYN is decided without walking the names its destination is bound to.

use crate::{Name, PortRange, Transport};

use super::Snapshot;
use super::client::ClientRef;

/// A group of one snapshot. Means nothing in another.
pub type GroupRef = u32;

/// One TCP opening that a name gives the members of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opening {
    /// Whose.
    pub group: GroupRef,
    /// Where.
    pub ports: PortRange,
}

impl Snapshot {
    /// What a name opens over TCP, by exact entries and by patterns, each opening once, in
    /// ascending order of groups.
    ///
    /// A client may reach the name on a port exactly when one of these has a group of
    /// [`Snapshot::groups_of`] and holds the port.
    pub fn openings(&self, name: &Name) -> Vec<Opening> {
        let mut openings = Vec::new();
        self.names.ranks_of(name, &mut |rank| {
            let rule = self.rules.rule(rank);
            if let Some(rule) = rule.filter(|rule| rule.carries(Transport::Tcp)) {
                openings.push(Opening {
                    group: rule.group,
                    ports: rule.ports,
                });
            }
        });
        openings.sort_unstable_by_key(|it| (it.group, it.ports.from, it.ports.to));
        openings.dedup();
        openings
    }

    /// The groups of a client, ascending; clients with equal rights have equal ones.
    pub fn groups_of(&self, client: ClientRef) -> &[GroupRef] {
        self.clients.class_of(client)
    }
}
