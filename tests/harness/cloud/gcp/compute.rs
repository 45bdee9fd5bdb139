//! Compute Engine, version 1: lists with small pages, aggregated lists over zones and regions, external addresses.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::http::Message;
use super::answer::{error, invalid, missing, ok, unknown_field};
use super::fault::GoogleBreak;
use super::model::{ROOT, World};

/// A call, taken apart.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// Its method: `firewalls.list`.
    pub(super) method: &'static str,
    /// The project.
    pub(super) project: String,
    /// Zone or region, and what is in it.
    pub(super) place: Vec<String>,
    /// The query, decoded.
    pub(super) query: BTreeMap<String, String>,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// What a path under `/compute/v1/projects/P/` is a call of.
pub(super) fn method(verb: &str, rest: &[&str]) -> Option<&'static str> {
    Some(match (verb, rest) {
        ("GET", ["global", "firewalls"]) => "firewalls.list",
        ("GET", ["aggregated", "instances"]) => "instances.aggregatedList",
        ("GET", ["aggregated", "subnetworks"]) => "subnetworks.aggregatedList",
        ("GET", ["getXpnHost"]) => "projects.getXpnHost",
        ("GET", ["getXpnResources"]) => "projects.getXpnResources",
        ("GET", ["regions", _, "addresses"]) => "addresses.list",
        ("POST", ["zones", _, "instances", _, "addAccessConfig"]) => "instances.addAccessConfig",
        ("GET", ["zones", _, "instances"]) => "instances.list",
        ("GET", ["zones", _, "operations"]) => "zoneOperations.list",
        ("GET", ["zones", _, "operations", _]) => "zoneOperations.get",
        ("GET", ["global", "routes"]) => "routes.list",
        _ => return None,
    })
}

/// The permissions a method asks for (<https://cloud.google.com/compute/docs/reference/rest/v1>, "IAM Permissions").
pub(super) fn permissions(method: &str) -> &'static [&'static str] {
    match method {
        "firewalls.list" => &["compute.firewalls.list"],
        "instances.aggregatedList" | "instances.list" => &["compute.instances.list"],
        "routes.list" => &["compute.routes.list"],
        "subnetworks.aggregatedList" => &["compute.subnetworks.list"],
        "projects.getXpnHost" | "projects.getXpnResources" => &["compute.projects.get"],
        "addresses.list" => &["compute.addresses.list"],
        "instances.addAccessConfig" => &[
            "compute.addresses.use",
            "compute.instances.addAccessConfig",
            "compute.subnetworks.useExternalIp",
        ],
        "zoneOperations.get" => &["compute.zoneOperations.get"],
        "zoneOperations.list" => &["compute.zoneOperations.list"],
        _ => &[],
    }
}

const PARAMETERS: [&str; 11] = [
    "$alt",
    "$apiVersion",
    "alt",
    "filter",
    "includeAllScopes",
    "maxResults",
    "networkInterface",
    "orderBy",
    "pageToken",
    "requestId",
    "returnPartialSuccess",
];

/// Refuses what the service refuses before it looks.
fn checked(call: &Call) -> Result<usize, Message> {
    if let Some(unknown) = call
        .query
        .keys()
        .find(|name| !PARAMETERS.contains(&name.as_str()))
    {
        let message = format!("Invalid JSON payload received. Unknown name \"{unknown}\"");
        return Err(invalid(&message));
    }
    match call
        .query
        .get("maxResults")
        .map(|text| text.parse::<usize>())
    {
        None => Ok(500),
        Some(Ok(most)) if most <= 500 => Ok(most),
        Some(_) => Err(invalid("Invalid value for field 'maxResults'")),
    }
}

/// The page a token is for: what was last handed out.
fn after(call: &Call) -> Result<Option<String>, Message> {
    let token = call
        .query
        .get("pageToken")
        .filter(|token| !token.is_empty());
    let Some(token) = token else { return Ok(None) };
    let key = token
        .strip_prefix("double.")
        .and_then(super::super::pages::unhex);
    let key = key.and_then(|key| key.split_once('|').map(|(_, key)| key.to_owned()));
    key.map(Some)
        .ok_or_else(|| invalid("Invalid value for field 'pageToken'"))
}

/// The number of the page that is asked for, from 1.
pub(super) fn page(query: &BTreeMap<String, String>) -> u32 {
    let token = query
        .get("pageToken")
        .and_then(|token| token.strip_prefix("double."));
    let key = token.and_then(super::super::pages::unhex);
    key.and_then(|key| key.split_once('|')?.0.parse().ok())
        .unwrap_or(1)
}

fn token(page: u32, key: &str) -> String {
    format!(
        "double.{}",
        super::super::pages::hex(&format!("{page}|{key}"))
    )
}

/// Answers a call; `page_items` is the most a page has, however many were asked for.
pub(super) fn answer(
    world: &mut World,
    call: &Call,
    page_items: usize,
    broken: Option<GoogleBreak>,
) -> Message {
    let most = match checked(call) {
        Ok(most) => most.min(page_items).max(1),
        Err(refusal) => return refusal,
    };
    world.settle();
    let answer = match call.method {
        "firewalls.list" => {
            let items = world.firewalls.get(&call.project);
            flat(call, "compute#firewallList", items, most)
        }
        "routes.list" => {
            let items = world.routes.get(&call.project);
            flat(call, "compute#routeList", items, most)
        }
        "addresses.list" => {
            let items = here(&world.addresses, call);
            flat(call, "compute#addressList", items, most)
        }
        "instances.list" => by_name(call, here(&world.machines, call), most),
        "zoneOperations.list" => newest_first(call, here(&world.operations, call), most),
        "instances.aggregatedList" => {
            let (kind, field) = ("compute#instanceAggregatedList", "instances");
            let lists = world.machines.get(&call.project);
            aggregated(call, (kind, field, "zones"), lists, most)
        }
        "subnetworks.aggregatedList" => {
            let (kind, field) = ("compute#subnetworkAggregatedList", "subnetworks");
            let lists = world.subnets.get(&call.project);
            aggregated(call, (kind, field, "regions"), lists, most)
        }
        "projects.getXpnResources" => resources(world, call, most),
        "projects.getXpnHost" => return host(world, call),
        "instances.addAccessConfig" => return add_access_config(world, call),
        _ => return operation(call),
    };
    match answer {
        Ok(mut body) => {
            break_list(&mut body, broken);
            ok(&body)
        }
        Err(refusal) => refusal,
    }
}

/// Items with the keys they are ordered by, and the token of the next page.
type Page<T> = (Vec<(String, T)>, Option<String>);

/// One page of what is behind the key that was last handed out.
fn page_of<T>(call: &Call, mut items: Vec<(String, T)>, most: usize) -> Result<Page<T>, Message> {
    items.sort_by(|one, other| one.0.cmp(&other.0));
    let after = after(call)?;
    let mut left = items
        .into_iter()
        .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after));
    let found: Vec<(String, T)> = left.by_ref().take(most).collect();
    let last = found.last().map(|(key, _)| key.clone());
    let next = left
        .next()
        .and(last)
        .map(|key| token(page(&call.query) + 1, &key));
    Ok((found, next))
}

fn name_of(item: &Value) -> String {
    item["name"].as_str().unwrap_or_default().to_owned()
}

/// What a project has in the place of a call.
fn here<'w>(
    lists: &'w BTreeMap<String, BTreeMap<String, Vec<Value>>>,
    call: &Call,
) -> Option<&'w Vec<Value>> {
    lists.get(&call.project)?.get(call.place.first()?)
}

/// Refuses parameters that this list is never sent.
fn without(call: &Call, parameter: &str) -> Result<(), Message> {
    match call.query.get(parameter) {
        Some(value) if !value.is_empty() => {
            let message = format!("Invalid value for field '{parameter}'");
            Err(invalid(&message))
        }
        _ => Ok(()),
    }
}

fn flat(
    call: &Call,
    kind: &str,
    items: Option<&Vec<Value>>,
    most: usize,
) -> Result<Value, Message> {
    without(call, "filter")?;
    without(call, "orderBy")?;
    let items = items.into_iter().flatten();
    listed(
        call,
        kind,
        items.map(|item| (name_of(item), item)).collect(),
        most,
    )
}

/// Machines of a zone, all or those that a filter names.
fn by_name(call: &Call, items: Option<&Vec<Value>>, most: usize) -> Result<Value, Message> {
    without(call, "orderBy")?;
    let wanted = clauses(call, "name")?;
    let items = items
        .into_iter()
        .flatten()
        .map(|item| (name_of(item), item));
    let is_wanted = |name: &String| wanted.as_ref().is_none_or(|wanted| wanted.contains(name));
    let keyed = items.filter(|(name, _)| is_wanted(name)).collect();
    listed(call, "compute#instanceList", keyed, most)
}

/// Operations of a zone. The service takes one order and, with it, no filter
/// (<https://cloud.google.com/compute/docs/reference/rest/v1/zoneOperations/list>, `orderBy`).
fn newest_first(call: &Call, items: Option<&Vec<Value>>, most: usize) -> Result<Value, Message> {
    without(call, "filter")?;
    if call.query.get("orderBy").map(String::as_str) != Some("creationTimestamp desc") {
        return Err(invalid("Invalid value for field 'orderBy'"));
    }
    let items = items.into_iter().flatten();
    let age = |item: &Value| {
        let id: u64 = item["id"]
            .as_str()
            .unwrap_or_default()
            .parse()
            .unwrap_or_default();
        format!("{:020}", u64::MAX - id)
    };
    listed(
        call,
        "compute#operationList",
        items.map(|item| (age(item), item)).collect(),
        most,
    )
}

/// One page of a list of one place.
fn listed(
    call: &Call,
    kind: &str,
    keyed: Vec<(String, &Value)>,
    most: usize,
) -> Result<Value, Message> {
    let (found, next) = page_of(call, keyed, most)?;
    let mut body =
        json!({"kind": kind, "id": format!("projects/{}", call.project), "selfLink": ROOT});
    // A list without anything in it has no `items`.
    if !found.is_empty() {
        body["items"] = found.into_iter().map(|(_, item)| item.clone()).collect();
    }
    if let Some(next) = next {
        body["nextPageToken"] = next.into();
    }
    Ok(body)
}

/// A list over places, each with what it has on this page or a warning that it has nothing.
fn aggregated(
    call: &Call,
    (kind, field, places): (&str, &str, &str),
    lists: Option<&BTreeMap<String, Vec<Value>>>,
    most: usize,
) -> Result<Value, Message> {
    let wanted = clauses(call, "networkInterfaces.networkIP")?;
    let lists = || lists.into_iter().flatten();
    let mut names: Vec<String> = lists().map(|(place, _)| place.clone()).collect();
    names.push("nowhere1-a".to_owned());
    let keyed = lists()
        .flat_map(|(place, items)| items.iter().map(move |item| (place, item)))
        .filter(|(_, item)| {
            wanted
                .as_ref()
                .is_none_or(|wanted| has_address(item, wanted))
        })
        .map(|(place, item)| (format!("{place}/{}", name_of(item)), (place, item)))
        .collect();
    let (found, next) = page_of(call, keyed, most)?;
    let mut body = json!({"kind": kind, "id": format!("projects/{}/aggregated/{field}", call.project), "selfLink": ROOT});
    for place in names {
        let here: Vec<Value> = found
            .iter()
            .filter(|(_, (other, _))| **other == place)
            .map(|(_, (_, item))| (*item).clone())
            .collect();
        body["items"][format!("{places}/{place}")] = if here.is_empty() {
            json!({"warning": {
                "code": "NO_RESULTS_ON_PAGE",
                "message": format!("There are no results for scope '{places}/{place}' on this page."),
                "data": [{"key": "scope", "value": format!("{places}/{place}")}],
            }})
        } else {
            json!({ field: here })
        };
    }
    if let Some(next) = next {
        body["nextPageToken"] = next.into();
    }
    Ok(body)
}

/// The values a filter asks for. Of AIP-160, as much as the product uses; anything else is refused, as a slip in it
/// would be.
fn clauses(call: &Call, field: &str) -> Result<Option<Vec<String>>, Message> {
    let Some(filter) = call.query.get("filter").filter(|filter| !filter.is_empty()) else {
        return Ok(None);
    };
    let value = |clause: &str| {
        let inner = clause.strip_prefix(&format!("({field} = \""))?;
        Some(inner.strip_suffix("\")")?.to_owned())
    };
    let found: Option<Vec<String>> = filter.split(" OR ").map(value).collect();
    found
        .map(Some)
        .ok_or_else(|| invalid("Invalid value for field 'filter'"))
}

fn has_address(machine: &Value, wanted: &[String]) -> bool {
    let nics = machine["networkInterfaces"]
        .as_array()
        .into_iter()
        .flatten();
    nics.filter_map(|nic| nic["networkIP"].as_str())
        .any(|address| wanted.iter().any(|one| one == address))
}

fn resources(world: &World, call: &Call, most: usize) -> Result<Value, Message> {
    let attached = world
        .attached
        .get(&call.project)
        .cloned()
        .unwrap_or_default();
    let keyed = attached.into_iter().map(|project| (project, ())).collect();
    let (found, next) = page_of(call, keyed, most)?;
    let resources: Vec<Value> = found
        .iter()
        .map(|(project, ())| json!({"type": "PROJECT", "id": project}))
        .collect();
    let mut body = json!({"kind": "compute#projectsGetXpnResources"});
    if !resources.is_empty() {
        body["resources"] = resources.into();
    }
    if let Some(next) = next {
        body["nextPageToken"] = next.into();
    }
    Ok(body)
}

fn host(world: &World, call: &Call) -> Message {
    let mut hosts = world.attached.iter();
    match hosts.find(|(_, attached)| attached.contains(&call.project)) {
        Some((host, _)) => ok(&json!({"kind": "compute#project", "name": host})),
        None => ok(&json!({"kind": "compute#project"})),
    }
}

/// Gives a machine an external address, unless it has one or somebody else has this one.
fn add_access_config(world: &mut World, call: &Call) -> Message {
    let [zone, name] = call.place.as_slice() else {
        return missing("instance");
    };
    let Ok(body) = serde_json::from_slice::<Value>(&call.body) else {
        return invalid("Invalid JSON payload received.");
    };
    if let Some(refusal) = unknown_field(&body, &["kind", "name", "natIP", "networkTier", "type"]) {
        return refusal;
    }
    if call.query.get("networkInterface").map(String::as_str) != Some("nic0") {
        return invalid("Invalid value for field 'networkInterface'");
    }
    let wanted = body["natIP"].as_str().unwrap_or_default().to_owned();
    // Whoever contests this very address was a moment earlier.
    let rivals: Vec<(String, String)> = world
        .contests
        .iter()
        .filter(|(address, _)| *address == wanted)
        .cloned()
        .collect();
    for (address, rival) in rivals {
        world.contests.clear();
        drop(give(world, (&call.project, zone), &rival, &address));
    }
    if let Err(refusal) = give(world, (&call.project, zone), name, &wanted) {
        return refusal;
    }
    let path = "instance/network-interfaces/0/access-configs/0/external-ip";
    world.metadata.insert(path.to_owned(), wanted);
    ok(&json!({
        "kind": "compute#operation", "name": "operation-1", "status": "RUNNING", "progress": 0,
        "zone": format!("{ROOT}/projects/{}/zones/{zone}", call.project),
    }))
}

/// Gives an address to a machine, or says why not.
fn give(
    world: &mut World,
    (project, zone): (&str, &str),
    name: &str,
    address: &str,
) -> Result<(), Message> {
    let region = zone.rsplit_once('-').map_or("", |(region, _)| region);
    let machines = world
        .machines
        .get_mut(project)
        .and_then(|zones| zones.get_mut(zone));
    let machine =
        machines.and_then(|found| found.iter_mut().find(|machine| machine["name"] == *name));
    let nic = &mut machine.ok_or_else(|| missing(name))?["networkInterfaces"][0];
    if nic["accessConfigs"]
        .as_array()
        .is_some_and(|configs| !configs.is_empty())
    {
        return Err(invalid("At most one access config currently supported."));
    }
    let reserved = world
        .addresses
        .get_mut(project)
        .and_then(|regions| regions.get_mut(region));
    let reserved =
        reserved.and_then(|found| found.iter_mut().find(|one| one["address"] == *address));
    let reserved = reserved.ok_or_else(|| {
        invalid("Invalid value for field 'resource.natIP': The specified external IP address was not found.")
    })?;
    if reserved["status"] != "RESERVED" {
        let message = format!("External IP address '{address}' is in use.");
        return Err(error(400, "INVALID_ARGUMENT", "externalIpInUse", &message));
    }
    reserved["status"] = "IN_USE".into();
    reserved["users"] = json!([format!(
        "{ROOT}/projects/{project}/zones/{zone}/instances/{name}"
    )]);
    nic["accessConfigs"] =
        json!([{"kind": "compute#accessConfig", "natIP": address, "type": "ONE_TO_ONE_NAT"}]);
    Ok(())
}

fn operation(call: &Call) -> Message {
    ok(&json!({
        "kind": "compute#operation", "name": call.place.last(), "status": "DONE", "progress": 100,
    }))
}

/// Breaks a list as asked.
fn break_list(body: &mut Value, broken: Option<GoogleBreak>) {
    let warning = json!({"code": "UNREACHABLE", "message": "Some requests failed.", "data": []});
    match broken {
        Some(GoogleBreak::Warning) => {
            body["warning"] = warning;
            if let Some(items) = body["items"].as_array_mut() {
                items.clear();
            }
        }
        Some(GoogleBreak::Unreachable(place)) => {
            body["items"][place] = json!({ "warning": warning })
        }
        _ => {}
    }
}
