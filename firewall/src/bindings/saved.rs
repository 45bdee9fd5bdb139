//! Bindings over a restart: a file that is written now and then, and read as a stranger's.
//!
//! Without it the first connections after a restart are refused whose addresses only history
//! knows: those of clients that cache for longer than a time to live, and of names that rotate.
//! One JSON object a line: a header with a version and the time of writing, then one line for each
//! name. Times are calendar time. Nothing in the file makes an address count longer than it would
//! have without the restart, nor opens anything the policy and the scope of now do not.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use inspect::Time;
use policy::Name;
use serde::{Deserialize, Serialize};

use super::writer::{Restored, TTL_MAX_S};
use super::{ADDRESSES_PER_NAME_MAX, BindingStore, Source};

/// What was bound before a restart, times on this start's monotonic clock.
#[derive(Debug, Default)]
pub struct Saved {
    /// By name.
    pub names: HashMap<Name, SavedName>,
}

/// What was bound to one name.
#[derive(Debug, Default)]
pub struct SavedName {
    /// When a flow last used it; 0 for never.
    pub(super) used_ms: u64,
    /// Who brought it up, when only a pattern covers it.
    pub client: Option<IpAddr>,
    pub(super) addresses: Vec<Restored>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    postern_bindings: u32,
    written_unix_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameLine {
    name: String,
    #[serde(default)]
    used_unix_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    addresses: Vec<AddressEntry>,
}

/// Address, fresh until, learnt at, sightings, judged, source, aliases, resolver.
#[derive(Debug, Serialize, Deserialize)]
struct AddressEntry(
    IpAddr,
    u64,
    u64,
    u32,
    bool,
    Source,
    Option<String>,
    #[serde(default)] Option<String>,
);

/// Writes every binding beside `path` and puts it in place, on disk before it counts.
///
/// # Errors
/// When the file cannot be written; the one before stays.
pub fn save(path: &Path, store: &BindingStore, now: Time) -> io::Result<()> {
    let calendar = |mono_ms: u64| {
        if mono_ms >= now.mono_ms {
            now.unix_ms
                .saturating_add(mono_ms.saturating_sub(now.mono_ms))
        } else {
            now.unix_ms
                .saturating_sub(now.mono_ms.saturating_sub(mono_ms))
        }
    };
    let mut lines: HashMap<Name, NameLine> = HashMap::new();
    let known = store.known.pin();
    for ((name, addr), sighting) in &store.sightings.pin() {
        let line = lines.entry(name.clone()).or_insert_with(|| {
            let state = known.get(name);
            let used_ms = state.map_or(0, |state| state.used_ms.load(Ordering::Relaxed));
            NameLine {
                name: name.to_string(),
                used_unix_ms: if used_ms == 0 { 0 } else { calendar(used_ms) },
                client: state.and_then(|state| state.client.get().copied()),
                addresses: Vec::new(),
            }
        });
        line.addresses.push(AddressEntry(
            *addr,
            calendar(sighting.fresh_until_ms.load(Ordering::Relaxed)),
            calendar(sighting.learnt_ms),
            sighting.count.load(Ordering::Relaxed),
            sighting.judged.load(Ordering::Relaxed),
            sighting.source,
            sighting.chain.as_deref().map(str::to_owned),
            sighting.resolver.as_deref().map(str::to_owned),
        ));
    }
    drop(known);
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&fresh)?;
    let mut out = BufWriter::new(file);
    let header = Header {
        postern_bindings: VERSION,
        written_unix_ms: now.unix_ms,
    };
    let mut bytes = put(&mut out, &header)?;
    for line in lines.values() {
        // A file that could not be read back is of no use: what is over is learnt afresh.
        if bytes > FILE_BYTES_MAX.saturating_sub(LINE_BYTES_MAX) {
            break;
        }
        bytes = bytes.saturating_add(put(&mut out, line)?);
    }
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_data()?;
    fs::rename(&fresh, path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(folder)?.sync_all()
}

fn put(out: &mut impl Write, line: &impl Serialize) -> io::Result<u64> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)?;
    Ok(u64::try_from(text.len()).unwrap_or(u64::MAX))
}

/// Reads what [`save`] wrote. A line that makes no sense is passed over; a file of another
/// version, from the future or larger than any we write is an error as a whole.
///
/// # Errors
/// When there is no such file to be read, or it is none of ours.
pub fn load(path: &Path, now: Time) -> io::Result<Saved> {
    let file = File::open(path)?;
    if file.metadata()?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than any we write"));
    }
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let header: Header = match next_line(&mut reader, &mut line)? {
        true => serde_json::from_slice(&line).map_err(io::Error::other)?,
        false => return Err(io::Error::other("it is empty")),
    };
    if header.postern_bindings != VERSION {
        let found = header.postern_bindings;
        return Err(io::Error::other(format!("it is of version {found}")));
    }
    if header.written_unix_ms > now.unix_ms.saturating_add(CLOCK_SLACK_MS) {
        return Err(io::Error::other("it was written later than now"));
    }
    let mut saved = Saved::default();
    while next_line(&mut reader, &mut line)? && saved.names.len() < policy::NAMES_MAX {
        let Ok(line) = serde_json::from_slice::<NameLine>(&line) else {
            continue;
        };
        if let Some((name, kept)) = restored(line, header.written_unix_ms, now) {
            saved.names.insert(name, kept);
        }
    }
    Ok(saved)
}

/// Reads one line without its end; false at the end of the file. A line longer than any we write
/// comes out cut, so that it makes no sense.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = reader
        .by_ref()
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(read > 0)
}

/// One name, its times checked against the time of writing.
fn restored(line: NameLine, written_ms: u64, now: Time) -> Option<(Name, SavedName)> {
    let name = Name::parse(line.name.as_bytes()).ok()?;
    let fresh_max_ms = written_ms.saturating_add(u64::from(TTL_MAX_S).saturating_mul(1_000));
    // A time before our monotonic clock began is before every history window as well.
    let monotonic = |unix_ms: u64| {
        if unix_ms >= now.unix_ms {
            now.mono_ms
                .saturating_add(unix_ms.saturating_sub(now.unix_ms))
        } else {
            now.mono_ms
                .saturating_sub(now.unix_ms.saturating_sub(unix_ms))
        }
    };
    let addresses = line
        .addresses
        .into_iter()
        .take(ADDRESSES_PER_NAME_MAX)
        .map(
            |AddressEntry(addr, fresh, learnt, count, judged, source, chain, resolver)| Restored {
                addr,
                fresh_until_ms: monotonic(fresh.min(fresh_max_ms)),
                learnt_ms: monotonic(learnt.min(written_ms)),
                count,
                judged,
                source,
                chain: chain
                    .filter(|chain| chain.len() <= CHAIN_BYTES_MAX && chain.is_ascii())
                    .map(Arc::from),
                resolver: resolver
                    .and_then(|resolver| resolver.parse::<SocketAddr>().ok())
                    .map(|resolver| resolver.to_string().into()),
            },
        )
        .collect();
    let used_ms = match line.used_unix_ms {
        0 => 0,
        used => monotonic(used.min(written_ms)),
    };
    let kept = SavedName {
        used_ms,
        client: line.client,
        addresses,
    };
    Some((name, kept))
}

const VERSION: u32 = 1;
/// A file past this is none of ours.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// 8,192 IPv6 addresses with every field at its longest, and some aliases.
const LINE_BYTES_MAX: u64 = 8 << 20;
const CHAIN_BYTES_MAX: usize = 4_096;
/// How far the calendar may have been set back since the file was written.
const CLOCK_SLACK_MS: u64 = 5_000;

#[cfg(test)]
mod tests;
