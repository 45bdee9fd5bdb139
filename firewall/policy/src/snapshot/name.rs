//! Named entries by name and by pattern.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;

use foldhash::quality::{FixedState, RandomState};

use crate::{Draft, Entry, HostKeyPin, Kind, Name, Pattern, Transport};

use super::port::works;
use super::rule::{Class, Posting, Rank, RuleTable, rank_of};
use super::trie::PatternTrie;

/// That a rule lists a name or pattern.
#[derive(Debug)]
struct NamePosting {
    rank: Rank,
    /// The pins it comes with: a position in `NameIndex::pins`, 0 for none.
    pins: u32,
}

impl Posting for NamePosting {
    fn rank(&self) -> Rank {
        self.rank
    }
}

/// Where the postings of a name or pattern are, for each kind.
type Slots = [Slot; 3];

/// A range of postings, in 32 bits so that a name's fit one cache line with its key.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    start: u32,
    end: u32,
}

/// Every named entry of a draft.
#[derive(Debug)]
pub(super) struct NameIndex {
    names: HashMap<Name, Slots, RandomState>,
    /// Hashes of what lies above some name or pattern, up to the root.
    above: HashSet<u64, RandomState>,
    trie: PatternTrie,
    /// The patterns' literal lengths and postings.
    patterns: Vec<(usize, Slots)>,
    postings: Vec<NamePosting>,
    pins: Vec<Box<[HostKeyPin]>>,
}

/// A rule that allows a name, and where the entries like it are.
#[derive(Clone, Debug)]
pub(super) struct NamedBy {
    /// The rule.
    pub(super) rank: Rank,
    slot: Slot,
}

/// What the rules of a client say about a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// The rule that allows it on this port.
    pub(super) by: Option<NamedBy>,
    /// Whether some rule allows it on some port.
    pub(super) on_other_port: bool,
}

/// One named entry on its way into the index.
type Raw = (u32, Kind, Rank, Option<HostKeyPin>);

impl NameIndex {
    /// Indexes a draft in canonical order, without the entries that preferences keep from working.
    pub(super) fn build(draft: &Draft) -> Self {
        let rules = draft.groups.iter().map(|group| group.rules.len()).sum();
        let mut ids: HashMap<Name, u32> = HashMap::with_capacity(rules);
        let mut pattern_ids: HashMap<&Pattern, u32> = HashMap::new();
        let (mut names, mut patterns): (Vec<Raw>, Vec<Raw>) = Default::default();
        let rules = draft.groups.iter().flat_map(|group| &group.rules);
        for (position, rule) in rules.enumerate() {
            let rank = rank_of(position);
            let works = |kind| {
                [Transport::Tcp, Transport::Udp]
                    .into_iter()
                    .any(|transport| works(kind, rule.transport, transport, &draft.preferences))
            };
            for entry in &rule.entries {
                match entry {
                    Entry::Name {
                        kind,
                        name,
                        host_key,
                        ..
                    } if works(*kind) => {
                        let next = rank_of(ids.len());
                        let id = *ids.entry(name.clone()).or_insert(next);
                        names.push((id, *kind, rank, *host_key));
                    }
                    Entry::Pattern { kind, pattern, .. } if works(*kind) => {
                        let next = rank_of(pattern_ids.len());
                        let id = *pattern_ids.entry(pattern).or_insert(next);
                        patterns.push((id, *kind, rank, None));
                    }
                    Entry::Name { .. }
                    | Entry::Pattern { .. }
                    | Entry::Address { .. }
                    | Entry::SeeThru { .. } => {}
                }
            }
        }
        let mut index = Self {
            names: HashMap::default(),
            above: above(ids.keys(), pattern_ids.keys().copied()),
            trie: PatternTrie::default(),
            patterns: Vec::new(),
            postings: Vec::with_capacity(names.len() + patterns.len()),
            pins: vec![Box::default()],
        };
        let slots = index.post(names, ids.len());
        let slots_of = |id: u32| slots.get(position(id)).copied().unwrap_or_default();
        index.names = ids
            .into_iter()
            .map(|(name, id)| (name, slots_of(id)))
            .collect();
        let slots = index.post(patterns, pattern_ids.len());
        let mut lengths = vec![0; pattern_ids.len()];
        for (pattern, id) in pattern_ids {
            index.trie.insert(pattern, id);
            if let Some(length) = lengths.get_mut(position(id)) {
                *length = pattern.literal_len();
            }
        }
        index.patterns = lengths.into_iter().zip(slots).collect();
        index
    }

    /// Appends the postings of `count` names or patterns and says where each one's are.
    fn post(&mut self, mut raw: Vec<Raw>, count: usize) -> Vec<Slots> {
        // A missing pin sorts first, so the first entry of a rule says whether it accepts any key.
        raw.sort_unstable();
        raw.dedup();
        let mut slots = vec![Slots::default(); count];
        for entries in raw.chunk_by(|a, b| (a.0, a.1, a.2) == (b.0, b.1, b.2)) {
            let Some((id, kind, rank, first)) = entries.first() else {
                continue;
            };
            let pins = if first.is_some() {
                self.pins
                    .push(entries.iter().filter_map(|entry| entry.3).collect());
                rank_of(self.pins.len() - 1)
            } else {
                0
            };
            self.postings.push(NamePosting { rank: *rank, pins });
            let end = rank_of(self.postings.len());
            if let Some(slot) = slots
                .get_mut(position(*id))
                .map(|slots| slot_mut(slots, *kind))
            {
                let start = if slot.start == slot.end {
                    end - 1
                } else {
                    slot.start
                };
                *slot = Slot { start, end };
            }
        }
        slots
    }

    /// What the rules of a class say about a name.
    ///
    /// An exact name before any pattern, the pattern with the longest literal part before others, the
    /// smallest rank among equals.
    pub(super) fn find(
        &self,
        rules: &RuleTable,
        class: &Class,
        kind: Kind,
        name: &Name,
        transport: Transport,
        port: u16,
    ) -> Found {
        let mut found = Found::default();
        let mut try_slot = |slot: Slot| -> Option<NamedBy> {
            for posting in rules.within(self.postings(slot), class) {
                let Some(rule) = rules.rule(posting.rank) else {
                    continue;
                };
                if rule.fits(transport, port) {
                    return Some(NamedBy {
                        rank: posting.rank,
                        slot,
                    });
                }
                found.on_other_port |= rule.carries(transport);
            }
            None
        };
        let slots = self.names.get(name);
        let mut by = slots.and_then(|slots| try_slot(slot(slots, kind)));
        if by.is_none() {
            let mut length = 0;
            self.trie.covering(name, &mut |id| {
                let Some((literal, slots)) = self.patterns.get(position(id)) else {
                    return;
                };
                let Some(candidate) = try_slot(slot(slots, kind)) else {
                    return;
                };
                let better = by.as_ref().is_none_or(|best: &NamedBy| {
                    *literal > length || (*literal == length && candidate.rank < best.rank)
                });
                if better {
                    length = *literal;
                    by = Some(candidate);
                }
            });
        }
        found.by = by;
        found
    }

    /// The host keys that all rules accept which stand beside `by`; any key when empty.
    pub(super) fn pins(
        &self,
        rules: &RuleTable,
        class: &Class,
        by: NamedBy,
        transport: Transport,
        port: u16,
    ) -> Cow<'_, [HostKeyPin]> {
        let mut accepted: Cow<'_, [HostKeyPin]> = Cow::Borrowed(&[]);
        for posting in rules.within(self.postings(by.slot), class) {
            if !rules
                .rule(posting.rank)
                .is_some_and(|rule| rule.fits(transport, port))
            {
                continue;
            }
            let pins = self
                .pins
                .get(position(posting.pins))
                .map_or(&[][..], |pins| pins);
            if pins.is_empty() {
                return Cow::Borrowed(&[]);
            }
            if accepted.is_empty() {
                accepted = Cow::Borrowed(pins);
            } else {
                accepted.to_mut().extend(pins);
            }
        }
        accepted
    }

    /// The postings of a range.
    fn postings(&self, slot: Slot) -> &[NamePosting] {
        self.postings
            .get(position(slot.start)..position(slot.end))
            .unwrap_or_default()
    }

    /// Calls `each` with every rule that lists a name, or a pattern that covers it, of any kind.
    pub(super) fn ranks_of(&self, name: &Name, each: &mut dyn FnMut(Rank)) {
        let mut all = |slots: &Slots| {
            for slot in slots {
                self.postings(*slot)
                    .iter()
                    .for_each(|posting| each(posting.rank));
            }
        };
        if let Some(slots) = self.names.get(name) {
            all(slots);
        }
        self.trie.covering(name, &mut |id| {
            if let Some((_, slots)) = self.patterns.get(position(id)) {
                all(slots);
            }
        });
    }

    /// Every exact name, each once.
    pub(super) fn exact_names(&self) -> impl Iterator<Item = &Name> {
        self.names.keys()
    }

    /// Whether an exact name or a pattern covers a name.
    pub(super) fn mentions(&self, name: &Name) -> bool {
        let mut covered = self.names.contains_key(name);
        if !covered {
            self.trie.covering(name, &mut |_| covered = true);
        }
        covered
    }

    /// Whether some exact name or pattern lies below a name.
    pub(super) fn is_above_some(&self, name: &str) -> bool {
        self.above.contains(&hash_of(name))
    }
}

/// Hashes of what lies above names and patterns; what a wildcard stands for is on no such way.
fn above<'n>(
    names: impl Iterator<Item = &'n Name>,
    patterns: impl Iterator<Item = &'n Pattern>,
) -> HashSet<u64, RandomState> {
    let mut above = HashSet::default();
    for mut name in names.map(Name::as_str).chain(patterns.map(Pattern::as_str)) {
        while let Some((label, parent)) = name.split_once('.') {
            let is_literal = !parent.contains('*');
            debug_assert!(!label.is_empty(), "a name is well formed");
            // All that lies above it is there as well.
            if is_literal && !above.insert(hash_of(parent)) {
                break;
            }
            name = parent;
        }
    }
    above
}

/// The same for equal names in one process.
fn hash_of(name: &str) -> u64 {
    FixedState::default().hash_one(name)
}

/// Exact names that a class may reach over TCP on a port, at most `max`, each once.
pub(super) fn reachable<'a>(
    draft: &'a Draft,
    rules: &RuleTable,
    class: &Class,
    kind: Option<Kind>,
    port: u16,
    max: usize,
) -> Vec<&'a Name> {
    let mut seen = HashSet::new();
    let groups = class
        .iter()
        .filter_map(|group| Some((group, draft.groups.get(position(*group))?)));
    groups
        .flat_map(|(group, content)| rules.ranks(*group).zip(&content.rules))
        .filter(|(rank, _)| {
            rules
                .rule(*rank)
                .is_some_and(|rule| rule.fits(Transport::Tcp, port))
        })
        .flat_map(|(_, rule)| rule.entries.iter().map(move |entry| (rule, entry)))
        .filter_map(|(rule, entry)| match entry {
            Entry::Name { kind: of, name, .. } => {
                let wanted = kind.is_none_or(|kind| kind == *of)
                    && works(*of, rule.transport, Transport::Tcp, &draft.preferences);
                wanted.then_some(name)
            }
            Entry::Pattern { .. } | Entry::Address { .. } | Entry::SeeThru { .. } => None,
        })
        .filter(|name| seen.insert(*name))
        .take(max)
        .collect()
}

/// The postings of one kind.
fn slot(slots: &Slots, kind: Kind) -> Slot {
    let [tls, ssh, http] = *slots;
    match kind {
        Kind::Tls => tls,
        Kind::Ssh => ssh,
        Kind::Http => http,
    }
}

/// The postings of one kind, to be set.
fn slot_mut(slots: &mut Slots, kind: Kind) -> &mut Slot {
    let [tls, ssh, http] = slots;
    match kind {
        Kind::Tls => tls,
        Kind::Ssh => ssh,
        Kind::Http => http,
    }
}

/// A number as an index.
fn position(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
