//! The writing end of the bindings: one thread learns and forgets.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use policy::{Name, Opening, Snapshot};

use super::gate::Gate;
use super::{ANSWERED, BindingStore, FAILED, NameState, PRIMING, SavedName, Sighting, Source};

mod room;

pub use room::{
    ADDRESSES_MAX, ADDRESSES_PER_NAME_MAX, ADDRESSES_PER_NAME_WHEN_CROWDED,
    ADDRESSES_UNDER_PATTERNS_MAX, NEW_ADDRESSES_ALARM,
};

/// The one writer of a [`BindingStore`]; owned by the witness thread.
#[derive(Debug)]
pub struct BindingWriter {
    store: Arc<BindingStore>,
    names: HashMap<Name, Learnt>,
    policy: Option<Arc<Snapshot>>,
    /// Addresses of names that only a pattern covers.
    under_patterns: usize,
    /// Addresses that lost a name and whose doors are to be set anew.
    dirty: HashSet<IpAddr>,
}

/// What the writer keeps of one name.
#[derive(Debug, Default)]
struct Learnt {
    addresses: HashSet<IpAddr>,
    /// Whether it has had addresses from A and from AAAA records.
    families: [bool; 2],
    openings: Box<[Opening]>,
    /// Only a pattern covers it.
    under_pattern: bool,
    /// Start of the ten minutes that `recent` counts.
    window_ms: u64,
    recent: usize,
    alarmed: bool,
}

/// One address as an answer named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The address.
    pub addr: IpAddr,
    /// Its time to live, in seconds.
    pub ttl_s: u32,
    /// Whether it was a hint in an HTTPS or SVCB record.
    pub hint: bool,
    /// The resolver that named it.
    pub resolver: Option<Arc<str>>,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learning {
    /// Addresses not bound to the name before.
    pub added: usize,
    /// Of these, those from A and from AAAA records: hints do not rotate.
    pub new: [usize; 2],
    /// Addresses from A and from AAAA records that may be bound.
    pub seen: [usize; 2],
    /// Addresses the name has now.
    pub known: usize,
    /// Whether the name had addresses from such records before.
    pub before: [bool; 2],
    /// Addresses that may never be bound.
    pub not_global: usize,
    /// Whether the name has just passed [`NEW_ADDRESSES_ALARM`] in ten minutes.
    pub alarm: bool,
}

/// An address as it was kept over a restart, times on this start's monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Restored {
    pub(super) addr: IpAddr,
    pub(super) fresh_until_ms: u64,
    pub(super) learnt_ms: u64,
    pub(super) count: u32,
    pub(super) judged: bool,
    pub(super) source: Source,
    pub(super) chain: Option<Arc<str>>,
    pub(super) resolver: Option<Arc<str>>,
}

impl BindingWriter {
    /// The writer of `store`. There is one writer per store.
    pub fn new(store: Arc<BindingStore>) -> Self {
        Self {
            store,
            names: HashMap::new(),
            policy: None,
            under_patterns: 0,
            dirty: HashSet::new(),
        }
    }

    /// Makes a gate for a new policy from all that is bound, and swaps it in. Until then a SYN
    /// under that policy is decided by walking the names of its destination.
    pub fn adopt(&mut self, policy: Arc<Snapshot>) {
        let gate = Gate::new(policy.generation());
        let mut doors: HashMap<IpAddr, HashMap<Opening, u64>> = HashMap::new();
        let sightings = self.store.sightings.pin();
        for (name, learnt) in &mut self.names {
            learnt.openings = policy.openings(name).into();
            for &addr in &learnt.addresses {
                let Some(sighting) = sightings.get(&(name.clone(), addr)) else {
                    continue;
                };
                let until_ms = self.store.counts_until_ms(sighting);
                merge(doors.entry(addr).or_default(), &learnt.openings, until_ms);
            }
        }
        drop(sightings);
        for (addr, openings) in &doors {
            gate.replace(*addr, openings);
        }
        self.dirty.clear();
        self.policy = Some(policy);
        self.store.gate.store(Arc::new(gate));
    }

    /// Notes that the first look-up of a name of the policy is under way; nothing if it had one
    /// before.
    pub fn prime(&mut self, name: &Name) {
        if let Some(learnt) = self.names.get_mut(name).filter(|it| it.under_pattern) {
            learnt.under_pattern = false;
            let held = learnt.addresses.len();
            self.under_patterns = self.under_patterns.saturating_sub(held);
        }
        let known = self.store.known.pin();
        if known.get(name).is_none() {
            known.insert(name.clone(), NameState::new(PRIMING));
        }
    }

    /// Notes that a name came up under a pattern, by which client.
    pub fn learn_name(&mut self, name: &Name, client: IpAddr) {
        self.entry(name).under_pattern = true;
        let known = self.store.known.pin();
        let state = known.get_or_insert_with(name.clone(), || NameState::new(FAILED));
        // It stays the first client's who brought it up.
        state.client.get_or_init(|| client);
    }

    /// Learns the addresses of an answer.
    pub fn learn(
        &mut self,
        name: &Name,
        addresses: impl IntoIterator<Item = impl Into<Seen>>,
        chain: Option<&Arc<str>>,
        now_ms: u64,
    ) -> Learning {
        let mut ttl_s = TTL_MAX_S;
        let mut learning = Learning {
            before: self.entry(name).families,
            ..Learning::default()
        };
        for seen in addresses {
            let seen: Seen = seen.into();
            ttl_s = ttl_s.min(seen.ttl_s);
            if !self.store.may_be_bound(seen.addr) {
                learning.not_global = learning.not_global.saturating_add(1);
                continue;
            }
            let is_new = self.see(name, &seen, chain, now_ms);
            learning.added = learning.added.saturating_add(usize::from(is_new));
            if seen.hint {
                continue;
            }
            let counts = [(&mut learning.seen, true), (&mut learning.new, is_new)];
            for (count, _) in counts.into_iter().filter(|(_, counts)| *counts) {
                let [v4, v6] = count;
                let of_family = if seen.addr.is_ipv4() { v4 } else { v6 };
                *of_family = of_family.saturating_add(1);
            }
        }
        learning.alarm = self.count_new(name, learning.added, now_ms);
        if learning.added > 0 {
            self.make_room(name);
        }
        learning.known = self.entry(name).addresses.len();
        let any = learning.known > 0;
        self.set_known(name, if any { ANSWERED } else { FAILED });
        if let Some(state) = self
            .store
            .known
            .pin()
            .get(name)
            .filter(|_| learning.seen != [0; 2])
        {
            let fresh_until_ms = now_ms.saturating_add(u64::from(ttl_s).saturating_mul(1_000));
            state
                .fresh_until_ms
                .store(fresh_until_ms, Ordering::Relaxed);
        }
        learning
    }

    /// Binds what was bound to a name before a restart, as far as it may still be bound.
    pub fn restore(&mut self, name: &Name, kept: SavedName, now_ms: u64) {
        let mut any = false;
        for address in kept.addresses {
            let addr = address.addr;
            let held = self.store.sightings.pin();
            let is_held = held.contains_key(&(name.clone(), addr));
            drop(held);
            let sighting = Sighting {
                fresh_until_ms: AtomicU64::new(address.fresh_until_ms),
                count: AtomicU32::new(address.count),
                judged: AtomicBool::new(address.judged),
                learnt_ms: address.learnt_ms,
                source: address.source,
                chain: address.chain,
                resolver: address.resolver,
            };
            let is_over = now_ms > self.store.counts_until_ms(&sighting);
            if is_held || is_over || !self.store.may_be_bound(addr) {
                continue;
            }
            any = true;
            self.insert(name, addr, sighting);
        }
        if any {
            self.make_room(name);
            self.set_known(name, ANSWERED);
        }
        if let Some(state) = self.store.known.pin().get(name) {
            state.used_ms.fetch_max(kept.used_ms, Ordering::Relaxed);
        }
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

    /// Notes whether a name's answers differ from each other.
    pub fn set_varies(&self, name: &Name, varies: bool) {
        if let Some(state) = self.store.known.pin().get(name) {
            state.varies.store(varies, Ordering::Relaxed);
        }
    }

    /// A flow to `addr` was allowed under `name`: its history counts whole from here on.
    pub fn judged(&mut self, name: &Name, addr: IpAddr) {
        let sightings = self.store.sightings.pin();
        if let (Some(learnt), Some(sighting)) =
            (self.names.get(name), sightings.get(&(name.clone(), addr)))
        {
            let until_ms = self.store.counts_until_ms(sighting);
            self.store
                .gate
                .load()
                .admit(addr, &learnt.openings, until_ms);
        }
    }

    /// Forgets names and every address of theirs.
    pub fn forget(&mut self, names: &[Name]) {
        for name in names {
            self.store.known.pin().remove(name);
            let Some(learnt) = self.names.remove(name) else {
                continue;
            };
            for addr in &learnt.addresses {
                self.unbind(name, *addr, learnt.under_pattern);
            }
        }
        self.shut_doors();
    }

    /// Drops addresses whose history has ended; to be called every minute or so.
    pub fn sweep(&mut self, now_ms: u64) {
        let mut ended = Vec::new();
        let sightings = self.store.sightings.pin();
        for ((name, addr), sighting) in &sightings {
            if now_ms > self.store.counts_until_ms(sighting) {
                ended.push((name.clone(), *addr));
            }
        }
        drop(sightings);
        for (name, addr) in ended {
            let mut under_pattern = false;
            if let Some(learnt) = self.names.get_mut(&name) {
                learnt.addresses.remove(&addr);
                under_pattern = learnt.under_pattern;
            }
            self.unbind(&name, addr, under_pattern);
        }
        self.shut_doors();
    }

    fn entry(&mut self, name: &Name) -> &mut Learnt {
        self.names.entry(name.clone()).or_insert_with(|| {
            let policy = self.policy.as_ref();
            Learnt {
                openings: policy.map_or_else(Box::default, |policy| policy.openings(name).into()),
                ..Learnt::default()
            }
        })
    }

    /// Updates or makes one sighting; true for a new address.
    fn see(&mut self, name: &Name, seen: &Seen, chain: Option<&Arc<str>>, now_ms: u64) -> bool {
        let ttl_ms = u64::from(seen.ttl_s.clamp(1, TTL_MAX_S)).saturating_mul(1_000);
        let fresh_until_ms = now_ms.saturating_add(ttl_ms);
        let key = (name.clone(), seen.addr);
        let sightings = self.store.sightings.pin();
        if let Some(sighting) = sightings.get(&key) {
            sighting
                .fresh_until_ms
                .fetch_max(fresh_until_ms, Ordering::Relaxed);
            sighting.count.fetch_add(1, Ordering::Relaxed);
            drop(sightings);
            self.judged(name, seen.addr);
            return false;
        }
        drop(sightings);
        let source = match (seen.hint, seen.addr) {
            (true, _) => Source::Hint,
            (false, IpAddr::V4(_)) => Source::A,
            (false, IpAddr::V6(_)) => Source::Aaaa,
        };
        let sighting = Sighting {
            fresh_until_ms: AtomicU64::new(fresh_until_ms),
            count: AtomicU32::new(1),
            judged: AtomicBool::new(false),
            learnt_ms: now_ms,
            source,
            chain: chain.map(Arc::clone),
            resolver: seen.resolver.clone(),
        };
        self.insert(name, seen.addr, sighting);
        true
    }

    fn insert(&mut self, name: &Name, addr: IpAddr, sighting: Sighting) {
        let source = sighting.source;
        let until_ms = self.store.counts_until_ms(&sighting);
        self.store
            .sightings
            .pin()
            .insert((name.clone(), addr), Arc::new(sighting));
        let names = self.store.names.pin();
        let bound = names.get(&addr).map_or(&[][..], |bound| bound);
        if !bound.contains(name) {
            let more: Vec<Name> = bound.iter().chain([name]).cloned().collect();
            names.insert(addr, more.into());
        }
        drop(names);
        let learnt = self.entry(name);
        learnt.addresses.insert(addr);
        let [v4, v6] = &mut learnt.families;
        match source {
            Source::A => *v4 = true,
            Source::Aaaa => *v6 = true,
            Source::Hint => {}
        }
        let under_pattern = usize::from(learnt.under_pattern);
        self.under_patterns = self.under_patterns.saturating_add(under_pattern);
        if let Some(learnt) = self.names.get(name) {
            self.store
                .gate
                .load()
                .admit(addr, &learnt.openings, until_ms);
        }
    }

    fn unbind(&mut self, name: &Name, addr: IpAddr, under_pattern: bool) {
        self.store.sightings.pin().remove(&(name.clone(), addr));
        let freed = usize::from(under_pattern);
        self.under_patterns = self.under_patterns.saturating_sub(freed);
        self.dirty.insert(addr);
        let names = self.store.names.pin();
        let Some(bound) = names.get(&addr) else {
            return;
        };
        let fewer: Vec<Name> = bound.iter().filter(|it| *it != name).cloned().collect();
        if fewer.is_empty() {
            names.remove(&addr);
        } else {
            names.insert(addr, fewer.into());
        }
    }

    /// Sets the doors of every address that lost a name by the names it still has.
    fn shut_doors(&mut self) {
        let gate = self.store.gate.load();
        let (names, sightings) = (self.store.names.pin(), self.store.sightings.pin());
        for addr in self.dirty.drain() {
            let mut openings = HashMap::new();
            if let Some(bound) = names.get(&addr) {
                for name in bound.iter() {
                    if let (Some(learnt), Some(sighting)) =
                        (self.names.get(name), sightings.get(&(name.clone(), addr)))
                    {
                        let until_ms = self.store.counts_until_ms(sighting);
                        merge(&mut openings, &learnt.openings, until_ms);
                    }
                }
            }
            gate.replace(addr, &openings);
        }
    }

    fn set_known(&self, name: &Name, state: u8) {
        let known = self.store.known.pin();
        known
            .get_or_insert_with(name.clone(), || NameState::new(state))
            .known
            .store(state, Ordering::Relaxed);
    }
}

impl From<(IpAddr, u32)> for Seen {
    fn from((addr, ttl_s): (IpAddr, u32)) -> Self {
        Self {
            addr,
            ttl_s,
            hint: false,
            resolver: None,
        }
    }
}

/// Keeps the later end of each opening.
fn merge(into: &mut HashMap<Opening, u64>, openings: &[Opening], until_ms: u64) {
    for opening in openings {
        let until = into.entry(*opening).or_default();
        *until = until_ms.max(*until);
    }
}

/// A longer time to live counts as this.
pub(super) const TTL_MAX_S: u32 = 3_600;
