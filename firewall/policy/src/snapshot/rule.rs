//! Every rule in one line, ordered by gid and rule id, and the groups as ranges of that line.
//!
//! A rule is known by its rank. Ranks order as logs must: of two rules that allow a flow the one
//! with the smaller rank is named.

use std::ops::Range;

use crate::{Date, Draft, Entry, PortRange, RuleTransport, Transport};

use super::port::Facet;

/// The position of a rule in the order of (gid, rule id).
pub(super) type Rank = u32;

/// A set of groups that some client has: their positions in gid order, ascending.
pub(super) type Class = [u32];

/// What matching a rule needs.
#[derive(Debug)]
pub(super) struct CompiledRule {
    /// The position of its group in gid order.
    pub(super) group: u32,
    transport: RuleTransport,
    /// Its ports.
    pub(super) ports: PortRange,
}

impl CompiledRule {
    /// Whether the rule speaks for flows of this protocol on some port.
    pub(super) fn carries(&self, transport: Transport) -> bool {
        self.transport.covers(transport)
    }

    /// Whether the rule speaks for flows of this protocol and port.
    ///
    /// Protocols without ports fit a rule for all ports only.
    pub(super) fn fits(&self, transport: Transport, port: u16) -> bool {
        let has_ports = matches!(transport, Transport::Tcp | Transport::Udp);
        self.transport.covers(transport)
            && (self.ports.is_all() || (has_ports && self.ports.contains(port)))
    }
}

/// What a group has besides its rules.
#[derive(Debug, Default)]
struct CompiledGroup {
    /// The ranks of its rules.
    rules: Range<Rank>,
    /// Its see-thru entries, by rank.
    see_thru: Box<[(Rank, Date)]>,
    /// What its rules open, each distinct opening once.
    facets: Box<[Facet]>,
}

/// Every rule and group of a draft.
#[derive(Debug)]
pub(super) struct RuleTable {
    rules: Vec<CompiledRule>,
    groups: Vec<CompiledGroup>,
}

impl RuleTable {
    /// Indexes a draft in canonical order.
    pub(super) fn build(draft: &Draft) -> Self {
        let mut table = Self {
            rules: Vec::new(),
            groups: Vec::new(),
        };
        for (position, group) in (0_u32..).zip(&draft.groups) {
            let first = rank_of(table.rules.len());
            let mut see_thru = Vec::new();
            let mut facets = Vec::new();
            for (rank, rule) in (first..).zip(&group.rules) {
                table.rules.push(CompiledRule {
                    group: position,
                    transport: rule.transport,
                    ports: rule.ports,
                });
                facets.extend(Facet::of(rule, &draft.preferences));
                see_thru.extend(rule.entries.iter().filter_map(|entry| match entry {
                    Entry::SeeThru { until } => Some((rank, *until)),
                    Entry::Name { .. } | Entry::Pattern { .. } | Entry::Address { .. } => None,
                }));
            }
            facets.sort_unstable();
            facets.dedup();
            table.groups.push(CompiledGroup {
                rules: first..rank_of(table.rules.len()),
                see_thru: see_thru.into(),
                facets: facets.into(),
            });
        }
        table
    }

    /// One rule.
    pub(super) fn rule(&self, rank: Rank) -> Option<&CompiledRule> {
        self.rules.get(usize::try_from(rank).ok()?)
    }

    /// The rules of a group.
    pub(super) fn ranks(&self, group: u32) -> Range<Rank> {
        self.group(group).map_or(0..0, |group| group.rules.clone())
    }

    /// The see-thru entries of a group, by rank.
    pub(super) fn see_thru(&self, group: u32) -> &[(Rank, Date)] {
        self.group(group).map_or(&[], |group| &group.see_thru)
    }

    /// What the rules of a group open.
    pub(super) fn facets(&self, group: u32) -> &[Facet] {
        self.group(group).map_or(&[], |group| &group.facets)
    }

    fn group(&self, group: u32) -> Option<&CompiledGroup> {
        self.groups.get(usize::try_from(group).ok()?)
    }

    /// Those of `postings` whose rules belong to the class, by ascending rank.
    ///
    /// `postings` is in ascending order of rank. Walks whichever is shorter of the two and searches
    /// the other, so a name that thousands of groups list costs a client of three groups three
    /// searches.
    pub(super) fn within<'a, P: Posting>(
        &'a self,
        postings: &'a [P],
        class: &'a Class,
    ) -> impl Iterator<Item = &'a P> + 'a {
        let by_posting = postings.len() <= class.len();
        let few = if by_posting { postings } else { &[] };
        let groups = if by_posting { &[] } else { class };
        let held = few.iter().filter(|posting| {
            let rule = self.rule(posting.rank());
            rule.is_some_and(|rule| class.binary_search(&rule.group).is_ok())
        });
        let of_groups = groups.iter().flat_map(|group| {
            let ranks = self.ranks(*group);
            let start = postings.partition_point(|posting| posting.rank() < ranks.start);
            let rest = postings.get(start..).unwrap_or_default();
            rest.iter()
                .take_while(move |posting| posting.rank() < ranks.end)
        });
        held.chain(of_groups)
    }
}

/// Something that a rule holds.
pub(super) trait Posting {
    /// The rule's rank.
    fn rank(&self) -> Rank;
}

impl Posting for Rank {
    fn rank(&self) -> Rank {
        *self
    }
}

/// A position as a rank; the limit on rules keeps it in range.
pub(super) fn rank_of(position: usize) -> Rank {
    Rank::try_from(position).unwrap_or(Rank::MAX)
}
