//! `address` rules by destination.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::preferences::AddressRules;
use crate::{Draft, Entry, Transport};

use super::rule::{Class, Rank, RuleTable, rank_of};

/// Ranks of `address` rules under their CIDR.
#[derive(Debug, Default)]
pub(super) struct AddressIndex {
    v4: PrefixMap<Ipv4Net, Vec<Rank>>,
    v6: PrefixMap<Ipv6Net, Vec<Rank>>,
}

impl AddressIndex {
    /// Indexes a draft in canonical order; empty while preferences refuse `address` rules.
    pub(super) fn build(draft: &Draft) -> Self {
        let mut index = Self::default();
        if draft.preferences.address_rules != AddressRules::Allow {
            return index;
        }
        let rules = draft.groups.iter().flat_map(|group| &group.rules);
        for (position, rule) in rules.enumerate() {
            let is_address = |entry: &Entry| matches!(entry, Entry::Address { .. });
            if !rule.entries.iter().any(is_address) {
                continue;
            }
            match rule.cidr {
                Some(IpNet::V4(net)) => index.v4.entry(net).or_default().push(rank_of(position)),
                Some(IpNet::V6(net)) => index.v6.entry(net).or_default().push(rank_of(position)),
                None => {}
            }
        }
        index
    }

    /// The first rule of a class that allows an address, by rank.
    ///
    /// The work is bounded by the length of an address, not by the number of rules.
    pub(super) fn find(
        &self,
        rules: &RuleTable,
        class: &Class,
        transport: Transport,
        port: u16,
        dst: IpAddr,
    ) -> Option<Rank> {
        let first = |ranks: &Vec<Rank>| {
            rules.within(ranks, class).copied().find(|rank| {
                rules
                    .rule(*rank)
                    .is_some_and(|rule| rule.fits(transport, port))
            })
        };
        match dst {
            IpAddr::V4(addr) => self.v4.cover_values(&addr.into()).filter_map(first).min(),
            IpAddr::V6(addr) => self.v6.cover_values(&addr.into()).filter_map(first).min(),
        }
    }
}
