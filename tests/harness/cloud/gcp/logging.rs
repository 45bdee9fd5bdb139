//! Cloud Logging's `entries:write` (<https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/write>) and its
//! limits (<https://cloud.google.com/logging/quotas>).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipc::record::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::super::http::Message;
use super::answer::{invalid, ok, unknown_field};
use super::model::World;

/// Bytes of one request.
const REQUEST_BYTES_MAX: usize = 10 << 20;

/// Bytes of one entry.
const ENTRY_BYTES_MAX: usize = 256 << 10;

const DAY: Duration = Duration::from_secs(86_400);

const REQUEST_FIELDS: [&str; 6] = [
    "dryRun",
    "entries",
    "labels",
    "logName",
    "partialSuccess",
    "resource",
];

const ENTRY_FIELDS: [&str; 13] = [
    "httpRequest",
    "insertId",
    "jsonPayload",
    "labels",
    "logName",
    "operation",
    "protoPayload",
    "resource",
    "severity",
    "sourceLocation",
    "textPayload",
    "timestamp",
    "trace",
];

/// The numbers of severities, as `enum-encoding=int` has them.
const SEVERITIES: [(u64, &str); 9] = [
    (0, "DEFAULT"),
    (100, "DEBUG"),
    (200, "INFO"),
    (300, "NOTICE"),
    (400, "WARNING"),
    (500, "ERROR"),
    (600, "CRITICAL"),
    (700, "ALERT"),
    (800, "EMERGENCY"),
];

/// What was written, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Entries, each once.
    pub entries: usize,
    /// Requests.
    pub requests: usize,
    /// Bytes of the largest request.
    pub most_bytes: usize,
}

/// As much of a request as it takes to count what is in it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "fields that may be there, and nobody looks at here"
)]
struct Rough<'b> {
    #[serde(borrow)]
    entries: Vec<RoughEntry<'b>>,
    #[serde(default)]
    labels: IgnoredAny,
    log_name: &'b str,
    partial_success: bool,
    resource: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "as above")]
struct RoughEntry<'b> {
    insert_id: &'b str,
    timestamp: &'b str,
    #[serde(default)]
    json_payload: IgnoredAny,
    #[serde(default)]
    severity: IgnoredAny,
}

/// What tells each entry of a request from every other. As many as a busy appliance sends are more than a test can keep.
pub(super) fn keys(body: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    let rough: Rough<'_> = serde_json::from_slice(body)?;
    let key = |entry: &RoughEntry<'_>| {
        format!("{} {} {}", rough.log_name, entry.timestamp, entry.insert_id)
    };
    Ok(rough.entries.iter().map(key).collect())
}

/// Writes what may be written.
pub(super) fn write(world: &mut World, body: &[u8]) -> Message {
    if body.len() > REQUEST_BYTES_MAX {
        return invalid("Request payload size exceeds the limit: 10485760 bytes.");
    }
    world.counted.requests += 1;
    world.counted.most_bytes = world.counted.most_bytes.max(body.len());
    if world.is_counting {
        return ok(&json!({}));
    }
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return invalid("Invalid JSON payload received.");
    };
    if let Some(refusal) = unknown_field(&request, &REQUEST_FIELDS) {
        return refusal;
    }
    let entries = request["entries"].as_array().cloned().unwrap_or_default();
    if entries.is_empty() {
        return invalid("entries: at least one entry is required");
    }
    let mut errors = Map::new();
    let mut good = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        match whole(&request, entry) {
            Ok(entry) => good.push(entry),
            Err(message) => {
                errors.insert(index.to_string(), json!({"code": 3, "message": message}));
            }
        }
    }
    let is_partial = request["partialSuccess"].as_bool().unwrap_or_default();
    if request["dryRun"] == true && errors.is_empty() {
        return ok(&json!({}));
    }
    if errors.is_empty() || (is_partial && !good.is_empty()) {
        for entry in good {
            keep(world, entry);
        }
    } else {
        errors.retain(|_, _| is_partial);
        let why = errors
            .values()
            .next()
            .map(|error| error["message"].to_string());
        return invalid(&why.unwrap_or_else(|| "an entry is invalid".to_owned()));
    }
    if errors.is_empty() {
        return ok(&json!({}));
    }
    let details = json!([{
        "@type": "type.googleapis.com/google.logging.v2.WriteLogEntriesPartialErrors",
        "logEntryErrors": errors,
    }]);
    let body = json!({"error": {
        "code": 400, "status": "INVALID_ARGUMENT", "message": "Some entries were not written.", "details": details,
    }});
    Message::answer(400, "application/json", body.to_string())
}

/// One entry with what it has from its request, or why it is refused.
fn whole(request: &Value, entry: &Value) -> Result<Value, String> {
    if entry.to_string().len() > ENTRY_BYTES_MAX {
        return Err("Log entry with size exceeds maximum size of 256.0K".to_owned());
    }
    if let Some(field) = entry.as_object().and_then(|entry| {
        entry
            .keys()
            .find(|key| !ENTRY_FIELDS.contains(&key.as_str()))
    }) {
        return Err(format!("Unknown name \"{field}\": Cannot find field."));
    }
    let mut entry = entry.clone();
    for field in ["logName", "resource"] {
        if entry[field].is_null() || entry[field] == "" {
            entry[field] = request[field].clone();
        }
    }
    log_name(entry["logName"].as_str().unwrap_or_default())?;
    resource(&entry["resource"])?;
    severity(&mut entry)?;
    if entry["jsonPayload"].is_object() == entry["textPayload"].is_string() {
        return Err("exactly one payload".to_owned());
    }
    if entry["timestamp"].is_null() {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or_default();
        entry["timestamp"] = Timestamp::from_unix_ms(now).to_string().into();
    }
    let time = Timestamp::parse(entry["timestamp"].as_str().unwrap_or_default())
        .map_err(|_| "Invalid timestamp")?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    if u128::from(time.unix_ms()) > (now + DAY).as_millis() {
        return Err("Log entry timestamp is too far in the future".to_owned());
    }
    Ok(entry)
}

/// `projects/P/logs/ID`, of the characters a log may have.
fn log_name(name: &str) -> Result<(), String> {
    let parts: Vec<&str> = name.split('/').collect();
    let is_id = |id: &str| {
        !id.is_empty()
            && id.len() < 512
            && id
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "/_-.%".contains(c))
    };
    match parts.as_slice() {
        ["projects", project, "logs", id] if !project.is_empty() && is_id(id) => Ok(()),
        _ => Err(format!("Invalid log name {name:?}")),
    }
}

/// `gce_instance` and exactly its labels (<https://cloud.google.com/monitoring/api/resources#tag_gce_instance>).
fn resource(resource: &Value) -> Result<(), String> {
    let labels: Vec<&String> = resource["labels"]
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .collect();
    if resource["type"] != "gce_instance" || labels != ["instance_id", "project_id", "zone"] {
        return Err(format!("Invalid monitored resource {resource}"));
    }
    Ok(())
}

fn severity(entry: &mut Value) -> Result<(), String> {
    let known = SEVERITIES.iter().find(|(number, name)| {
        let given = &entry["severity"];
        (given.is_null() && *number == 0) || given.as_u64() == Some(*number) || given == name
    });
    let (_, name) = known.ok_or("Invalid severity")?;
    entry["severity"] = (*name).into();
    Ok(())
}

/// Keeps an entry, once: one with the same log, time and insert id is the same entry. One older than the bucket keeps is
/// taken note of and not stored.
fn keep(world: &mut World, entry: Value) {
    let time = Timestamp::parse(entry["timestamp"].as_str().unwrap_or_default());
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let oldest = now.saturating_sub(DAY * 30).as_millis();
    if time.is_ok_and(|time| u128::from(time.unix_ms()) < oldest) {
        return;
    }
    let id = entry["insertId"].as_str().unwrap_or_default();
    let key = format!("{} {} {id}", entry["logName"], entry["timestamp"]);
    if id.is_empty() || world.written.insert(key) {
        world.entries.push(entry);
    }
}
