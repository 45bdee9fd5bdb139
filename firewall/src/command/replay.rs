//! `postern replay`: the verdict on each flow of a capture, without privileges.

use std::fs::File;
use std::io::BufReader;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use inspect::FlowRecord;
use inspect::replay::{Replay, ReplayOptions};
use ipc::record::{FlowLineV1, FlowOutcome, Text, to_line};
use policy::Snapshot;

use crate::bindings::Scope;
use crate::capture::{Capture, CaptureError};
use crate::cli::{Failure, Finding, ReplayArgs, print};
use crate::flowlog::flow_line;
use crate::provider::FileProvider;

/// What may be bound under the policy of this process; a replay takes a plain function.
static SCOPE: OnceLock<Scope> = OnceLock::new();

/// Judges every capture in turn as one stream; exit code 1 when something is refused.
pub(crate) fn run(args: &ReplayArgs) -> Result<Finding, Failure> {
    let draft = FileProvider::new(&args.inventory)
        .read()
        .map_err(Failure::input)?;
    let policy = Arc::new(Snapshot::compile(draft, 1).map_err(Failure::input)?);
    let scope = Scope {
        policy: Some(Arc::clone(&policy)),
        own: Vec::new(),
    };
    SCOPE.get_or_init(|| scope);
    let options = ReplayOptions {
        bound_everywhere: args.no_binding,
        is_global: in_scope,
    };
    let mut replay = Replay::new(policy, options);
    let mut refused = 0_u64;
    let mut begun = args.json;
    for path in &args.captures {
        read(path, &mut replay, &mut |record| {
            // Only above something: a file that cannot be read has no table.
            if !std::mem::replace(&mut begun, true) {
                print(&format!("{}\n", header()));
            }
            let line = flow_line(record, &Text::from("replay"));
            refused = refused.saturating_add(u64::from(line.outcome == FlowOutcome::Disallowed));
            show(&line, args.json)
        })?;
    }
    if !args.json {
        summary(&replay);
    }
    Ok(if refused == 0 {
        Finding::None
    } else {
        Finding::Some
    })
}

fn in_scope(addr: IpAddr) -> bool {
    SCOPE.get().is_some_and(|scope| scope.may_be_bound(addr))
}

fn read(
    path: &Path,
    replay: &mut Replay,
    each: &mut impl FnMut(&FlowRecord) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = |error: CaptureError| {
        Failure::input(format!(
            "reading capture {}: {}",
            path.display(),
            crate::cli::chain(&error)
        ))
    };
    let file = File::open(path).map_err(|error| failed(error.into()))?;
    let mut capture = Capture::open(BufReader::new(file)).map_err(failed)?;
    while let Some(captured) = capture.next_packet().map_err(failed)? {
        replay.packet(captured.unix_ms, &captured.packet);
        for record in replay.take_records() {
            each(&record)?;
        }
    }
    Ok(())
}

fn show(line: &FlowLineV1, json: bool) -> Result<(), Failure> {
    if json {
        let line = to_line(line).map_err(Failure::machine)?;
        print(&String::from_utf8_lossy(&line));
    } else {
        print(&format!("{}\n", row(line)));
    }
    Ok(())
}

fn header() -> String {
    format!(
        "{:<24} {:<6} {:<8} {:<22} {:<8} {:<22} {:<22} name",
        "time", "side", "verdict", "reason", "proto", "from", "to"
    )
}

/// One line of the table. Values come from hostile bytes, so control characters are escaped.
fn row(line: &FlowLineV1) -> String {
    let side = match line.cat {
        ipc::record::FlowCat::Client => "client",
        ipc::record::FlowCat::Server => "server",
        ipc::record::FlowCat::End => "end",
    };
    let verdict = match line.outcome {
        FlowOutcome::Allowed => "allowed",
        FlowOutcome::Disallowed => "refused",
    };
    let version = line.proto_v.as_ref().map_or("", |version| version.as_str());
    let end = |address: IpAddr, port: u16| std::net::SocketAddr::new(address, port).to_string();
    format!(
        "{:<24} {side:<6} {verdict:<8} {:<22} {:<8} {:<22} {:<22} {}",
        line.time.to_string(),
        line.reason.as_str().escape_debug().to_string(),
        format!("{} {version}", line.proto.as_str()),
        end(line.src, line.spt),
        end(line.dst, line.dpt),
        line.dhost.as_str().escape_debug(),
    )
}

fn summary(replay: &Replay) {
    let undecided: Vec<String> = replay
        .undecided()
        .map(|flow| {
            format!(
                "{} > {}: the capture ends before a verdict\n",
                flow.client, flow.server
            )
        })
        .collect();
    print(&undecided.concat());
    if replay.skipped() > 0 {
        print(&format!(
            "{} packets were cut short or are no IP\n",
            replay.skipped()
        ));
    }
}
