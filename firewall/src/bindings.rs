//! Which names belong to which addresses: written by the witness thread, read on every packet.
//!
//! Reading takes no lock. An address stays bound past the time to live of the answer that
//! named it, because clients keep answers longer than they should; but history is a grant to
//! whoever owned the name, so it is short for an address seen only once (DESIGN, section 3).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use inspect::{Bindings, Known, Time};
use policy::Name;

mod scope;

mod under;

pub use scope::{Scope, is_global, own_addresses};
pub use under::Under;

/// The bindings of every name, shared by all threads.
#[derive(Debug)]
pub struct BindingStore {
    sightings: papaya::HashMap<(Name, IpAddr), Arc<Sighting>>,
    names: papaya::HashMap<IpAddr, Arc<papaya::HashSet<Name>>>,
    known: papaya::HashMap<Name, NameState>,
    scope: ArcSwap<Scope>,
    history_ms: u64,
}

/// When an address was seen for a name.
#[derive(Debug)]
struct Sighting {
    /// Monotonic time at which the latest answer's time to live ends.
    fresh_until_ms: AtomicU64,
    /// Answers that held the address.
    count: AtomicU32,
    /// Whether a flow to it was judged and allowed under this name.
    judged: AtomicBool,
}

/// How far the look-ups of a name have come, and when a flow last used it.
#[derive(Debug)]
struct NameState {
    known: AtomicU8,
    used_ms: AtomicU64,
}

/// The one writer of a [`BindingStore`]; owned by the witness thread.
#[derive(Debug)]
pub struct BindingWriter {
    store: Arc<BindingStore>,
    names: HashMap<Name, Learnt>,
}

/// What the writer keeps of one name.
#[derive(Debug, Default)]
struct Learnt {
    addresses: HashSet<IpAddr>,
    /// Start of the ten minutes that `recent` counts.
    window_ms: u64,
    recent: usize,
    alarmed: bool,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learning {
    /// Addresses not bound to the name before.
    pub new: usize,
    /// Addresses that may never be bound.
    pub not_global: usize,
    /// Whether the name has just passed [`NEW_ADDRESSES_ALARM`] in ten minutes.
    pub alarm: bool,
}

impl BindingStore {
    /// An empty store whose addresses count up to `history_ms` past their time to live.
    pub fn new(history_ms: u64, scope: Scope) -> Self {
        Self {
            sightings: papaya::HashMap::new(),
            names: papaya::HashMap::new(),
            known: papaya::HashMap::new(),
            scope: ArcSwap::from_pointee(scope),
            history_ms,
        }
    }

    /// Replaces what may be bound at all.
    pub fn set_scope(&self, scope: Scope) {
        self.scope.store(Arc::new(scope));
    }

    /// Notes that a flow to `addr` was allowed under `name`, which lengthens its history.
    pub fn note_judged(&self, name: &Name, addr: IpAddr, now: Time) {
        if let Some(state) = self.known.pin().get(name) {
            state.used_ms.fetch_max(now.mono_ms, Ordering::Relaxed);
        }
        if let Some(sighting) = self.sightings.pin().get(&(name.clone(), addr)) {
            sighting.judged.store(true, Ordering::Relaxed);
        }
    }

    /// When a flow was last allowed under `name`, on the monotonic clock; 0 for never.
    pub fn last_used_ms(&self, name: &Name) -> u64 {
        self.known
            .pin()
            .get(name)
            .map_or(0, |state| state.used_ms.load(Ordering::Relaxed))
    }

    /// How many names have an address.
    pub fn names_bound(&self) -> usize {
        let known = self.known.pin();
        known
            .values()
            .filter(|state| state.known.load(Ordering::Relaxed) == ANSWERED)
            .count()
    }

    fn counts_at(&self, sighting: &Sighting, now_ms: u64) -> bool {
        let seasoned =
            sighting.count.load(Ordering::Relaxed) > 1 || sighting.judged.load(Ordering::Relaxed);
        let grace_ms = if seasoned {
            self.history_ms
        } else {
            self.history_ms.min(SINGLE_SIGHTING_MS)
        };
        now_ms
            <= sighting
                .fresh_until_ms
                .load(Ordering::Relaxed)
                .saturating_add(grace_ms)
    }
}

impl Bindings for BindingStore {
    fn is_bound(&self, name: &Name, addr: IpAddr, now: Time) -> bool {
        let sightings = self.sightings.pin();
        sightings
            .get(&(name.clone(), addr))
            .is_some_and(|sighting| self.counts_at(sighting, now.mono_ms))
    }

    fn names_of(&self, addr: IpAddr, now: Time, each: &mut dyn FnMut(&Name)) {
        let names = self.names.pin();
        let Some(bound) = names.get(&addr) else {
            return;
        };
        for name in &bound.pin() {
            if self.is_bound(name, addr, now) {
                each(name);
            }
        }
    }

    fn is_global(&self, addr: IpAddr) -> bool {
        self.scope.load().may_be_bound(addr)
    }

    fn is_known(&self, name: &Name) -> Known {
        match self
            .known
            .pin()
            .get(name)
            .map(|state| state.known.load(Ordering::Relaxed))
        {
            Some(PRIMING) => Known::Priming,
            Some(ANSWERED) => Known::Answered,
            Some(FAILED) => Known::Failed,
            Some(_) | None => Known::Unasked,
        }
    }
}

impl BindingWriter {
    /// The writer of `store`. There is one writer per store.
    pub fn new(store: Arc<BindingStore>) -> Self {
        Self {
            store,
            names: HashMap::new(),
        }
    }

    /// Notes that the first look-up of a name is under way; nothing if it had one before.
    pub fn prime(&mut self, name: &Name) {
        let known = self.store.known.pin();
        if known.get(name).is_none() {
            known.insert(name.clone(), NameState::new(PRIMING));
        }
    }

    /// Learns the addresses of an answer, each with its time to live in seconds.
    pub fn learn(
        &mut self,
        name: &Name,
        addresses: impl IntoIterator<Item = (IpAddr, u32)>,
        now_ms: u64,
    ) -> Learning {
        let mut learning = Learning::default();
        for (addr, ttl_s) in addresses {
            if !self.store.is_global(addr) {
                learning.not_global = learning.not_global.saturating_add(1);
                continue;
            }
            let fresh_until_ms =
                now_ms.saturating_add(u64::from(ttl_s.clamp(1, TTL_MAX_S)).saturating_mul(1_000));
            if self.see(name, addr, fresh_until_ms) {
                learning.new = learning.new.saturating_add(1);
            }
        }
        learning.alarm = self.count_new(name, learning.new, now_ms);
        if learning.new > 0 {
            self.make_room(name);
        }
        let any = self
            .names
            .get(name)
            .is_some_and(|learnt| !learnt.addresses.is_empty());
        self.set_known(name, if any { ANSWERED } else { FAILED });
        learning
    }

    /// Notes that a look-up brought no address. What is bound already stays.
    pub fn fail(&mut self, name: &Name) {
        let bound = self
            .names
            .get(name)
            .is_some_and(|learnt| !learnt.addresses.is_empty());
        if !bound {
            self.set_known(name, FAILED);
        }
    }

    /// Forgets a name and every address of it.
    pub fn forget(&mut self, name: &Name) {
        self.store.known.pin().remove(name);
        let Some(learnt) = self.names.remove(name) else {
            return;
        };
        for addr in learnt.addresses {
            self.unbind(name, addr);
        }
    }

    /// Drops addresses whose history has ended; to be called every minute or so.
    pub fn sweep(&mut self, now_ms: u64) {
        let mut ended = Vec::new();
        let sightings = self.store.sightings.pin();
        for ((name, addr), sighting) in &sightings {
            if !self.store.counts_at(sighting, now_ms) {
                ended.push((name.clone(), *addr));
            }
        }
        drop(sightings);
        for (name, addr) in ended {
            if let Some(learnt) = self.names.get_mut(&name) {
                learnt.addresses.remove(&addr);
            }
            self.unbind(&name, addr);
        }
    }

    /// Updates or makes one sighting; true for a new address.
    fn see(&mut self, name: &Name, addr: IpAddr, fresh_until_ms: u64) -> bool {
        let key = (name.clone(), addr);
        if let Some(sighting) = self.store.sightings.pin().get(&key) {
            sighting
                .fresh_until_ms
                .fetch_max(fresh_until_ms, Ordering::Relaxed);
            sighting.count.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let sighting = Sighting {
            fresh_until_ms: AtomicU64::new(fresh_until_ms),
            count: AtomicU32::new(1),
            judged: AtomicBool::new(false),
        };
        self.store.sightings.pin().insert(key, Arc::new(sighting));
        let names = self.store.names.pin();
        names
            .get_or_insert_with(addr, Arc::default)
            .pin()
            .insert(name.clone());
        self.names
            .entry(name.clone())
            .or_default()
            .addresses
            .insert(addr);
        true
    }

    /// Counts new addresses in windows of ten minutes; true the first time there are too many.
    fn count_new(&mut self, name: &Name, new: usize, now_ms: u64) -> bool {
        let Some(learnt) = self.names.get_mut(name) else {
            return false;
        };
        if now_ms.saturating_sub(learnt.window_ms) >= ALARM_WINDOW_MS {
            learnt.window_ms = now_ms;
            learnt.recent = 0;
            learnt.alarmed = false;
        }
        learnt.recent = learnt.recent.saturating_add(new);
        let alarm = learnt.recent > NEW_ADDRESSES_ALARM && !learnt.alarmed;
        learnt.alarmed |= alarm;
        alarm
    }

    /// Forgets the addresses seen longest ago once a name has more than it may keep.
    fn make_room(&mut self, name: &Name) {
        let Some(learnt) = self.names.get_mut(name) else {
            return;
        };
        let excess = learnt
            .addresses
            .len()
            .saturating_sub(ADDRESSES_PER_NAME_MAX);
        if excess == 0 {
            return;
        }
        let sightings = self.store.sightings.pin();
        let fresh = |addr: IpAddr| {
            let sighting = sightings.get(&(name.clone(), addr));
            sighting.map_or(0, |sighting| {
                sighting.fresh_until_ms.load(Ordering::Relaxed)
            })
        };
        let mut by_age: Vec<(u64, IpAddr)> = learnt
            .addresses
            .iter()
            .map(|&addr| (fresh(addr), addr))
            .collect();
        by_age.sort_unstable();
        by_age.truncate(excess);
        for (_, addr) in &by_age {
            learnt.addresses.remove(addr);
        }
        drop(sightings);
        for (_, addr) in by_age {
            self.unbind(name, addr);
        }
    }

    fn unbind(&self, name: &Name, addr: IpAddr) {
        self.store.sightings.pin().remove(&(name.clone(), addr));
        let names = self.store.names.pin();
        let Some(bound) = names.get(&addr) else {
            return;
        };
        bound.pin().remove(name);
        if bound.pin().is_empty() {
            names.remove(&addr);
        }
    }

    fn set_known(&self, name: &Name, state: u8) {
        let known = self.store.known.pin();
        match known.get(name) {
            Some(current) => current.known.store(state, Ordering::Relaxed),
            None => {
                known.insert(name.clone(), NameState::new(state));
            }
        }
    }
}

impl NameState {
    fn new(known: u8) -> Self {
        Self {
            known: AtomicU8::new(known),
            used_ms: AtomicU64::new(0),
        }
    }
}

const PRIMING: u8 = 1;
const ANSWERED: u8 = 2;
const FAILED: u8 = 3;

/// How long an address seen in one answer only counts past its time to live.
const SINGLE_SIGHTING_MS: u64 = 600_000;
/// A longer time to live counts as this.
const TTL_MAX_S: u32 = 3_600;
/// Addresses kept for one name; DESIGN asks for 4,096 at least.
pub const ADDRESSES_PER_NAME_MAX: usize = 8_192;
/// More new addresses of one name than this in ten minutes are reported.
pub const NEW_ADDRESSES_ALARM: usize = 1_024;
const ALARM_WINDOW_MS: u64 = 600_000;

#[cfg(test)]
mod tests;
