//! `postern flows`: the flow log as it waits in the spool.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipc::record::{FlowLineV1, FlowOutcome};

use crate::cli::{Failure, Finding, FlowsArgs, print};
use crate::config::Config;

/// Prints the lines of every segment, oldest first, and with `--follow` what comes after.
pub(crate) fn run(args: &FlowsArgs) -> Result<Finding, Failure> {
    let config = Config::load(args.config.as_deref()).map_err(Failure::input)?;
    let folder = config.spool_dir().join("flow");
    let mut reader = SpoolReader {
        folder,
        read: BTreeMap::new(),
    };
    loop {
        let mut out = String::new();
        reader.each_new_line(|line| {
            if let Some(text) = shown(line, args) {
                out.push_str(&text);
                out.push('\n');
            }
        })?;
        print(&out);
        if !args.follow {
            return Ok(Finding::None);
        }
        std::thread::sleep(FOLLOW_EVERY);
    }
}

/// Reads segments as they grow, each line once.
struct SpoolReader {
    folder: PathBuf,
    /// Bytes read of each segment, by number.
    read: BTreeMap<u64, u64>,
}

impl SpoolReader {
    fn each_new_line(&mut self, mut each: impl FnMut(&str)) -> Result<(), Failure> {
        let segments = segments(&self.folder).map_err(|error| {
            Failure::machine(format!(
                "reading the spool {}: {error}",
                self.folder.display()
            ))
        })?;
        self.read.retain(|number, _| segments.contains_key(number));
        for (number, path) in segments {
            let offset = self.read.entry(number).or_default();
            match read_from(&path, offset, &mut each) {
                Ok(()) => {}
                // Shipped or closed since it was listed; the next look finds its new name.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Failure::machine(format!(
                        "reading {}: {error}",
                        path.display()
                    )));
                }
            }
        }
        Ok(())
    }
}

fn segments(folder: &Path) -> std::io::Result<BTreeMap<u64, PathBuf>> {
    let mut segments = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let digits = name
            .strip_suffix(".jsonl.open")
            .or_else(|| name.strip_suffix(".jsonl"));
        if let Some(number) = digits.and_then(|digits| digits.parse().ok()) {
            segments.insert(number, path);
        }
    }
    Ok(segments)
}

fn read_from(path: &Path, offset: &mut u64, each: &mut impl FnMut(&str)) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(*offset))?;
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    loop {
        line.clear();
        let length = reader.read_line(&mut line)?;
        if length == 0 || !line.ends_with('\n') {
            return Ok(());
        }
        *offset = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        each(line.trim_end());
    }
}

/// What is printed of a line; nothing of one that is filtered out or broken.
fn shown(line: &str, args: &FlowsArgs) -> Option<String> {
    let flow: FlowLineV1 = serde_json::from_str(line).ok()?;
    if args.refused && flow.outcome == FlowOutcome::Allowed {
        return None;
    }
    Some(if args.json {
        line.to_owned()
    } else {
        row(&flow)
    })
}

/// One line of the table. Values come from hostile bytes, so control characters are escaped.
fn row(flow: &FlowLineV1) -> String {
    let outcome = match flow.outcome {
        FlowOutcome::Allowed => "allowed",
        FlowOutcome::Disallowed => "refused",
    };
    let version = flow.proto_v.as_ref().map_or("", |version| version.as_str());
    format!(
        "{} {outcome} {:<22} {:<5}{version:<5} {:>15}:{:<5} > {:>15}:{:<5} {}",
        flow.time,
        flow.reason.as_str().escape_debug().to_string(),
        flow.proto.as_str(),
        flow.src.to_string(),
        flow.spt,
        flow.dst.to_string(),
        flow.dpt,
        flow.dhost.as_str().escape_debug(),
    )
}

const FOLLOW_EVERY: Duration = Duration::from_millis(250);
