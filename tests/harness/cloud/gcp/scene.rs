//! What tests put into the double's cloud, and change in it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::model::{Firewall, Machine, ROOT, Route};
use super::server::Google;

impl Google {
    /// A rule in the network of [`Google::PROJECT`]; its number.
    pub fn firewall(&self, rule: Firewall) -> String {
        self.firewall_in(Self::PROJECT, Self::NETWORK, rule)
    }

    /// A rule in another network; its number.
    pub fn firewall_in(&self, project: &str, network: &str, rule: Firewall) -> String {
        self.state().world.firewall(project, network, rule)
    }

    /// Changes a field of a rule.
    pub fn patch(&self, name: &str, field: &str, value: Value) {
        let mut state = self.state();
        let rules = state.world.firewalls.values_mut().flatten();
        for rule in rules.filter(|rule| rule["name"] == name) {
            rule[field] = value.clone();
        }
    }

    /// Deletes a rule.
    pub fn delete(&self, name: &str) {
        for rules in self.state().world.firewalls.values_mut() {
            rules.retain(|rule| rule["name"] != name);
        }
    }

    /// A machine in the network and project of [`Google::PROJECT`].
    pub fn machine(&self, machine: Machine) {
        self.machine_in(
            (Self::PROJECT, Self::ZONE),
            "net-1/global/networks/main",
            machine,
        );
    }

    /// A machine of a project and zone on a network, `PROJECT/global/networks/NAME`.
    pub fn machine_in(&self, place: (&str, &str), network: &str, machine: Machine) {
        self.state().world.machine(place, network, machine);
    }

    /// Changes a machine's tags.
    pub fn retag(&self, name: &str, tags: &[&str]) {
        let change = ("tags".to_owned(), json!({ "items": tags }));
        self.state().world.begin("setTags", name, Some(&change));
    }

    /// Gives a machine's first interface other alias ranges.
    pub fn realias(&self, name: &str, ranges: &[&str]) {
        let mut state = self.state();
        let machines = state.world.machines.values().flat_map(BTreeMap::values);
        let Some(machine) = machines.flatten().find(|found| found["name"] == name) else {
            return;
        };
        let mut nics = machine["networkInterfaces"].clone();
        nics[0]["aliasIpRanges"] = ranges
            .iter()
            .map(|range| json!({"ipCidrRange": range}))
            .collect();
        let change = ("networkInterfaces".to_owned(), nics);
        state
            .world
            .begin("updateNetworkInterface", name, Some(&change));
    }

    /// Deletes a machine.
    pub fn stop(&self, name: &str) {
        self.state().world.begin("delete", name, None);
    }

    /// Something happens to a machine of [`Google::ZONE`] that changes nothing.
    pub fn operate(&self, kind: &str, name: &str) {
        let place = (Self::PROJECT, Self::ZONE);
        self.state().world.operate(place, kind, name, true);
    }

    /// A route of the network of [`Google::PROJECT`].
    pub fn route(&self, route: Route) {
        let mut fields = route.fields;
        let (project, network) = (Self::PROJECT, Self::NETWORK);
        fields["network"] = format!("{ROOT}/projects/{project}/global/networks/{network}").into();
        let routes = &mut self.state().world.routes;
        routes.entry(project.to_owned()).or_default().push(fields);
    }

    /// A subnet of the network of [`Google::PROJECT`], in `europe-west1`.
    pub fn subnet(&self, name: &str, range: &str) {
        let network = format!(
            "{}/projects/{}/global/networks/{}",
            ROOT,
            Self::PROJECT,
            Self::NETWORK
        );
        let fields = json!({"ipCidrRange": range, "network": network});
        self.state()
            .world
            .subnet((Self::PROJECT, "europe-west1"), name, fields);
    }

    /// A service project of the Shared VPC of a host project.
    pub fn attach(&self, host: &str, project: &str) {
        let attached = &mut self.state().world.attached;
        attached
            .entry(host.to_owned())
            .or_default()
            .push(project.to_owned());
    }

    /// A reserved external address in `europe-west1`.
    pub fn reserve(&self, address: &str, labels: &Value) {
        let fields = json!({
            "kind": "compute#address", "name": format!("a-{}", address.replace('.', "-")), "address": address,
            "addressType": "EXTERNAL", "status": "RESERVED", "labels": labels,
        });
        let addresses = &mut self.state().world.addresses;
        let regions = addresses.entry(Self::PROJECT.to_owned()).or_default();
        regions
            .entry("europe-west1".to_owned())
            .or_default()
            .push(fields);
    }

    /// Lets another machine have this address at the moment somebody first wants any, unless it has one by then.
    pub fn contest(&self, address: &str, machine: &str) {
        let contests = &mut self.state().world.contests;
        contests.push((address.to_owned(), machine.to_owned()));
    }
}
