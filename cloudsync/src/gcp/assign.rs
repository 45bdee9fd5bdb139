//! Who is in which group: what a list of rules means for a list of machines. Pure.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;
use policy::annotation::Standing;

use super::firewalls::FirewallRule;
use super::instances::Nic;
use super::subnets::Subnet;
use crate::cloud::{DescribedRule, Interface, Reading};
use crate::config::ListedSubnet;

/// Everything that was read, and how to look at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    /// Annotated rules.
    pub(super) rules: &'a [&'a FirewallRule],
    /// Interfaces of machines.
    pub(super) nics: &'a [&'a Nic],
    /// Subnets.
    pub(super) subnets: &'a [Subnet],
    /// Subnets whose addresses are clients without a machine.
    pub(super) listed: &'a [ListedSubnet],
    /// Whether a rule in this network counts.
    pub(super) networks: &'a BTreeSet<String>,
    /// Networks served beside the subnets.
    pub(super) served: &'a [IpNet],
    /// Whether rules of several projects are told apart by it.
    pub(super) is_qualified: bool,
}

/// The groups that are for somebody, by whom: thousands of machines ask.
#[derive(Debug, Default)]
struct Index<'a> {
    all: HashMap<&'a str, Vec<&'a str>>,
    tags: HashMap<(&'a str, &'a str), Vec<&'a str>>,
    accounts: HashMap<(&'a str, &'a str), Vec<&'a str>>,
}

impl<'a> Index<'a> {
    fn new(rules: &'a [(&'a FirewallRule, String)]) -> Self {
        let mut index = Self::default();
        for (rule, gid) in rules {
            if rule.standing != Standing::Active {
                continue;
            }
            let network = rule.network.as_str();
            if rule.tags.is_empty() && rule.accounts.is_empty() {
                index.all.entry(network).or_default().push(gid);
            }
            for tag in &rule.tags {
                index.tags.entry((network, tag)).or_default().push(gid);
            }
            for account in &rule.accounts {
                let key = (network, account.as_str());
                index.accounts.entry(key).or_default().push(gid);
            }
        }
        index
    }

    /// The groups of a machine with these tags and accounts in this network, sorted.
    fn groups(&self, network: &str, tags: &[String], accounts: &[String]) -> Vec<String> {
        let all = self.all.get(network).into_iter().flatten();
        let by_tag = tags
            .iter()
            .filter_map(|tag| self.tags.get(&(network, tag.as_str())))
            .flatten();
        let by_account = accounts
            .iter()
            .filter_map(|account| self.accounts.get(&(network, account.as_str())))
            .flatten();
        let mut groups: Vec<&str> = all.chain(by_tag).chain(by_account).copied().collect();
        groups.sort_unstable();
        groups.dedup();
        groups.into_iter().map(ToOwned::to_owned).collect()
    }
}

/// One reading of it all.
pub(super) fn reading(parts: &Parts<'_>) -> Reading {
    let rules: Vec<(&FirewallRule, String)> = parts
        .rules
        .iter()
        .filter(|rule| parts.serves(&rule.network))
        .map(|rule| (*rule, gid(rule, parts.is_qualified)))
        .collect();
    let index = Index::new(&rules);
    let machines = parts.nics.iter().filter(|nic| parts.serves(&nic.network));
    let mut interfaces: Vec<Interface> = machines
        .map(|nic| Interface {
            id: nic.id(),
            instance: nic.instance.clone(),
            nets: nic.nets.clone(),
            groups: index.groups(&nic.network, &nic.tags, &nic.accounts),
        })
        .collect();
    let served = parts
        .subnets
        .iter()
        .filter(|subnet| parts.serves(&subnet.network));
    for (subnet, listed) in served.clone().flat_map(|subnet| {
        let same = move |listed: &&ListedSubnet| listed.is(&subnet.region, &subnet.name);
        parts
            .listed
            .iter()
            .filter(same)
            .map(move |listed| (subnet, listed))
    }) {
        interfaces.push(Interface {
            id: format!("{}/{}", subnet.region, subnet.name),
            instance: subnet.name.clone(),
            nets: subnet.nets.clone(),
            groups: index.groups(&subnet.network, &listed.tags, &listed.service_accounts),
        });
    }
    interfaces.sort_unstable();
    let served = nets(&served.collect::<Vec<_>>(), parts.served);
    Reading {
        groups: interfaces
            .iter()
            .flat_map(|interface| interface.groups.iter().cloned())
            .collect(),
        rules: rules
            .iter()
            .flat_map(|(rule, gid)| described(rule, gid))
            .collect(),
        interfaces,
        served,
        troubles: Vec::new(),
    }
}

/// The networks of subnets, and others.
fn nets(subnets: &[&Subnet], more: &[IpNet]) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = subnets
        .iter()
        .flat_map(|subnet| subnet.nets.clone())
        .collect();
    nets.extend(more);
    nets.sort_unstable();
    nets.dedup();
    nets
}

impl Parts<'_> {
    fn serves(&self, network: &str) -> bool {
        self.networks.contains(network)
    }
}

/// What logs call the group that a rule is.
fn gid(rule: &FirewallRule, is_qualified: bool) -> String {
    if is_qualified {
        format!("{}:{}", rule.project, rule.name)
    } else {
        rule.name.clone()
    }
}

/// A rule once for each protocol, range of ports and destination it has.
fn described(rule: &FirewallRule, gid: &str) -> Vec<DescribedRule> {
    // What a rule that allows nothing would be about is of no interest, and one fault is enough.
    let most = if rule.standing == Standing::Active {
        usize::MAX
    } else {
        1
    };
    let pairs = rule
        .allowed
        .iter()
        .flat_map(|allowed| rule.destinations.iter().map(move |cidr| (allowed, *cidr)));
    pairs
        .take(most)
        .map(|(allowed, cidr)| DescribedRule {
            gid: gid.to_owned(),
            rule: rule.id.clone(),
            standing: rule.standing,
            protocol: allowed.protocol.clone(),
            ports: allowed.ports,
            cidr,
            description: rule.description.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::firewalls::Allowed;
    use super::super::instances::Scope;
    use super::*;

    fn rule(name: &str, tags: &[&str], accounts: &[&str]) -> FirewallRule {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        FirewallRule {
            project: "p".into(),
            name: name.into(),
            id: "1".into(),
            network: "p/n".into(),
            standing: Standing::Active,
            description: "postern:tls:a.example.com".into(),
            allowed: vec![Allowed {
                protocol: "tcp".into(),
                ports: (443, 443),
            }],
            destinations: vec![None],
            tags: strings(tags),
            accounts: strings(accounts),
        }
    }

    fn nic(instance: &str, network: &str, tags: &[&str], account: &str) -> Nic {
        Nic {
            scope: Scope {
                project: "p".into(),
                zone: "z".into(),
            },
            instance: instance.into(),
            name: "nic0".into(),
            network: network.into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            accounts: vec![account.to_owned()],
            nets: vec!["10.0.0.5/32".parse().unwrap()],
        }
    }

    fn read(rules: &[FirewallRule], nics: &[Nic], listed: &[ListedSubnet]) -> Reading {
        let subnets = [Subnet {
            region: "r".into(),
            name: "connectors".into(),
            network: "p/n".into(),
            nets: vec!["10.8.0.0/28".parse().unwrap()],
        }];
        reading(&Parts {
            rules: &rules.iter().collect::<Vec<_>>(),
            nics: &nics.iter().collect::<Vec<_>>(),
            subnets: &subnets,
            listed,
            networks: &["p/n".to_owned()].into(),
            served: &[],
            is_qualified: false,
        })
    }

    fn groups(reading: &Reading, instance: &str) -> Vec<String> {
        let found = reading.interfaces.iter();
        let mut found = found.filter(|interface| interface.instance == instance);
        found.next().unwrap().groups.clone()
    }

    #[test]
    fn a_machine_is_in_the_groups_of_its_tags_its_account_and_its_network() {
        let rules = [
            rule("all", &[], &[]),
            rule("by-account", &[], &["web@p"]),
            rule("by-tag", &["web", "db"], &[]),
            FirewallRule {
                standing: Standing::Disabled,
                ..rule("off", &[], &[])
            },
        ];
        let nics = [
            nic("bare", "p/n", &[], "other@p"),
            nic("elsewhere", "p/other", &["web"], "web@p"),
            nic("web-1", "p/n", &["web"], "web@p"),
        ];
        let reading = read(&rules, &nics, &[]);
        assert_eq!(groups(&reading, "bare"), ["all"]);
        assert_eq!(groups(&reading, "web-1"), ["all", "by-account", "by-tag"]);
        assert_eq!(reading.interfaces.len(), 2);
        // The rule that is switched off is read for its fault.
        assert_eq!(reading.rules.len(), 4);
    }

    #[test]
    fn a_connectors_subnet_is_a_client_with_the_tags_it_is_listed_with() {
        let listed = ListedSubnet {
            name: "r/connectors".into(),
            tags: vec!["vpc-connector".into()],
            service_accounts: Vec::new(),
        };
        let rules = [rule("serverless", &["vpc-connector"], &[])];
        let reading = read(&rules, &[], &[listed]);
        assert_eq!(groups(&reading, "connectors"), ["serverless"]);
        assert_eq!(reading.served, ["10.8.0.0/28".parse().unwrap()]);
    }

    #[test]
    fn a_rule_is_there_once_for_each_protocol_and_range() {
        let mut several = rule("several", &[], &[]);
        several.allowed.push(Allowed {
            protocol: "udp".into(),
            ports: (-1, -1),
        });
        assert_eq!(described(&several, "several").len(), 2);
        several.standing = Standing::Deny;
        assert_eq!(described(&several, "several").len(), 1);
    }
}
