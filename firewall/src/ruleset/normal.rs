//! The normal form in which what was rendered and what is read back are compared.
//!
//! nftables 1.0.6 to 1.1.3 print the same rule in slightly different words. Everything that may
//! differ without a difference in meaning is made equal here, and nothing else.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// A listing, its objects as text: they are looked at one at a time, for the tree of all of them takes two megabytes.
#[derive(Deserialize)]
struct Listing<'a> {
    #[serde(borrow)]
    nftables: Vec<&'a RawValue>,
}

/// Brings a listing (`nft -j -t list table`) into the normal form: without handles, counts, the
/// line about nftables itself and set elements, sorted where order means nothing. Rules keep their
/// order.
///
/// # Errors
/// When it is no listing.
pub(super) fn listing(document: &str) -> serde_json::Result<Vec<String>> {
    let listing: Listing<'_> = serde_json::from_str(document)?;
    sorted(listing.nftables.into_iter().map(RawValue::get))
}

/// Brings rendered objects into the normal form.
///
/// # Errors
/// When one is no JSON.
pub(super) fn rendered(objects: &[String]) -> serde_json::Result<Vec<String>> {
    sorted(objects.iter())
}

/// Tables, chains, counters and sets by kind and name; rules by chain, in order.
fn sorted<T: AsRef<str>>(objects: impl Iterator<Item = T>) -> serde_json::Result<Vec<String>> {
    let mut keyed = Vec::new();
    for text in objects {
        let listed: Value = serde_json::from_str(text.as_ref())?;
        if listed.get("metainfo").is_none() {
            let normal = object(&listed);
            keyed.push((key(&normal), normal.to_string()));
        }
    }
    // Keeps the order of those with the same key.
    keyed.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(keyed.into_iter().map(|(_, text)| text).collect())
}

/// Kind and name of an object; of a rule, its chain's.
fn key(object: &Value) -> (String, String) {
    let (kind, fields) = match object.as_object().and_then(|o| o.iter().next()) {
        Some((kind, fields)) => (kind.clone(), fields),
        None => (String::new(), &Value::Null),
    };
    let name = if kind == "rule" { "chain" } else { "name" };
    let name = fields.get(name).and_then(Value::as_str).unwrap_or_default();
    (kind, name.to_owned())
}

/// What says nothing about the meaning of an object.
const INCIDENTAL: [&str; 4] = ["handle", "packets", "bytes", "elem"];

fn object(object: &Value) -> Value {
    let mut object = value(object);
    for fields in object.as_object_mut().into_iter().flat_map(Map::values_mut) {
        let Some(fields) = fields.as_object_mut() else {
            continue;
        };
        fields.retain(|key, _| !INCIDENTAL.contains(&key.as_str()));
        if let Some(flags) = fields.get_mut("flags") {
            *flags = set_flags(flags);
        }
        // One device may be printed as itself or as a list, several in any order.
        if let Some(devices) = fields.get_mut("dev") {
            if devices.is_string() {
                *devices = json!([devices.take()]);
            }
            if let Some(devices) = devices.as_array_mut() {
                devices.sort_by_cached_key(Value::to_string);
            }
        }
    }
    object
}

/// `dynamic` is implied by a rule that adds elements and printed by newer versions only.
fn set_flags(flags: &Value) -> Value {
    let one = flags.as_str().into_iter();
    let several = flags.as_array().into_iter().flatten();
    let mut flags: Vec<&str> = one.chain(several.filter_map(Value::as_str)).collect();
    flags.retain(|flag| *flag != "dynamic");
    flags.sort_unstable();
    json!(flags)
}

fn value(any: &Value) -> Value {
    match any {
        Value::Array(items) => Value::Array(items.iter().map(value).collect()),
        Value::Object(fields) => fields_of(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => any.clone(),
    }
}

fn fields_of(fields: &Map<String, Value>) -> Value {
    // Newer versions print flags that are or-ed as such, older ones as a list.
    if let (1, Some(or)) = (fields.len(), fields.get("|")) {
        return value(or);
    }
    let mut normal: Map<String, Value> = fields
        .iter()
        .map(|(key, item)| (key.clone(), value(item)))
        .collect();
    if names_a_protocol(fields)
        && let Some(right) = normal.get_mut("right")
    {
        number(right);
    }
    if let (1, Some(Value::Array(items))) = (normal.len(), normal.get_mut("set")) {
        items.sort_by_cached_key(Value::to_string);
    }
    Value::Object(normal)
}

/// True for a match whose right-hand side may be printed by names from `/etc/protocols`, or by an
/// ICMP code's.
fn names_a_protocol(matching: &Map<String, Value>) -> bool {
    let Some(left) = matching.get("left") else {
        return false;
    };
    let protocol = *left == json!({"meta": {"key": "l4proto"}});
    let payload = left.get("payload").and_then(|payload| payload.get("field"));
    let header = payload.is_some_and(|field| field == "nexthdr" || field == "code");
    protocol || header
}

/// Names that stand for numbers in rules of ours.
const NUMBERS: [(&str, u8); 18] = [
    ("ip", 0),
    ("hopopt", 0),
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-no-nxt", 59),
    ("ipv6-opts", 60),
    ("mobility-header", 135),
    ("mobility", 135),
    ("hip", 139),
    ("shim6", 140),
    ("frag-needed", 4),
];

fn number(right: &mut Value) {
    match right {
        Value::String(name) => {
            if let Some((_, number)) = NUMBERS.iter().find(|(known, _)| known == name) {
                *right = json!(number);
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(number);
            items.sort_by_cached_key(Value::to_string);
        }
        Value::Object(fields) => fields.values_mut().for_each(number),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
