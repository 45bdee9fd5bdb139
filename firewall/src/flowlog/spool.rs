//! Log segments on disk, waiting for cloudsync.
//!
//! A stream's open segment is `NNNNNNNN.jsonl.open`; closing renames it to
//! `NNNNNNNN.jsonl`, which never changes again, so that a reader who looks only at
//! `*.jsonl` never sees half a line. Written and deleted by the log thread only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ipc::record::Stream;

use super::StreamSize;

/// The segments of every stream.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    max_bytes: u64,
    max_segments: usize,
    writers: [Writer; 4],
    closed: Vec<Segment>,
    closed_bytes: u64,
}

/// A closed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The stream it belongs to.
    pub stream: Stream,
    /// Its number; grows by one per segment of the stream.
    pub number: u64,
    /// Its size.
    pub bytes: u64,
}

/// What left the spool unshipped to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// The stream that lost lines.
    pub stream: Stream,
    /// How many lines.
    pub lines: u64,
}

#[derive(Debug)]
struct Writer {
    stream: Stream,
    next: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    number: u64,
    bytes: u64,
    opened_ms: u64,
    synced_ms: u64,
    dirty: bool,
}

impl Spool {
    /// Opens the spool below `dir`, closing what a crash left open.
    ///
    /// A last line without its newline was never acknowledged; it is cut off.
    ///
    /// # Errors
    /// When a folder cannot be made or read.
    pub fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        let mut spool = Self {
            dir: dir.to_owned(),
            max_bytes,
            max_segments: SEGMENTS_MAX,
            writers: Stream::ALL.map(|stream| Writer {
                stream,
                next: 1,
                open: None,
            }),
            closed: Vec::new(),
            closed_bytes: 0,
        };
        for stream in Stream::ALL {
            spool.recover(stream)?;
        }
        spool
            .closed
            .sort_by_key(|segment| (segment.number, segment.stream));
        Ok(spool)
    }

    /// Writes whole lines, each with its newline, to the stream's open segment.
    ///
    /// # Errors
    /// When the disk refuses; the segment is closed and what was written of `lines` counts
    /// as lost.
    pub fn append(&mut self, stream: Stream, lines: &[u8], now_ms: u64) -> io::Result<()> {
        let Some(writer) = self.writers.get_mut(index(stream)) else {
            return Ok(());
        };
        let result = writer.append(&self.dir, lines, now_ms);
        let full = writer
            .open
            .as_ref()
            .is_some_and(|open| open.bytes >= SEGMENT_BYTES);
        if full || result.is_err() {
            self.close(stream)?;
        }
        result
    }

    /// Syncs and closes what is due at `now_ms`.
    ///
    /// # Errors
    /// The first failure to sync or rename; the other streams are still looked after.
    pub fn tick(&mut self, now_ms: u64) -> io::Result<()> {
        let mut result = Ok(());
        for stream in Stream::ALL {
            let Some(open) = self
                .writers
                .get_mut(index(stream))
                .and_then(|writer| writer.open.as_mut())
            else {
                continue;
            };
            let due = if now_ms.saturating_sub(open.opened_ms) >= SEGMENT_MS {
                self.close(stream)
            } else {
                open.sync_if_due(now_ms)
            };
            result = result.and(due);
        }
        result
    }

    /// Closes every open segment, for an orderly stop.
    ///
    /// # Errors
    /// The first failure to sync or rename.
    pub fn close_all(&mut self) -> io::Result<()> {
        Stream::ALL
            .into_iter()
            .map(|stream| self.close(stream))
            .fold(Ok(()), Result::and)
    }

    /// Deletes a segment that reached the log service; one already gone is no error.
    ///
    /// # Errors
    /// When the file cannot be deleted.
    pub fn shipped(&mut self, stream: Stream, number: u64) -> io::Result<()> {
        let found = self
            .closed
            .iter()
            .position(|segment| segment.stream == stream && segment.number == number);
        let Some(index) = found else { return Ok(()) };
        let segment = self.closed.remove(index);
        self.closed_bytes = self.closed_bytes.saturating_sub(segment.bytes);
        remove(&self.path(stream, number))
    }

    /// Deletes the oldest closed segments until the spool fits its size, and its number of files, again.
    ///
    /// # Errors
    /// When a file cannot be deleted.
    pub fn evict(&mut self) -> io::Result<Vec<Evicted>> {
        let mut evicted = Vec::new();
        while self.bytes() > self.max_bytes || self.closed.len() > self.max_segments {
            if self.closed.is_empty() {
                break;
            }
            let segment = self.closed.remove(0);
            self.closed_bytes = self.closed_bytes.saturating_sub(segment.bytes);
            let path = self.path(segment.stream, segment.number);
            let lines = count_lines(&path);
            remove(&path)?;
            evicted.push(Evicted {
                stream: segment.stream,
                lines,
            });
        }
        Ok(evicted)
    }

    /// Bytes in all segments, open ones included.
    pub fn bytes(&self) -> u64 {
        let open = self
            .writers
            .iter()
            .filter_map(|writer| writer.open.as_ref());
        open.map(|open| open.bytes)
            .sum::<u64>()
            .saturating_add(self.closed_bytes)
    }

    /// How much each stream holds.
    pub fn sizes(&self) -> Vec<StreamSize> {
        let size = |writer: &Writer| {
            let closed = self
                .closed
                .iter()
                .filter(|segment| segment.stream == writer.stream);
            let open = writer.open.as_ref();
            let numbers = closed.clone().map(|segment| segment.number);
            let bytes: u64 = closed.clone().map(|segment| segment.bytes).sum();
            let segments = closed.count().saturating_add(usize::from(open.is_some()));
            StreamSize {
                stream: writer.stream,
                segments: u64::try_from(segments).unwrap_or(u64::MAX),
                bytes: bytes.saturating_add(open.map_or(0, |open| open.bytes)),
                oldest: numbers.min().or_else(|| open.map(|open| open.number)),
            }
        };
        self.writers.iter().map(size).collect()
    }

    /// The closed segments, oldest first.
    pub fn closed(&self) -> &[Segment] {
        &self.closed
    }

    fn recover(&mut self, stream: Stream) -> io::Result<()> {
        let folder = self.dir.join(stream.as_str());
        fs::create_dir_all(&folder)?;
        let mut highest = 0;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let Some(found) = segment_number(&path) else {
                continue;
            };
            highest = highest.max(found.number());
            if let Found::Open(number) = found {
                cut_partial_line(&path)?;
                fs::rename(&path, self.path(stream, number))?;
            }
            let number = found.number();
            let bytes = fs::metadata(self.path(stream, number))?.len();
            self.closed.push(Segment {
                stream,
                number,
                bytes,
            });
            self.closed_bytes = self.closed_bytes.saturating_add(bytes);
        }
        if let Some(writer) = self.writers.get_mut(index(stream)) {
            writer.next = highest.saturating_add(1).max(marked(&self.dir, stream));
        }
        Ok(())
    }

    fn close(&mut self, stream: Stream) -> io::Result<()> {
        let open = self
            .writers
            .get_mut(index(stream))
            .and_then(|writer| writer.open.take());
        let Some(open) = open else { return Ok(()) };
        let path = self.path(stream, open.number);
        open.file.sync_data()?;
        fs::rename(open_path(&path), &path)?;
        self.closed.push(Segment {
            stream,
            number: open.number,
            bytes: open.bytes,
        });
        self.closed_bytes = self.closed_bytes.saturating_add(open.bytes);
        Ok(())
    }

    fn path(&self, stream: Stream, number: u64) -> PathBuf {
        closed_path(&self.dir, stream, number)
    }
}

impl Writer {
    fn append(&mut self, dir: &Path, lines: &[u8], now_ms: u64) -> io::Result<()> {
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(Open::create(dir, self.stream, self.next, now_ms)?),
        };
        self.next = open.number.saturating_add(1);
        let length_before = open.bytes;
        if let Err(error) = open.file.write_all(lines) {
            // Half a line in a closed segment would break its reader.
            open.file.set_len(length_before)?;
            return Err(error);
        }
        let written = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        open.bytes = open.bytes.saturating_add(written);
        open.dirty = true;
        Ok(())
    }
}

impl Open {
    fn create(dir: &Path, stream: Stream, number: u64, now_ms: u64) -> io::Result<Self> {
        mark(dir, stream, number.saturating_add(1))?;
        let path = open_path(&closed_path(dir, stream, number));
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(SEGMENT_MODE)
            .open(path)?;
        Ok(Self {
            file,
            number,
            bytes: 0,
            opened_ms: now_ms,
            synced_ms: now_ms,
            dirty: false,
        })
    }

    fn sync_if_due(&mut self, now_ms: u64) -> io::Result<()> {
        if !self.dirty || now_ms.saturating_sub(self.synced_ms) < SYNC_MS {
            return Ok(());
        }
        self.synced_ms = now_ms;
        self.dirty = false;
        self.file.sync_data()
    }
}

/// Keeps the number of the next segment, before the one in front of it exists.
///
/// A number is never used twice: who ships keeps its place by it, and takes what lies before that place for shipped. With
/// everything shipped and deleted the files themselves tell a later process nothing.
fn mark(dir: &Path, stream: Stream, next: u64) -> io::Result<()> {
    let path = mark_path(dir, stream);
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(SEGMENT_MODE)
        .open(&fresh)?;
    writeln!(file, "{next}")?;
    file.sync_data()?;
    fs::rename(fresh, path)
}

/// The number an earlier process kept; 1 when there is none.
fn marked(dir: &Path, stream: Stream) -> u64 {
    let kept = fs::read_to_string(mark_path(dir, stream)).ok();
    kept.and_then(|text| text.trim().parse().ok()).unwrap_or(1)
}

fn mark_path(dir: &Path, stream: Stream) -> PathBuf {
    dir.join(format!("{}.next", stream.as_str()))
}

/// Position in [`Stream::ALL`].
pub(super) fn index(stream: Stream) -> usize {
    match stream {
        Stream::Flow => 0,
        Stream::End => 1,
        Stream::Dns => 2,
        Stream::Config => 3,
    }
}

#[derive(Clone, Copy)]
enum Found {
    Open(u64),
    Closed(u64),
}

impl Found {
    fn number(self) -> u64 {
        match self {
            Self::Open(number) | Self::Closed(number) => number,
        }
    }
}

fn segment_number(path: &Path) -> Option<Found> {
    let name = path.file_name()?.to_str()?;
    let (digits, found): (&str, fn(u64) -> Found) = match name.strip_suffix(".jsonl.open") {
        Some(digits) => (digits, Found::Open),
        None => (name.strip_suffix(".jsonl")?, Found::Closed),
    };
    digits.parse().ok().map(found)
}

fn closed_path(dir: &Path, stream: Stream, number: u64) -> PathBuf {
    dir.join(stream.as_str()).join(format!("{number:08}.jsonl"))
}

fn open_path(closed: &Path) -> PathBuf {
    closed.with_extension("jsonl.open")
}

fn cut_partial_line(path: &Path) -> io::Result<()> {
    let content = fs::read(path)?;
    let whole = content
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at.saturating_add(1));
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(u64::try_from(whole).unwrap_or(u64::MAX))?;
    file.sync_data()
}

fn count_lines(path: &Path) -> u64 {
    let newlines = |content: Vec<u8>| content.iter().filter(|&&byte| byte == b'\n').count();
    fs::read(path).map_or(0, |content| {
        u64::try_from(newlines(content)).unwrap_or(u64::MAX)
    })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A segment closes at this size, DESIGN section 4.5.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Closed segments: nearly two days of one every two seconds and stream, where nobody ships them.
const SEGMENTS_MAX: usize = 1 << 18;
/// ... or at this age.
const SEGMENT_MS: u64 = 2_000;
/// How long a written line may stay unsynced.
const SYNC_MS: u64 = 200;
/// Readable by the group that cloudsync is in.
const SEGMENT_MODE: u32 = 0o640;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn segment_closes_after_two_seconds_and_numbers_grow() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 30).unwrap();
        spool.append(Stream::Flow, b"{\"a\":1}\n", 0).unwrap();
        spool.tick(1_999).unwrap();
        assert!(spool.closed().is_empty());
        spool.tick(2_000).unwrap();
        assert_eq!(
            lines_of(&dir.path().join("flow/00000001.jsonl")),
            "{\"a\":1}\n"
        );
        spool.append(Stream::Flow, b"{}\n", 2_001).unwrap();
        assert!(dir.path().join("flow/00000002.jsonl.open").exists());
    }

    #[test]
    fn segment_closes_at_four_mebibytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 30).unwrap();
        let line = [vec![b'x'; (4 << 20) - 1], b"\n".to_vec()].concat();
        spool.append(Stream::End, &line, 0).unwrap();
        assert_eq!(spool.closed().len(), 1);
    }

    #[test]
    fn crash_leaves_whole_lines_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 30).unwrap();
        spool.append(Stream::Flow, b"{\"a\":1}\n{\"b\"", 0).unwrap();
        drop(spool);
        let mut spool = Spool::open(dir.path(), 1 << 30).unwrap();
        assert_eq!(
            lines_of(&dir.path().join("flow/00000001.jsonl")),
            "{\"a\":1}\n"
        );
        spool.append(Stream::Flow, b"{}\n", 0).unwrap();
        assert!(dir.path().join("flow/00000002.jsonl.open").exists());
    }

    #[test]
    fn shipped_segment_is_deleted_and_an_unknown_one_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 30).unwrap();
        spool.append(Stream::Flow, b"{}\n", 0).unwrap();
        spool.close_all().unwrap();
        spool.shipped(Stream::Flow, 1).unwrap();
        spool.shipped(Stream::Flow, 77).unwrap();
        assert_eq!((spool.bytes(), spool.closed().len()), (0, 0));
        assert!(!dir.path().join("flow/00000001.jsonl").exists());
    }

    #[test]
    fn numbers_go_on_after_a_restart_with_everything_shipped() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 30).unwrap();
        for time in 0..3 {
            spool
                .append(Stream::Config, b"{}\n", time * 10_000)
                .unwrap();
            spool.tick(time * 10_000 + 2_000).unwrap();
        }
        for number in 1..=3 {
            spool.shipped(Stream::Config, number).unwrap();
        }
        drop(spool);
        let mut spool = Spool::open(dir.path(), 1 << 30).unwrap();
        spool.append(Stream::Config, b"{}\n", 0).unwrap();
        spool.close_all().unwrap();
        assert_eq!(spool.closed()[0].number, 4);
        // Half a mark, or none, is no worse than the files.
        fs::write(dir.path().join("config.next"), "").unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 30).unwrap();
        spool.append(Stream::Config, b"{}\n", 0).unwrap();
        spool.close_all().unwrap();
        assert_eq!(spool.closed()[1].number, 5);
    }

    #[test]
    fn spool_of_too_many_files_loses_its_oldest_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 30).unwrap();
        spool.max_segments = 2;
        for time in 0..4 {
            spool.append(Stream::Dns, b"{}\n", time * 10_000).unwrap();
            spool.tick(time * 10_000 + 2_000).unwrap();
        }
        let evicted = spool.evict().unwrap();
        assert_eq!(evicted.iter().map(|one| one.lines).sum::<u64>(), 2);
        assert_eq!(spool.closed()[0].number, 3);
        assert!(!dir.path().join("dns/00000002.jsonl").exists());
    }

    #[test]
    fn full_spool_loses_its_oldest_closed_segment_and_counts_the_lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 10).unwrap();
        spool.append(Stream::Flow, b"{1}\n{2}\n", 0).unwrap();
        spool.tick(2_000).unwrap();
        spool.append(Stream::Flow, b"{3}\n", 2_001).unwrap();
        let evicted = spool.evict().unwrap();
        assert_eq!(
            evicted,
            [Evicted {
                stream: Stream::Flow,
                lines: 2
            }]
        );
        assert_eq!(spool.bytes(), 4);
    }
}
