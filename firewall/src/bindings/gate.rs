//! From an address to the clients it is open for: what a SYN asks, answered without walking the
//! names behind the address.
//!
//! Clients with equal rights are one class, a set of groups. For each address the gate keeps, per
//! group and range of ports, until when some name of that group is bound to it. Ten thousand names
//! of one group on one address are one entry. The writer changes entries in place; a new policy
//! gets a new gate, swapped whole, for groups are numbered anew with every policy.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use policy::{ClientRef, Opening, Snapshot};

/// What is open by name, for one policy.
#[derive(Debug, Default)]
pub(super) struct Gate {
    generation: Option<u64>,
    doors: papaya::HashMap<IpAddr, Arc<[Door]>, RandomState>,
}

/// One opening of one address, in ascending order of [`Door::key`].
#[derive(Debug)]
struct Door {
    opening: Opening,
    /// The last millisecond, monotonic, at which some name counts.
    until_ms: AtomicU64,
}

/// A door's place among those of its address.
type Key = (u32, u16, u16);

impl Gate {
    /// An empty gate for the policy of one generation.
    pub(super) fn new(generation: u64) -> Self {
        Self {
            generation: Some(generation),
            doors: papaya::HashMap::default(),
        }
    }

    /// Whether a client may dial an address on a port by some name; `None` when the gate was made
    /// for another policy.
    pub(super) fn is_open(
        &self,
        policy: &Snapshot,
        client: ClientRef,
        (addr, port): (IpAddr, u16),
        now_ms: u64,
    ) -> Option<bool> {
        if self.generation != Some(policy.generation()) {
            return None;
        }
        let pinned = self.doors.pin();
        let Some(doors) = pinned.get(&addr) else {
            return Some(false);
        };
        let groups = policy.groups_of(client);
        let opens = |door: &Door| {
            door.opening.ports.contains(port) && now_ms <= door.until_ms.load(Ordering::Relaxed)
        };
        // Walks whichever is shorter of the two and searches the other.
        if doors.len() <= groups.len() {
            let of_client =
                |door: &&Door| groups.binary_search(&door.opening.group).is_ok() && opens(door);
            return Some(doors.iter().any(|door| of_client(&door)));
        }
        Some(groups.iter().any(|group| {
            let start = doors.partition_point(|door| door.opening.group < *group);
            let rest = doors.get(start..).unwrap_or_default();
            rest.iter()
                .take_while(|door| door.opening.group == *group)
                .any(opens)
        }))
    }

    /// Opens an address until `until_ms`, or leaves it open for longer where it is.
    pub(super) fn admit(&self, addr: IpAddr, openings: &[Opening], until_ms: u64) {
        if openings.is_empty() {
            return;
        }
        let pinned = self.doors.pin();
        let current: &[Door] = pinned.get(&addr).map_or(&[], |doors| doors);
        let mut missing = Vec::new();
        for opening in openings {
            match current.binary_search_by_key(&key(opening), Door::key) {
                Ok(at) => {
                    if let Some(door) = current.get(at) {
                        door.until_ms.fetch_max(until_ms, Ordering::Relaxed);
                    }
                }
                Err(_) => missing.push(Door::new(*opening, until_ms)),
            }
        }
        if missing.is_empty() {
            return;
        }
        missing.extend(
            current
                .iter()
                .map(|door| Door::new(door.opening, door.until_ms.load(Ordering::Relaxed))),
        );
        missing.sort_unstable_by_key(Door::key);
        pinned.insert(addr, missing.into());
    }

    /// Sets what an address is open for: only these openings, each until its time.
    pub(super) fn replace(&self, addr: IpAddr, openings: &HashMap<Opening, u64>) {
        let pinned = self.doors.pin();
        if openings.is_empty() {
            pinned.remove(&addr);
            return;
        }
        let mut doors: Vec<Door> = openings
            .iter()
            .map(|(opening, until_ms)| Door::new(*opening, *until_ms))
            .collect();
        doors.sort_unstable_by_key(Door::key);
        pinned.insert(addr, doors.into());
    }

    /// How many addresses are open for somebody.
    pub(super) fn len(&self) -> usize {
        self.doors.len()
    }
}

impl Door {
    const fn new(opening: Opening, until_ms: u64) -> Self {
        Self {
            opening,
            until_ms: AtomicU64::new(until_ms),
        }
    }

    fn key(&self) -> Key {
        key(&self.opening)
    }
}

const fn key(opening: &Opening) -> Key {
    (opening.group, opening.ports.from, opening.ports.to)
}

#[cfg(test)]
mod tests;
