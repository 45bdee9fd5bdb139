//! The inventory file: groups, clients and preferences without a cloud, and the overlay with one.
//!
//! The file is taken whole or not at all: what it says about clients and rules is refused at the first
//! mistake, with its line. What a description says is an annotation like any other, so a mistake in
//! there is a fault and costs one entry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::annotation::{self, ListBody, ListReference, Site, Standing};
use crate::preferences::{PreferenceFault, Preferences};
use crate::{Client, Draft, Group, PortRange, Rule, RuleTransport, lists, parse_prefix};

mod document;

use document::{Document, Item, Table, suggestion};

/// Bytes of an inventory; the limit of a whole policy.
pub const INVENTORY_BYTES_MAX: usize = crate::CONTENT_BYTES_MAX;

/// What a file without `served` serves besides its clients: RFC 1918, RFC 6598 and RFC 4193.
pub const PRIVATE_PREFIXES: [&str; 5] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
];

/// What a file is read as.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// The whole policy.
    Whole,
    /// An addition to a cloud's inventory: clients may name the cloud's groups, nothing is served by
    /// default, and preferences are changes to these.
    Overlay(&'a Preferences),
}

/// Why an inventory was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct InvalidInventory {
    /// The line of the mistake, from 1.
    pub line: usize,
    /// The key it belongs to, as far as one can be named.
    pub key: Option<String>,
    /// What is wrong.
    pub problem: String,
}

/// Why an inventory file could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The file could not be read.
    #[error("reading the file")]
    Read(#[source] std::io::Error),
    /// The file was refused.
    #[error(transparent)]
    Invalid(#[from] InvalidInventory),
}

/// Reads an inventory file, and the lists beside it.
///
/// # Errors
///
/// When the file cannot be read, or [`read`] refuses its text.
pub fn read_file(path: &Path, scope: Scope<'_>) -> Result<Draft, InventoryError> {
    let text = std::fs::read_to_string(path).map_err(InventoryError::Read)?;
    let directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(read(&text, scope, &mut lists_beside(directory))?)
}

/// Lists as files of a directory.
pub fn lists_beside(directory: PathBuf) -> impl FnMut(&ListReference) -> ListBody {
    move |reference| {
        let body = lists::read_file(&directory, reference);
        body.map(Into::into).map_err(|fault| fault.to_string())
    }
}

/// Reads the text of an inventory.
///
/// `list` is asked for each external list that a description refers to.
///
/// # Errors
///
/// At the first mistake, with its line. Faults of annotations are in the draft.
pub fn read(
    text: &str,
    scope: Scope<'_>,
    list: &mut dyn FnMut(&ListReference) -> ListBody,
) -> Result<Draft, InvalidInventory> {
    let document = Document::parse(text)?;
    let root = document.root(&["served", "preferences", "group", "client"])?;
    let mut draft = Draft::default();
    if let Scope::Overlay(preferences) = scope {
        draft.preferences = preferences.clone();
    }
    if let Some(item) = root.find("preferences") {
        preferences(&item, &mut draft.preferences)?;
    }
    let mut lines = BTreeMap::new();
    for group in root.tables("group", &["id", "rule"])? {
        let (id, group_line) = identifier(&group)?;
        if let Some(first) = lines.insert(id.clone(), group_line) {
            let problem = format!("duplicate group id {id:?}, first on line {first}");
            return Err(group
                .find("id")
                .map_or_else(|| group.wrong("id", ""), |i| i.wrong(problem)));
        }
        let rules = group.tables("rule", &["description", "protocol", "ports", "cidr"])?;
        let mut read_rules = Vec::with_capacity(rules.len());
        for (position, rule) in (1_usize..).zip(&rules) {
            read_rules.push(read_rule(&id, position, rule, &mut draft, list)?);
        }
        draft.groups.push(Group {
            gid: id,
            rules: read_rules,
        });
    }
    for client in root.tables("client", &["address", "instance", "groups"])? {
        let known = match scope {
            Scope::Whole => Some(&lines),
            Scope::Overlay(_) => None,
        };
        draft.clients.push(read_client(&client, known)?);
    }
    draft.served = match (root.find("served"), scope) {
        (Some(item), _) => item
            .strings()?
            .iter()
            .map(prefix)
            .collect::<Result<_, _>>()?,
        (None, Scope::Overlay(_)) => Vec::new(),
        (None, Scope::Whole) => default_served(&draft.clients),
    };
    Ok(draft)
}

/// The id of a group and its line.
fn identifier(group: &Table<'_>) -> Result<(String, usize), InvalidInventory> {
    let item = group.need("id")?;
    let id = item.string()?;
    if id.is_empty() || id.starts_with('%') {
        return Err(item.wrong("a group's id is not empty and does not begin with \"%\""));
    }
    Ok((id.to_owned(), item.line()))
}

/// Sets preferences from their table. A mistake in here is no fault but refuses the file.
fn preferences(item: &Item<'_>, preferences: &mut Preferences) -> Result<(), InvalidInventory> {
    for (key, value) in item.table(Preferences::KEYS)?.items() {
        preferences.set(key, &value.to_json()).map_err(|fault| {
            let problem = match fault {
                PreferenceFault::Unknown(key) => format!("unknown key {key:?}"),
                PreferenceFault::Invalid { problem, .. } => format!("{key}: {problem}"),
            };
            value.wrong(problem)
        })?;
    }
    Ok(())
}

/// Reads one rule, and its description as an annotation.
fn read_rule(
    gid: &str,
    position: usize,
    table: &Table<'_>,
    draft: &mut Draft,
    list: &mut dyn FnMut(&ListReference) -> ListBody,
) -> Result<Rule, InvalidInventory> {
    let description = table.need("description")?.string()?.to_owned();
    let protocol = table.need("protocol")?;
    let word = protocol.string()?.to_ascii_lowercase();
    let transport: RuleTransport = word
        .parse()
        .map_err(|_| protocol.wrong(format!("protocol {word:?}: expected tcp, udp or all")))?;
    let ports_item = table.need("ports")?;
    let ports: PortRange = ports_item
        .scalar()?
        .parse()
        .map_err(|fault| ports_item.wrong(format!("ports: {fault}")))?;
    let cidr = match table.find("cidr") {
        Some(item) => Some(prefix(&item)?),
        None => None,
    };
    let rule = position.to_string();
    let site = Site {
        object: gid,
        rule: Some(&rule),
        transport: Some(transport),
        cidr,
        standing: Standing::Active,
        preferences: &draft.preferences,
    };
    let reading = annotation::read(&description, &site, list);
    draft.faults.extend(reading.faults);
    Ok(Rule {
        rule,
        transport,
        ports,
        cidr,
        entries: reading.entries,
    })
}

/// Reads one client; `known` are the groups it may belong to, if they are all in this file.
fn read_client(
    table: &Table<'_>,
    known: Option<&BTreeMap<String, usize>>,
) -> Result<Client, InvalidInventory> {
    let address = table.need("address")?;
    let net = prefix(&address)?;
    let instance = match table.find("instance") {
        Some(item) => item.string()?.to_owned(),
        None => address.string()?.to_owned(),
    };
    let mut groups = Vec::new();
    for item in table.need("groups")?.strings()? {
        let gid = item.string()?;
        if let Some(known) = known.filter(|known| !known.contains_key(gid)) {
            let hint = suggestion(gid, known.keys().map(String::as_str));
            return Err(item.wrong(format!("unknown group {gid:?}{hint}")));
        }
        groups.push(gid.to_owned());
    }
    Ok(Client {
        net,
        instance,
        groups,
    })
}

/// An address or prefix.
fn prefix(item: &Item<'_>) -> Result<IpNet, InvalidInventory> {
    parse_prefix(item.string()?).map_err(|fault| item.wrong(fault.to_string()))
}

/// The private prefixes, and the clients outside them.
fn default_served(clients: &[Client]) -> Vec<IpNet> {
    let mut served: Vec<IpNet> = PRIVATE_PREFIXES
        .iter()
        .filter_map(|prefix| prefix.parse().ok())
        .collect();
    let private = served.clone();
    let outside = |net: &IpNet| !private.iter().any(|known| known.contains(net));
    served.extend(clients.iter().map(|client| client.net).filter(outside));
    served
}

#[cfg(test)]
mod tests;
