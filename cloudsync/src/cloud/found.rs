//! What a look-up for new clients found, and how it joins the last reading.

use std::collections::{BTreeSet, HashSet};

use ipnet::IpNet;

use super::{DescribedRule, Interface, Reading, Trouble};

/// Interfaces somebody asked for, and what of their groups was not known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// The interfaces, each with everything it has.
    pub(crate) interfaces: Vec<Interface>,
    /// Rules of the groups below.
    pub(crate) rules: Vec<DescribedRule>,
    /// Groups the last reading had not.
    pub(crate) groups: BTreeSet<String>,
    /// What could not be read.
    pub(crate) troubles: Vec<Trouble>,
    /// Networks the last reading had not.
    pub(crate) served: Vec<IpNet>,
}

impl Reading {
    /// Puts what was just looked up in place of what was known of those interfaces and of their
    /// addresses.
    pub(crate) fn join(&mut self, found: Found) {
        let new = found.interfaces;
        let taken: HashSet<IpNet> = new.iter().flat_map(|new| new.nets.clone()).collect();
        self.interfaces.retain_mut(|interface| {
            interface.nets.retain(|net| !taken.contains(net));
            !new.iter().any(|new| new.id == interface.id)
        });
        self.interfaces.extend(new);
        self.interfaces.sort_unstable();
        for gid in &found.groups {
            if self.groups.insert(gid.clone()) {
                let rules = found.rules.iter().filter(|rule| rule.gid == *gid);
                self.rules.extend(rules.cloned());
            }
        }
        self.troubles.extend(found.troubles);
        self.troubles.sort_unstable();
        self.troubles.dedup();
        self.served.extend(found.served);
        self.served.sort_unstable();
        self.served.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(id: &str, net: &str) -> Interface {
        Interface {
            id: id.into(),
            instance: format!("i-{id}"),
            nets: vec![net.parse().unwrap()],
            groups: vec!["sg-1".into()],
        }
    }

    fn rule(gid: &str, rule: &str) -> DescribedRule {
        DescribedRule {
            gid: gid.into(),
            rule: rule.into(),
            standing: policy::annotation::Standing::Active,
            protocol: "tcp".into(),
            ports: (443, 443),
            cidr: None,
            description: String::new(),
        }
    }

    #[test]
    fn an_address_looked_up_leaves_its_former_owner() {
        let mut known = Reading {
            interfaces: vec![
                interface("eni-1", "10.0.0.5/32"),
                interface("eni-2", "10.0.0.6/32"),
            ],
            ..Reading::default()
        };
        known.join(Found {
            interfaces: vec![interface("eni-3", "10.0.0.5/32")],
            ..Found::default()
        });
        let owners: Vec<&str> = known
            .interfaces
            .iter()
            .filter(|found| found.nets.contains(&"10.0.0.5/32".parse().unwrap()))
            .map(|found| found.id.as_str())
            .collect();
        assert_eq!(owners, ["eni-3"]);
    }

    #[test]
    fn a_group_known_by_now_keeps_the_rules_of_the_reading() {
        let mut known = Reading {
            groups: ["sg-1".to_owned()].into(),
            rules: vec![rule("sg-1", "sgr-new")],
            ..Reading::default()
        };
        known.join(Found {
            groups: ["sg-1".to_owned(), "sg-2".to_owned()].into(),
            rules: vec![rule("sg-1", "sgr-old"), rule("sg-2", "sgr-2")],
            ..Found::default()
        });
        let rules: Vec<&str> = known.rules.iter().map(|rule| rule.rule.as_str()).collect();
        assert_eq!(rules, ["sgr-new", "sgr-2"]);
    }
}
