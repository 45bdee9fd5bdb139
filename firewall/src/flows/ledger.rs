//! What outlives the process: the flows that have an `allowed` line and no `end` line yet.
//!
//! A file of lines, added to as flows come and go and written anew when most of it is past. It is
//! never forced to disk: it has to survive the end of the process, and the flows themselves do
//! not survive the end of the kernel. A file of another boot is ignored for that reason.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inspect::{Category, FlowRecord, HttpRecord, Outcome, SeeThruRecord};
use ipc::record::{FlowLineV1, Text};
use policy::Transport;
use serde::{Deserialize, Serialize};

use super::table::{Flow, FlowTable, Key};
use crate::flowlog::{write_object, write_socket};

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The first line: which boot of the kernel the rest belongs to.
    Boot(String),
    /// A flow was allowed.
    Flow(Box<KeptFlow>),
    /// It has ended: protocol, client, server.
    End(u8, SocketAddr, SocketAddr),
}

/// A flow as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct KeptFlow {
    protocol: u8,
    line: FlowLineV1,
    /// The other names an SSH flow was judged by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    also: Vec<String>,
    /// The policy wanted no line of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unlogged: bool,
}

/// The file.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    file: Option<File>,
    /// Lines not written yet.
    pending: Vec<u8>,
    /// Flows that have ended and whose `end` line is on its way to the spool, by how many such lines were handed over
    /// with theirs: killed meanwhile, we leave them in the file, and the next process counts them.
    ending: VecDeque<(u64, Key)>,
    /// Bytes written since the file was last written anew.
    written: usize,
    /// How many flows in the file have not ended.
    live: usize,
    /// The size of the live part when the file was last written anew.
    compacted: usize,
    failed: bool,
}

/// A file that is to take the place of the one in use.
struct Fresh {
    file: File,
    written: usize,
}

impl Fresh {
    /// Writes lines, and leaves their room.
    fn take(&mut self, lines: &mut Vec<u8>) -> io::Result<()> {
        self.written = self.written.saturating_add(lines.len());
        let done = self.file.write_all(lines);
        lines.clear();
        done
    }
}

impl Ledger {
    /// The ledger in a folder. Nothing is read or written yet.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("flows.jsonl"),
            file: None,
            pending: Vec::new(),
            ending: VecDeque::new(),
            written: 0,
            live: 0,
            compacted: 0,
            failed: false,
        }
    }

    /// Reads what the process before this one left, oldest first, and begins the file anew with
    /// it.
    pub(super) fn recover(&mut self) -> Vec<FlowRecord> {
        let kept = match File::open(&self.path) {
            Ok(file) => read(file, &boot_id()),
            Err(_) => BTreeMap::new(),
        };
        let records: Vec<FlowRecord> = kept
            .into_values()
            .filter_map(record_of)
            .take(FLOWS_MAX)
            .collect();
        let begun = self.begin(|ledger, file| {
            for record in &records {
                ledger.live = ledger.live.saturating_add(1);
                ledger.push_flow(&Key::of_record(record), record);
                ledger.spill(file)?;
            }
            Ok(())
        });
        self.note(begun);
        records
    }

    /// Adds an allowed flow.
    pub(super) fn add(&mut self, flow: &mut Flow, record: &FlowRecord) {
        let key = Key::of_record(record);
        if self.ending.iter().any(|(_, ending)| *ending == key) {
            // The end of an earlier flow of these ends comes first, or it would be taken for this one's.
            self.ending.retain(|(_, ending)| *ending != key);
            self.remove(&key);
        }
        if !flow.is_in_file() {
            if self.live >= FLOWS_MAX {
                // Without provenance such a flow ends at the first policy change after a restart.
                return;
            }
            self.live = self.live.saturating_add(1);
            flow.set_in_file(true);
        }
        self.push_flow(&key, record);
    }

    /// Notes that a flow that is in the file has ended once `handed` lines of ends are in the spool.
    pub(super) fn remove_after(&mut self, key: &Key, handed: u64) {
        self.ending.push_back((handed, *key));
        if self.ending.len() > ENDING_MAX
            && let Some((_, oldest)) = self.ending.pop_front()
        {
            self.remove(&oldest);
        }
    }

    /// Notes the ends whose line is among the first `written`.
    pub(super) fn settle(&mut self, written: u64) {
        while let Some((handed, key)) = self.ending.front().copied()
            && handed <= written
        {
            self.ending.pop_front();
            self.remove(&key);
        }
    }

    /// Whether some ends wait for their lines.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.ending.is_empty()
    }

    /// Notes that a flow that is in the file has ended.
    pub(super) fn remove(&mut self, key: &Key) {
        self.live = self.live.saturating_sub(1);
        self.push_end(key);
    }

    /// Hands to the kernel what was added since; from there it survives the process.
    pub(super) fn flush(&mut self, flows: &mut FlowTable) {
        if self.pending.is_empty() {
            return;
        }
        self.written = self.written.saturating_add(self.pending.len());
        let outgrown = self.compacted.saturating_mul(2).saturating_add(SLACK_BYTES);
        let done = match &mut self.file {
            Some(file) if self.written <= outgrown => file.write_all(&self.pending),
            // What was to be added is in the table by now.
            Some(_) | None => self.rewrite(flows),
        };
        // The room is used again, unless it is out of the ordinary.
        self.pending.clear();
        self.pending.shrink_to(ROOM_KEPT);
        if done.is_err() {
            // Half a line may be there: the next flush begins anew.
            self.file = None;
        }
        self.note(done);
    }

    /// Writes the file anew with the flows that have not ended.
    fn rewrite(&mut self, flows: &mut FlowTable) -> io::Result<()> {
        self.begin(|ledger, file| {
            for (key, flow) in flows.iter_mut() {
                let record = flow.record(&key).filter(|_| ledger.live < FLOWS_MAX);
                flow.set_in_file(record.is_some());
                if let Some(record) = record {
                    ledger.live = ledger.live.saturating_add(1);
                    ledger.push_flow(&key, &record);
                    ledger.spill(file)?;
                }
            }
            Ok(())
        })
    }

    /// Puts a file in place that holds what `write` puts in it.
    fn begin(
        &mut self,
        write: impl FnOnce(&mut Self, &mut Fresh) -> io::Result<()>,
    ) -> io::Result<()> {
        self.pending.clear();
        // Not among what is written.
        self.ending.clear();
        self.live = 0;
        let path = self.path.with_extension("jsonl.new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(MODE);
        let mut fresh = Fresh {
            file: options.open(&path)?,
            written: 0,
        };
        let mut header = serde_json::to_vec(&Line::Boot(boot_id()))?;
        header.push(b'\n');
        fresh.file.write_all(&header)?;
        write(self, &mut fresh)?;
        fresh.take(&mut self.pending)?;
        fs::rename(&path, &self.path)?;
        self.file = Some(fresh.file);
        self.written = fresh.written;
        self.compacted = fresh.written;
        Ok(())
    }

    /// Hands over what waits once it is much: the lines of all flows together may be a hundred megabytes.
    fn spill(&mut self, file: &mut Fresh) -> io::Result<()> {
        if self.pending.len() >= SPILL_BYTES {
            file.take(&mut self.pending)?;
        }
        Ok(())
    }

    /// Writes [`Line::Flow`] as `serde` would: it is written for every connection, and read after a restart only.
    fn push_flow(&mut self, key: &Key, record: &FlowRecord) {
        let out = &mut self.pending;
        out.extend_from_slice(b"{\"flow\":{\"protocol\":");
        out.extend_from_slice(itoa::Buffer::new().format(key.protocol).as_bytes());
        out.extend_from_slice(b",\"line\":");
        write_object(out, record, "");
        out.push(b'}');
        if let Some(also) = &record.also {
            out.extend_from_slice(b",\"also\":");
            let names: Vec<&str> = also.iter().map(|name| &**name).collect();
            if let Err(error) = serde_json::to_writer(&mut *out, &names) {
                tracing::error!(%error, "names that are no JSON");
            }
        }
        if !record.logged {
            out.extend_from_slice(b",\"unlogged\":true");
        }
        out.extend_from_slice(b"}}\n");
    }

    /// Writes [`Line::End`].
    fn push_end(&mut self, key: &Key) {
        let out = &mut self.pending;
        out.extend_from_slice(b"{\"end\":[");
        out.extend_from_slice(itoa::Buffer::new().format(key.protocol).as_bytes());
        out.push(b',');
        write_socket(out, key.client);
        out.push(b',');
        write_socket(out, key.server);
        out.extend_from_slice(b"]}\n");
    }

    /// Says the first of a row of failures.
    fn note(&mut self, done: io::Result<()>) {
        match done {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                let path = self.path.display();
                tracing::error!(%error, %path, "keeping the live flows for the next start");
            }
            Err(_) => {}
        }
    }
}

/// The flows of a file that have not ended, in the order of their time. Whatever is damaged is
/// passed over: the last line of a process that was killed may be half a one.
fn read(file: File, boot: &str) -> BTreeMap<(u64, usize), KeptFlow> {
    let mut lines = BufReader::new(file.take(BYTES_MAX));
    let mut flows: HashMap<(u8, SocketAddr, SocketAddr), (usize, KeptFlow)> = HashMap::new();
    let mut text = Vec::new();
    let mut is_ours = false;
    for number in 0_usize.. {
        text.clear();
        match lines.read_until(b'\n', &mut text) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        match serde_json::from_slice::<Line>(&text) {
            Ok(Line::Boot(of)) => is_ours = of == boot,
            Ok(Line::Flow(flow)) if is_ours => {
                let line = &flow.line;
                let client = SocketAddr::new(line.src, line.spt);
                let server = SocketAddr::new(line.dst, line.dpt);
                flows.insert((flow.protocol, client, server), (number, *flow));
            }
            Ok(Line::End(protocol, client, server)) => {
                flows.remove(&(protocol, client, server));
            }
            Ok(Line::Flow(_)) | Err(_) => {}
        }
    }
    flows
        .into_values()
        .map(|(number, flow)| ((flow.line.time.unix_ms(), number), flow))
        .collect()
}

/// The record again. `None` when a later build wrote a word this one does not know.
fn record_of(kept: KeptFlow) -> Option<FlowRecord> {
    let line = kept.line;
    let arc = |text: &Text| Arc::<str>::from(text.as_str());
    let is_address = |text: &Text| text.as_str().parse() == Ok(line.dst);
    let see_thru = line.see_thru_gid.as_ref().map(|gid| SeeThruRecord {
        exerted: line.see_thru_exerted.unwrap_or(false),
        gid: arc(gid),
        days_remaining: line.see_thru_days_remaining.unwrap_or(0),
    });
    let boxed = |text: &Option<Text>| {
        text.as_ref()
            .map_or_else(Box::default, |t| t.as_str().into())
    };
    let http = line.http_method.as_ref().map(|_| HttpRecord {
        method: boxed(&line.http_method),
        path: boxed(&line.http_path),
        user_agent: boxed(&line.http_user_agent),
        code: line.http_code,
    });
    let names: Vec<Arc<str>> = kept.also.iter().map(|name| Arc::from(&**name)).collect();
    Some(FlowRecord {
        unix_ms: line.time.unix_ms(),
        category: Category::Client,
        outcome: Outcome::Allowed,
        dhost: Some(&line.dhost).filter(|text| !is_address(text)).map(arc),
        src: SocketAddr::new(line.src, line.spt),
        dst: SocketAddr::new(line.dst, line.dpt),
        transport: match kept.protocol {
            super::table::TCP => Transport::Tcp,
            super::table::UDP => Transport::Udp,
            super::table::ICMP | super::table::ICMPV6 => Transport::Icmp,
            other => Transport::Other(other),
        },
        proto: line.proto.as_str().parse().ok()?,
        proto_v: version(line.proto_v.as_ref()),
        instance: line.instance.as_ref().map(arc),
        gid: line.gid.as_ref().map(arc),
        rule: line.rule.as_ref().map(arc),
        generation: line.generation,
        policy_id: arc(&line.policy_id),
        pqc: line.pqc.unwrap_or(false),
        rescued: line.rescued.unwrap_or(false),
        see_thru,
        would_reason: match &line.would_reason {
            Some(reason) => Some(reason.as_str().parse().ok()?),
            None => None,
        },
        http,
        also: (!names.is_empty()).then(|| names.into()),
        suppressed: 0,
        logged: !kept.unlogged,
    })
}

/// The engine's own word for a version.
fn version(text: Option<&Text>) -> &'static str {
    let known = ["1.3", "1.2", "1.1", "1.0", "2.0", "ssl2", "ssl3", "unknown"];
    let text = text.map_or("", Text::as_str);
    known.into_iter().find(|word| *word == text).unwrap_or("")
}

/// Which boot of the kernel this is.
fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.unwrap_or_default().trim().to_owned()
}

/// Flows kept; about 500 bytes each.
const FLOWS_MAX: usize = 1 << 18;
/// Bytes of lines gathered for one write of a new file.
const SPILL_BYTES: usize = 1 << 16;
/// Bytes of room kept for the next lines.
const ROOM_KEPT: usize = 1 << 18;
/// Ends that wait for their lines: with a disk that hangs, more are noted as they come.
const ENDING_MAX: usize = 4_096;
/// Bytes past twice the live part after which the file is written anew.
const SLACK_BYTES: usize = 16 << 20;
/// Bytes read at the start: more than the file can have.
const BYTES_MAX: u64 = 2 << 30;
const MODE: u32 = 0o640;

#[cfg(test)]
mod tests;
