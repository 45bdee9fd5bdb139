//! The spool as a reader sees it: closed segments, which never change again.
//!
//! The daemon writes `NNNNNNNN.jsonl.open` and renames it when it is closed, at the latest two
//! seconds later. Looking at nothing but `*.jsonl` is how no half line is ever read, and no line
//! that is not on disk for good.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use ipc::record::{Stream, peek_time};

use super::batch::Builder;
use super::cursor::Position;
use crate::cloud::{BatchLimits, LogEvent};

/// Numbers of the closed segments of one stream, ascending.
pub(super) fn segments(spool: &Path, stream: Stream) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(spool.join(stream.as_str())) {
        Ok(entries) => entries,
        // The daemon makes the folder with the first line in it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn path(spool: &Path, stream: Stream, segment: u64) -> PathBuf {
    spool
        .join(stream.as_str())
        .join(format!("{segment:08}.jsonl"))
}

/// What goes out at once.
#[derive(Debug)]
pub(super) struct Batch {
    /// Sorted by time.
    pub(super) events: Vec<LogEvent>,
    /// Behind the last of them.
    pub(super) end: Position,
    /// Whether it ended because it was full, not because the spool was at its end.
    pub(super) is_full: bool,
}

impl Batch {
    /// Reads from `from` on, as much as `limits` allow.
    ///
    /// # Errors
    ///
    /// When a segment cannot be read. One that is gone was lost to a full spool, which the
    /// daemon has counted; reading goes on behind it.
    pub(super) fn read(
        spool: &Path,
        stream: Stream,
        from: Position,
        limits: BatchLimits,
    ) -> io::Result<Self> {
        let mut builder = Builder::new(limits);
        let mut end = from;
        for segment in segments(spool, stream)?
            .into_iter()
            .filter(|number| *number >= from.segment)
        {
            if segment != end.segment {
                end = Position { segment, offset: 0 };
            }
            match read_segment(&path(spool, stream, segment), end, &mut builder) {
                Ok(Reached::End) => {
                    end = Position {
                        segment: segment.saturating_add(1),
                        offset: 0,
                    }
                }
                Ok(Reached::Full { offset }) => {
                    end.offset = offset;
                    return Ok(Self {
                        events: builder.finish(),
                        end,
                        is_full: true,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    end = Position {
                        segment: segment.saturating_add(1),
                        offset: 0,
                    };
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            events: builder.finish(),
            end,
            is_full: false,
        })
    }
}

/// How far a segment was read.
enum Reached {
    End,
    Full { offset: u64 },
}

/// Adds the lines of a segment from `from` on, until one does not fit.
fn read_segment(path: &Path, from: Position, builder: &mut Builder) -> io::Result<Reached> {
    let mut offset = from.offset;
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut line = Vec::with_capacity(1_024);
    loop {
        line.clear();
        let count = reader.read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(Reached::End);
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if !text.is_empty() && !builder.push(peek_time(text), Position { offset, ..from }, text) {
            return Ok(Reached::Full { offset });
        }
        offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}
