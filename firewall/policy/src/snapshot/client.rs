//! Clients by address, and the sets of groups they have.

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::quality::RandomState;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::Draft;

use super::port::PortMap;
use super::rule::{Class, RuleTable, rank_of};

/// A client of one snapshot. Means nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientRef(u32);

impl ClientRef {
    /// The client's position in the draft.
    pub(super) fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Prefixes in the order they were given, found by the longest match.
///
/// Single addresses, of which there are most, are hashed; the rest is a radix trie.
#[derive(Debug, Default)]
pub(super) struct PrefixTable {
    hosts: HashMap<IpAddr, u32, RandomState>,
    v4: PrefixMap<Ipv4Net, u32>,
    v6: PrefixMap<Ipv6Net, u32>,
}

impl PrefixTable {
    /// Numbers prefixes from 0.
    pub(super) fn build(prefixes: impl ExactSizeIterator<Item = IpNet>) -> Self {
        let mut table = Self {
            hosts: HashMap::with_capacity_and_hasher(prefixes.len(), RandomState::default()),
            ..Self::default()
        };
        for (position, prefix) in prefixes.enumerate() {
            let number = rank_of(position);
            match prefix {
                net if net.prefix_len() == net.max_prefix_len() => {
                    table.hosts.insert(net.addr(), number);
                }
                IpNet::V4(net) => {
                    table.v4.insert(net, number);
                }
                IpNet::V6(net) => {
                    table.v6.insert(net, number);
                }
            }
        }
        table
    }

    /// The number of the longest prefix that holds an address.
    pub(super) fn longest_match(&self, addr: IpAddr) -> Option<u32> {
        self.hosts.get(&addr).copied().or_else(|| match addr {
            IpAddr::V4(addr) => self.v4.get_lpm(&addr.into()).map(|(_, number)| *number),
            IpAddr::V6(addr) => self.v6.get_lpm(&addr.into()).map(|(_, number)| *number),
        })
    }
}

/// A set of groups that some client has.
#[derive(Debug)]
struct ClassEntry {
    groups: Box<Class>,
    /// Those with a see-thru entry: few, and asked about for every flow.
    see_thru: Box<Class>,
    /// The number of the port map.
    ports: u32,
}

/// Every client of a draft.
#[derive(Debug)]
pub(super) struct ClientTable {
    prefixes: PrefixTable,
    /// The class of each client.
    class_of: Vec<u32>,
    /// Each distinct set of groups.
    classes: Vec<ClassEntry>,
    /// Each distinct port map.
    ports: Vec<PortMap>,
    /// What a handle of another snapshot may reach.
    nothing: PortMap,
}

impl ClientTable {
    /// Indexes a draft in canonical order.
    pub(super) fn build(draft: &Draft, rules: &RuleTable) -> Self {
        let positions: HashMap<&str, u32> = draft
            .groups
            .iter()
            .map(|group| group.gid.as_str())
            .zip(0..)
            .collect();
        let mut numbers: HashMap<Box<Class>, u32> = HashMap::new();
        let mut port_numbers: HashMap<PortMap, u32> = HashMap::new();
        let mut table = Self {
            prefixes: PrefixTable::build(draft.clients.iter().map(|client| client.net)),
            class_of: Vec::with_capacity(draft.clients.len()),
            classes: Vec::new(),
            ports: Vec::new(),
            nothing: PortMap::default(),
        };
        for client in &draft.clients {
            // Gids are in byte order on both sides, so the positions ascend.
            let class: Box<Class> = client
                .groups
                .iter()
                .filter_map(|gid| positions.get(gid.as_str()))
                .copied()
                .collect();
            let number = *numbers.entry(class).or_insert_with_key(|class| {
                let map = PortMap::build(class.iter().flat_map(|group| rules.facets(*group)));
                let ports = *port_numbers.entry(map).or_insert_with_key(|map| {
                    table.ports.push(map.clone());
                    rank_of(table.ports.len() - 1)
                });
                let with_see_thru = |group: &u32| !rules.see_thru(*group).is_empty();
                table.classes.push(ClassEntry {
                    groups: class.clone(),
                    see_thru: class.iter().copied().filter(with_see_thru).collect(),
                    ports,
                });
                rank_of(table.classes.len() - 1)
            });
            table.class_of.push(number);
        }
        table
    }

    /// The client with the longest prefix that holds an address.
    pub(super) fn find(&self, addr: IpAddr) -> Option<ClientRef> {
        self.prefixes.longest_match(addr).map(ClientRef)
    }

    /// The groups of a client; none for a handle of another snapshot.
    pub(super) fn class_of(&self, client: ClientRef) -> &Class {
        self.entry(client).map_or(&[], |entry| &entry.groups)
    }

    /// Those groups of a client that have a see-thru entry.
    pub(super) fn see_thru_groups(&self, client: ClientRef) -> &Class {
        self.entry(client).map_or(&[], |entry| &entry.see_thru)
    }

    /// What is open for a client.
    pub(super) fn ports(&self, client: ClientRef) -> &PortMap {
        let number = self
            .entry(client)
            .and_then(|entry| usize::try_from(entry.ports).ok());
        number
            .and_then(|number| self.ports.get(number))
            .unwrap_or(&self.nothing)
    }

    fn entry(&self, client: ClientRef) -> Option<&ClassEntry> {
        let number = self.class_of.get(client.index())?;
        self.classes.get(usize::try_from(*number).ok()?)
    }
}
