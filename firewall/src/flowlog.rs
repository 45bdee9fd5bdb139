//! Both logs: from packet threads and policy changes to lines on disk.
//!
//! Packet threads hand records over a bounded channel and never wait: what does not fit is
//! counted. One thread turns records into lines, writes the spool and, if asked to, copies
//! them to standard output. A full or broken disk loses lines, counted, and nothing else.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use inspect::FlowRecord;
use ipc::record::{
    ConfigCat, ConfigDetailV1, ConfigLineV1, DnsLineV1, Stream, Text, Timestamp, append_line,
};

use serde::Serialize;

use crate::bounded::{self, Receiver, Sender};
use crate::clock::unix_ms;

mod line;
mod spool;

pub use line::{flow_line, write_object, write_socket};
pub use spool::{Evicted, Segment, Spool};

/// Where records go; one per packet thread, cheap to clone.
#[derive(Clone, Debug)]
pub struct FlowLog {
    sender: Sender<Entry>,
    counts: Arc<LogCounts>,
}

/// What became of lines, ever since the start.
#[derive(Debug, Default)]
pub struct LogCounts {
    /// Lines that found the channel full, by stream.
    overrun: [AtomicU64; 4],
    /// Lines that were never made because what they are about was not seen, by stream.
    unseen: [AtomicU64; 4],
    /// Lines written, by stream.
    written: [AtomicU64; 4],
    /// Lines that left the spool unshipped or could not be written, by stream.
    spool_full: [AtomicU64; 4],
    /// Refusals not logged because their client made too many.
    suppressed: AtomicU64,
}

/// Something for the log thread.
#[derive(Debug)]
enum Entry {
    Flow(Arc<FlowRecord>),
    End(Box<EndRecord>),
    Dns(Box<DnsLineV1>),
    Config(Box<ConfigLineV1>),
    Shipped(Stream, u64),
    Sizes(SyncSender<Vec<StreamSize>>),
    Stop,
}

/// The size of one stream's part of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSize {
    /// The stream.
    pub stream: Stream,
    /// Its segments, the open one included.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest segment's number.
    pub oldest: Option<u64>,
}

/// An allowed flow that has ended, with what it carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndRecord {
    /// The flow's own `client` record.
    pub flow: Arc<FlowRecord>,
    /// When it ended, milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// Bytes from the client, IP headers included.
    pub bytes_out: u64,
    /// Bytes to the client.
    pub bytes_in: u64,
    /// Packets from the client.
    pub packets_out: u64,
    /// Packets to the client.
    pub packets_in: u64,
    /// From the first packet to the last.
    pub duration_ms: u64,
}

/// The log thread, to be stopped in order.
#[derive(Debug)]
pub struct LogThread {
    sender: Sender<Entry>,
    thread: JoinHandle<()>,
}

/// How the log thread writes.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// This appliance's name in every line.
    pub appliance: String,
    /// Entries that may wait for the log thread.
    pub capacity: usize,
    /// Whether lines are copied to standard output.
    pub to_stdout: bool,
}

/// Opens the spool at `dir` and starts the thread that writes it.
///
/// # Errors
/// When the spool cannot be opened or no thread can be started.
pub fn start(
    dir: &Path,
    max_bytes: u64,
    settings: LogSettings,
) -> io::Result<(FlowLog, LogThread)> {
    let spool = Spool::open(dir, max_bytes)?;
    let (sender, receiver) = bounded::channel(settings.capacity);
    let counts = Arc::new(LogCounts::default());
    let writer = Writer {
        spool,
        counts: Arc::clone(&counts),
        appliance: Text::from(&Arc::<str>::from(settings.appliance)),
        stdout: settings.to_stdout.then(io::stdout),
        reported: [0; 4],
        disk_fault: false,
    };
    let thread = std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writer.run(&receiver))?;
    Ok((
        FlowLog {
            sender: sender.clone(),
            counts,
        },
        LogThread { sender, thread },
    ))
}

impl FlowLog {
    /// Hands over a flow record; never waits. A full channel loses it, counted.
    pub fn flow(&self, record: Arc<FlowRecord>) {
        if record.suppressed > 0 {
            self.counts
                .suppressed
                .fetch_add(record.suppressed, Ordering::Relaxed);
        }
        self.offer(Stream::Flow, Entry::Flow(record));
    }

    /// Hands over the end of a flow; never waits.
    pub fn end(&self, record: Box<EndRecord>) {
        self.offer(Stream::End, Entry::End(record));
    }

    /// Hands over a line about a question to the DNS front; never waits.
    pub fn dns(&self, line: Box<DnsLineV1>) {
        self.offer(Stream::Dns, Entry::Dns(line));
    }

    /// Hands over a config line; waits a moment for room in the channel, for a first policy may have more lines than
    /// fit. Not for packet threads.
    pub fn config(&self, line: Box<ConfigLineV1>) {
        let (mut entry, began) = (Entry::Config(line), Instant::now());
        loop {
            match self.sender.try_send(entry) {
                Ok(()) => return,
                Err(TrySendError::Full(back)) if began.elapsed() < CONFIG_WAIT => entry = back,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                    return add(&self.counts.overrun, Stream::Config, 1);
                }
            }
            std::thread::sleep(CONFIG_PAUSE);
        }
    }

    /// Has a shipped segment deleted, whether or not there is room in the channel: they are few.
    pub fn shipped(&self, stream: Stream, segment: u64) {
        // The log thread outlives every sender but at shutdown, when the next start finds
        // the segment again and cloudsync reports it again.
        self.sender.send_anyway(Entry::Shipped(stream, segment));
    }

    /// How large the spool is; empty when the log thread does not answer within a second.
    pub fn sizes(&self) -> Vec<StreamSize> {
        let (reply, answer) = sync_channel(1);
        if self.sender.try_send(Entry::Sizes(reply)).is_err() {
            return Vec::new();
        }
        answer
            .recv_timeout(Duration::from_secs(1))
            .unwrap_or_default()
    }

    /// Counts lines that cannot be made: what they were to say was not seen. They are said with
    /// the losses.
    pub fn note_unseen(&self, stream: Stream, lines: u64) {
        add(&self.counts.unseen, stream, lines);
    }

    /// What became of lines so far.
    pub fn counts(&self) -> &LogCounts {
        &self.counts
    }

    fn offer(&self, stream: Stream, entry: Entry) {
        match self.sender.try_send(entry) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                add(&self.counts.overrun, stream, 1);
            }
        }
    }
}

impl LogThread {
    /// Writes what is waiting, closes every segment and ends the thread.
    pub fn stop(self) {
        // A thread that is gone has nothing left to write.
        self.sender.send_anyway(Entry::Stop);
        drop(self.thread.join());
    }
}

impl LogCounts {
    /// Lines of a stream that found the channel full.
    pub fn overrun(&self, stream: Stream) -> u64 {
        read(&self.overrun, stream)
    }

    /// Lines of a stream written to the spool.
    pub fn written(&self, stream: Stream) -> u64 {
        read(&self.written, stream)
    }

    /// Lines of a stream that left the spool unshipped or that the disk refused.
    pub fn spool_full(&self, stream: Stream) -> u64 {
        read(&self.spool_full, stream)
    }

    /// Refusals that were counted instead of logged.
    pub fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }

    /// Lines of a stream lost for whatever reason.
    pub fn lost(&self, stream: Stream) -> u64 {
        self.overrun(stream)
            .saturating_add(self.spool_full(stream))
            .saturating_add(read(&self.unseen, stream))
    }
}

struct Writer {
    spool: Spool,
    counts: Arc<LogCounts>,
    appliance: Text,
    stdout: Option<io::Stdout>,
    /// Losses already said in a line of their own, by stream.
    reported: [u64; 4],
    disk_fault: bool,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Entry>) {
        let mut batch = Batch::default();
        loop {
            let first = match receiver.recv_timeout(TICK) {
                Ok(entry) => Some(entry),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if first.is_some() {
                // Not asleep in the channel meanwhile: packet threads hand over without a system call.
                std::thread::sleep(GATHER);
            }
            batch.clear();
            let mut stop = false;
            let waiting = receiver.try_iter().take(BATCH_MAX);
            for entry in first.into_iter().chain(waiting) {
                stop |= self.take(entry, &mut batch);
            }
            self.write(&batch);
            self.report_losses();
            if stop {
                break;
            }
        }
        let closed = self.spool.close_all();
        self.note_disk(closed);
    }

    /// Turns an entry into a line of the batch; true for the order to stop.
    fn take(&mut self, entry: Entry, batch: &mut Batch) -> bool {
        match entry {
            Entry::Flow(record) => batch.push(Stream::Flow, |lines| {
                line::write_flow(lines, &record, self.appliance.as_str());
            }),
            Entry::End(record) => batch.push(Stream::End, |lines| {
                line::write_end(lines, &record, self.appliance.as_str());
            }),
            Entry::Dns(line) => batch.push_line(Stream::Dns, &*line),
            Entry::Config(line) => batch.push_line(Stream::Config, &*line),
            Entry::Shipped(stream, segment) => {
                let deleted = self.spool.shipped(stream, segment);
                self.note_disk(deleted);
            }
            Entry::Sizes(reply) => {
                // Whoever asked may have given up.
                drop(reply.try_send(self.spool.sizes()));
            }
            Entry::Stop => return true,
        }
        false
    }

    fn write(&mut self, batch: &Batch) {
        let now_ms = unix_ms();
        for stream in Stream::ALL {
            let Some((lines, count)) = batch.streams.get(spool::index(stream)) else {
                continue;
            };
            if lines.is_empty() {
                continue;
            }
            let written = self.spool.append(stream, lines, now_ms);
            if written.is_ok() {
                add(&self.counts.written, stream, *count);
            } else {
                add(&self.counts.spool_full, stream, *count);
            }
            self.note_disk(written);
            if let Some(stdout) = &mut self.stdout {
                // A reader that went away does not stop the spool.
                drop(stdout.write_all(lines).and_then(|()| stdout.flush()));
            }
        }
        let ticked = self.spool.tick(now_ms);
        self.note_disk(ticked);
        match self.spool.evict() {
            Ok(evicted) => {
                for lost in evicted {
                    add(&self.counts.spool_full, lost.stream, lost.lines);
                }
            }
            Err(error) => self.note_disk(Err(error)),
        }
    }

    /// Says new losses in a config line of their own, once per tick at most.
    fn report_losses(&mut self) {
        for stream in Stream::ALL {
            let total = self.counts.lost(stream);
            let Some(reported) = self.reported.get_mut(spool::index(stream)) else {
                continue;
            };
            let new = total.saturating_sub(*reported);
            if new == 0 {
                continue;
            }
            *reported = total;
            let message = format!("{new} lines of the {stream} log were lost");
            let line = ConfigLineV1 {
                time: Timestamp::from_unix_ms(unix_ms()),
                cat: ConfigCat::Status,
                outcome: Text::from("lost"),
                detail: ConfigDetailV1 {
                    message: Some(Text::from(message)),
                    losses: Some(new),
                    stream: Some(stream),
                    ..ConfigDetailV1::default()
                },
                generation: 0,
                policy_id: Text::from(""),
                appliance: self.appliance.clone(),
            };
            let mut batch = Batch::default();
            batch.push_line(Stream::Config, &line);
            self.write(&batch);
        }
    }

    /// Says the first of a row of disk failures; the rest are counted as lost lines.
    fn note_disk(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.disk_fault = false,
            Err(error) if !self.disk_fault => {
                self.disk_fault = true;
                tracing::error!(%error, "writing the spool");
            }
            Err(_) => {}
        }
    }
}

/// Lines of one turn of the log thread, by stream, and their number.
#[derive(Default)]
struct Batch {
    streams: [(Vec<u8>, u64); 4],
}

impl Batch {
    /// Empties it and keeps its room, unless that is out of the ordinary.
    fn clear(&mut self) {
        for (lines, count) in &mut self.streams {
            lines.clear();
            lines.shrink_to(ROOM_KEPT);
            *count = 0;
        }
    }

    /// Adds the line that `write` appends.
    fn push(&mut self, stream: Stream, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some((lines, count)) = self.streams.get_mut(spool::index(stream)) {
            write(lines);
            *count = count.saturating_add(1);
        }
    }

    fn push_line<T: Serialize>(&mut self, stream: Stream, line: &T) {
        self.push(stream, |lines| {
            if let Err(error) = append_line(lines, line) {
                tracing::error!(%error, "a record that is no JSON");
            }
        });
    }
}

fn add(counters: &[AtomicU64; 4], stream: Stream, lines: u64) {
    if let Some(counter) = counters.get(spool::index(stream)) {
        counter.fetch_add(lines, Ordering::Relaxed);
    }
}

fn read(counters: &[AtomicU64; 4], stream: Stream) -> u64 {
    counters
        .get(spool::index(stream))
        .map_or(0, |counter| counter.load(Ordering::Relaxed))
}

/// Entries that may wait for the log thread: two seconds of 30,000 connections a second.
pub const CAPACITY: usize = 1 << 16;
/// How long a config line waits for the log thread, and between two looks: a disk that hangs must not stop the control
/// thread for long.
const CONFIG_WAIT: Duration = Duration::from_secs(2);
const CONFIG_PAUSE: Duration = Duration::from_millis(1);
/// How often the thread looks at segments that are due.
const TICK: Duration = Duration::from_millis(50);
/// How long a first entry waits for company.
const GATHER: Duration = Duration::from_millis(4);
/// Bytes of room that are kept from one batch to the next, for each stream.
const ROOM_KEPT: usize = 1 << 18;
/// Entries turned into lines before they are written.
const BATCH_MAX: usize = 4_096;

#[cfg(test)]
mod tests;
