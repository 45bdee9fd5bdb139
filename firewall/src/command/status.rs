//! `postern status`: what the daemon says of itself.

use std::path::Path;
use std::time::Duration;

use ipc::control::{BindingState, Hello, PollState, Reply, Request, StatusReply};
use ipc::socket::Client;
use serde::Serialize;

use crate::cli::{Failure, Finding, StatusArgs, print};
use crate::config::Config;

/// Prints the daemon's status; exit code 1 when something is degraded.
pub(crate) fn run(args: &StatusArgs) -> Result<Finding, Failure> {
    let reply = ask(args.config.as_deref(), &Request::Status)?;
    let Reply::Status(status) = reply else {
        return Err(unexpected(&reply));
    };
    if args.json {
        let bindings = bindings(args.config.as_deref())?;
        let everything = Everything {
            status: &status,
            bindings: &bindings,
        };
        let mut json = serde_json::to_string_pretty(&everything).map_err(Failure::machine)?;
        json.push('\n');
        print(&json);
    } else {
        print(&table(&status));
    }
    Ok(if status.degraded.is_empty() {
        Finding::None
    } else {
        Finding::Some
    })
}

/// What `--json` prints.
#[derive(Serialize)]
struct Everything<'a> {
    #[serde(flatten)]
    status: &'a StatusReply,
    bindings: &'a [BindingState],
}

/// Which addresses are bound to which names, page by page.
fn bindings(config: Option<&Path>) -> Result<Vec<BindingState>, Failure> {
    let mut bindings: Vec<BindingState> = Vec::new();
    loop {
        let after = bindings.last().map(BindingState::place);
        let reply = ask(config, &Request::Bindings { after })?;
        let Reply::Bindings(page) = reply else {
            return Err(unexpected(&reply));
        };
        let is_over = !page.more || page.bindings.is_empty();
        bindings.extend(page.bindings);
        if is_over || bindings.len() >= BINDINGS_MAX {
            return Ok(bindings);
        }
    }
}

/// Sends one request to the daemon of a configuration.
pub(crate) fn ask(config: Option<&Path>, request: &Request) -> Result<Reply, Failure> {
    let config = Config::load(config).map_err(Failure::input)?;
    let hello = Hello::new(crate::cli::PROGRAM, false);
    let mut client =
        Client::connect(&config.control_socket, hello, PATIENCE).map_err(Failure::machine)?;
    client.call(request).map_err(Failure::machine)
}

/// An answer that does not fit the request, the daemon's refusal first of all.
pub(crate) fn unexpected(reply: &Reply) -> Failure {
    let why = if let Reply::Refused { why } = reply {
        why.clone()
    } else {
        format!("unexpected answer {reply:?}")
    };
    Failure::machine(format!("asking the daemon: {why}"))
}

fn table(status: &StatusReply) -> String {
    let mut text = String::new();
    let mut row = |key: &str, value: String| {
        text += &format!("{key:<14}{value}\n");
    };
    row(
        "appliance",
        format!("{} ({})", status.appliance, status.program),
    );
    row("mode", status.mode.clone());
    row(
        "policy",
        format!(
            "generation {}, {}, {} ago",
            status.generation,
            if status.policy_id.is_empty() {
                "none"
            } else {
                &status.policy_id
            },
            duration(status.policy_age_s)
        ),
    );
    if let Some(poll) = &status.poll {
        row("source", source(poll, status.source_age_s));
    }
    row(
        "content",
        format!(
            "{} clients, {} groups, {} names ({} with an address), {} faults",
            status.clients, status.groups, status.names, status.names_bound, status.faults
        ),
    );
    row(
        "flows",
        format!(
            "{} being judged, {} carried",
            status.flows_undecided, status.flows_judged
        ),
    );
    let refused: u64 = status.refused.values().sum();
    row(
        "decisions",
        format!("{} allowed, {refused} refused", status.allowed),
    );
    for (reason, count) in &status.refused {
        row("", format!("{count:>8} {reason}"));
    }
    text + &parts(status)
}

/// The daemon's own parts, and what is not as it should be.
fn parts(status: &StatusReply) -> String {
    let mut text = String::new();
    let mut row = |key: &str, value: String| {
        text += &format!("{key:<14}{value}\n");
    };
    row(
        "queues",
        format!("{} ({:?})", status.queues, status.queue_form).to_lowercase(),
    );
    row("witness", format!("{:?}", status.witness).to_lowercase());
    for (stream, size) in &status.spool {
        row(
            &format!("log {stream}"),
            format!(
                "{} lines, {} bytes wait, {} lost",
                size.lines, size.bytes, size.lost
            ),
        );
    }
    row("up", duration(status.uptime_s));
    for sentence in &status.degraded {
        row("degraded", sentence.clone());
    }
    text
}

/// How often the cloud is asked, why not more often, and when it last answered.
fn source(poll: &PollState, age_s: Option<u64>) -> String {
    let last = age_s.map_or_else(
        || "cannot be read now".to_owned(),
        |age| format!("last read {} ago", duration(age)),
    );
    format!(
        "every {:.1} s ({} calls a reading, {} appliances), {last}",
        poll.interval_s, poll.calls, poll.appliances
    )
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
/// Bindings printed.
const BINDINGS_MAX: usize = 50_000;
