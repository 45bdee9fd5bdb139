//! Which names belong to which addresses: written by the witness thread, read on every packet.
//!
//! Reading takes no lock. An address stays bound past the time to live of the answer that
//! named it, because clients keep answers longer than they should; but history is a grant to
//! whoever owned the name, so it is short for an address seen only once (DESIGN, section 3).

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;
use inspect::{Bindings, Certificate, Known, Time};
use policy::{ClientRef, Name, Snapshot};
use serde::{Deserialize, Serialize};

mod certificates;
mod gate;
mod keeper;
mod listed;
mod saved;
mod scope;
mod under;
mod writer;

use certificates::Certificates;
use gate::Gate;

pub use keeper::BindingKeeper;
pub use listed::list;
pub use saved::{Saved, SavedName, load, save};
pub use scope::{Scope, is_global, own_addresses};
pub use under::Under;
pub use writer::{
    ADDRESSES_MAX, ADDRESSES_PER_NAME_MAX, ADDRESSES_PER_NAME_WHEN_CROWDED,
    ADDRESSES_UNDER_PATTERNS_MAX, BindingWriter, Learning, NEW_ADDRESSES_ALARM, Seen,
};

/// The bindings of every name, shared by all threads.
#[derive(Debug)]
pub struct BindingStore {
    sightings: papaya::HashMap<(Name, IpAddr), Arc<Sighting>, RandomState>,
    /// Replaced whole for each change, for readers that walk them.
    names: papaya::HashMap<IpAddr, Arc<[Name]>, RandomState>,
    known: papaya::HashMap<Name, NameState, RandomState>,
    gate: ArcSwap<Gate>,
    scope: ArcSwap<Scope>,
    certificates: Certificates,
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
    /// Monotonic time of the first answer that held it.
    learnt_ms: u64,
    source: Source,
    /// Aliases followed to it in that answer, joined by spaces.
    chain: Option<Arc<str>>,
    /// The resolver that gave that answer, if it said who it was.
    resolver: Option<Arc<str>>,
}

/// The kind of record that named an address first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An A record.
    A,
    /// An AAAA record.
    Aaaa,
    /// A hint in an HTTPS or SVCB record (RFC 9460, section 7.3).
    Hint,
}

/// One address of one name, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The address.
    pub addr: IpAddr,
    /// The kind of record that named it first.
    pub source: Source,
    /// Aliases followed to it in that answer, joined by spaces.
    pub chain: Option<Arc<str>>,
    /// The resolver that gave that answer, if it said who it was.
    pub resolver: Option<Arc<str>>,
    /// When that was, monotonic.
    pub learnt_ms: u64,
    /// When the newest answer that held it goes stale, monotonic.
    pub fresh_until_ms: u64,
    /// The last moment it counts, monotonic.
    pub until_ms: u64,
    /// Answers that held it.
    pub sightings: u32,
    /// Whether a flow to it was judged and allowed under this name.
    pub judged: bool,
}

/// How far the look-ups of a name have come, and when a flow last used it.
#[derive(Debug)]
struct NameState {
    known: AtomicU8,
    used_ms: AtomicU64,
    /// When its newest answer goes stale.
    fresh_until_ms: AtomicU64,
    /// Whether its answers differ from each other.
    varies: AtomicBool,
    /// Who brought it up first, when only a pattern covers it.
    client: OnceLock<IpAddr>,
}

impl BindingStore {
    /// An empty store whose addresses count up to `history_ms` past their time to live.
    pub fn new(history_ms: u64, scope: Scope) -> Self {
        Self {
            sightings: papaya::HashMap::default(),
            names: papaya::HashMap::default(),
            known: papaya::HashMap::default(),
            gate: ArcSwap::default(),
            scope: ArcSwap::from_pointee(scope),
            certificates: Certificates::default(),
            history_ms,
        }
    }

    /// Replaces what may be bound at all.
    pub fn set_scope(&self, scope: Scope) {
        self.scope.store(Arc::new(scope));
    }

    /// Notes that a flow to `addr` was allowed under `name`, which lengthens its history.
    ///
    /// True when the witness should be told: this address of the name, or the name itself, was
    /// not in use until now.
    pub fn note_judged(&self, name: &Name, addr: IpAddr, now: Time) -> bool {
        let mut tell = false;
        if let Some(state) = self.known.pin().get(name) {
            let before_ms = state.used_ms.fetch_max(now.mono_ms, Ordering::Relaxed);
            tell = now.mono_ms.saturating_sub(before_ms) >= USE_GRAIN_MS;
        }
        if let Some(sighting) = self.sightings.pin().get(&(name.clone(), addr)) {
            tell |= !sighting.judged.swap(true, Ordering::Relaxed);
        }
        tell
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

    /// How many addresses are bound, each counted once for every name.
    pub fn addresses_bound(&self) -> usize {
        self.sightings.len()
    }

    /// How many addresses are open for some client by some name.
    pub fn addresses_open(&self) -> usize {
        self.gate.load().len()
    }

    /// The addresses of a name that count now, at most `max`, those that count longest first;
    /// with `only`, that one if it does. For people: it may walk every binding.
    pub fn bindings_of(
        &self,
        name: &Name,
        only: Option<IpAddr>,
        now_ms: u64,
        max: usize,
    ) -> Vec<Binding> {
        let sightings = self.sightings.pin();
        let mut found: Vec<Binding> = match only {
            Some(addr) => sightings
                .get(&(name.clone(), addr))
                .map(|sighting| self.describe(addr, sighting))
                .into_iter()
                .collect(),
            None => sightings
                .iter()
                .filter(|((of, _), _)| of == name)
                .map(|((_, addr), sighting)| self.describe(*addr, sighting))
                .collect(),
        };
        found.retain(|binding| now_ms <= binding.until_ms);
        found.sort_by_key(|binding| (std::cmp::Reverse(binding.until_ms), binding.addr));
        found.truncate(max);
        found
    }

    fn describe(&self, addr: IpAddr, sighting: &Sighting) -> Binding {
        Binding {
            addr,
            source: sighting.source,
            chain: sighting.chain.clone(),
            resolver: sighting.resolver.clone(),
            learnt_ms: sighting.learnt_ms,
            fresh_until_ms: sighting.fresh_until_ms.load(Ordering::Relaxed),
            until_ms: self.counts_until_ms(sighting),
            sightings: sighting.count.load(Ordering::Relaxed),
            judged: sighting.judged.load(Ordering::Relaxed),
        }
    }

    /// Takes in what the certificate of a server is worth, until a moment of the monotonic clock; false when too many are
    /// known already.
    pub fn set_certificate(
        &self,
        name: &Name,
        server: SocketAddr,
        certificate: Certificate,
        until_ms: u64,
    ) -> bool {
        self.certificates.set(name, server, certificate, until_ms)
    }

    /// Forgets certificates whose time is up.
    pub fn sweep_certificates(&self, now_ms: u64) {
        self.certificates.sweep(now_ms);
    }

    /// Servers whose certificate is known not to be of a name.
    pub fn invalid_certificates(&self, now_ms: u64) -> Vec<(Name, SocketAddr)> {
        self.certificates.invalid(now_ms)
    }

    fn may_be_bound(&self, addr: IpAddr) -> bool {
        self.scope.load().may_be_bound(addr)
    }

    /// The last millisecond at which a sighting counts.
    fn counts_until_ms(&self, sighting: &Sighting) -> u64 {
        let grace_ms = if sighting.judged.load(Ordering::Relaxed) {
            self.history_ms.saturating_add(UNSEEN_MS)
        } else if sighting.count.load(Ordering::Relaxed) > 1 {
            self.history_ms
        } else {
            self.history_ms.min(SINGLE_SIGHTING_MS)
        };
        sighting
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
            .is_some_and(|sighting| now.mono_ms <= self.counts_until_ms(sighting))
    }

    fn names_of(&self, addr: IpAddr, now: Time, each: &mut dyn FnMut(&Name)) {
        let names = self.names.pin();
        let Some(bound) = names.get(&addr) else {
            return;
        };
        for name in bound.iter() {
            if self.is_bound(name, addr, now) {
                each(name);
            }
        }
    }

    fn is_global(&self, addr: IpAddr) -> bool {
        self.may_be_bound(addr)
    }

    fn opens(
        &self,
        policy: &Snapshot,
        client: ClientRef,
        (addr, port): (IpAddr, u16),
        now: Time,
    ) -> Option<bool> {
        self.gate
            .load()
            .is_open(policy, client, (addr, port), now.mono_ms)
    }

    fn is_stale(&self, name: &Name, now: Time) -> bool {
        let known = self.known.pin();
        known
            .get(name)
            .is_none_or(|state| now.mono_ms > state.fresh_until_ms.load(Ordering::Relaxed))
    }

    fn varies(&self, name: &Name) -> bool {
        let known = self.known.pin();
        known
            .get(name)
            .is_some_and(|state| state.varies.load(Ordering::Relaxed))
    }

    fn is_current(&self, name: &Name, addr: IpAddr, now: Time) -> bool {
        let sightings = self.sightings.pin();
        sightings
            .get(&(name.clone(), addr))
            .is_some_and(|it| now.mono_ms <= it.fresh_until_ms.load(Ordering::Relaxed))
    }

    fn certificate(&self, name: &Name, server: SocketAddr, now: Time) -> Certificate {
        self.certificates.get(name, server, now.mono_ms)
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

impl NameState {
    fn new(known: u8) -> Self {
        Self {
            known: AtomicU8::new(known),
            used_ms: AtomicU64::new(0),
            fresh_until_ms: AtomicU64::new(0),
            varies: AtomicBool::new(false),
            client: OnceLock::new(),
        }
    }
}

const PRIMING: u8 = 1;
const ANSWERED: u8 = 2;
const FAILED: u8 = 3;

/// How long an address seen in one answer only counts past its time to live.
const SINGLE_SIGHTING_MS: u64 = 600_000;
/// How long after our last sighting of an address somebody else may have been given it: a client
/// that keeps what it is told for the whole history window is not refused at the end of it.
const UNSEEN_MS: u64 = 600_000;
/// How often the witness is told that a name is in use.
const USE_GRAIN_MS: u64 = 60_000;

#[cfg(test)]
mod tests;
