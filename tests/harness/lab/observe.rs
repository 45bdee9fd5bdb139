//! What became of an attempt: on both wires, at the client, and in the flow log.

use std::time::Duration;

use anyhow::Result;

use super::Lab;
use super::attempts::{Attempt, Ending};
use crate::capture::{Capture, Captured};
use crate::flowlog::Line;
use crate::packet::{Seen, flags};
use crate::wait;

/// What became of an attempt.
#[derive(Debug)]
pub struct Observed {
    /// Whether the client got what it came for.
    pub served: bool,
    /// Whether a byte of the client's payload crossed the outer link.
    pub left: bool,
    /// From the decisive packet of the client (or the server's answer) to the first sign of the verdict.
    pub time_to_verdict: Option<Duration>,
    /// The flow log's lines about it, the one that ended the matter last.
    pub lines: Vec<Line>,
}

impl Observed {
    /// The line that tells the attempt's story: what was refused, else what was allowed to the client.
    pub fn decision(&self) -> Option<&Line> {
        let of_client = |line: &&Line| line.is(&[("outcome", "allowed"), ("cat", "client")]);
        let last = self.lines.last()?;
        if last.is(&[("outcome", "disallowed")]) {
            return Some(last);
        }
        self.lines.iter().find(of_client).or(Some(last))
    }

    /// Whether it ended as it should: at the client, on the wire, and in the log.
    pub fn as_expected(&self, attempt: &Attempt) -> bool {
        let decided = self.decision();
        let logged = |fields: &[(&str, &str)]| decided.is_some_and(|line| line.is(fields));
        match attempt.ending {
            Ending::Allowed(version) => {
                self.served && self.left && logged(&[("outcome", "allowed"), ("proto_v", version)])
            }
            Ending::Refused(reason) => {
                !self.served
                    && !self.left
                    && logged(&[("outcome", "disallowed"), ("reason", reason)])
            }
            Ending::AnswerRefused(reason) => {
                !self.served && logged(&[("outcome", "disallowed"), ("reason", reason)])
            }
        }
    }
}

/// Makes one attempt and watches it.
pub(super) fn observe(lab: &Lab<'_>, attempt: &Attempt) -> Result<Observed> {
    let (inside, outside) = (
        lab.topology.capture_inside()?,
        lab.topology.capture_outside()?,
    );
    let known = lab.daemon.logs().lines("flow").len();
    let served = attempt.drive(lab.topology, lab.servers)?;
    let lines = deciding_lines(lab, attempt, known);
    let server = attempt.site.at(attempt.family, attempt.port);
    let left = outside.matching(|seen| seen.to == server && !seen.payload.is_empty());
    let time_to_verdict = match attempt.ending {
        Ending::Allowed(_) => released_after(&inside, &outside, attempt),
        Ending::Refused(_) | Ending::AnswerRefused(_) => refused_after(&inside, &outside, attempt),
    };
    Ok(Observed {
        served,
        left: !left.is_empty(),
        time_to_verdict,
        lines,
    })
}

/// Waits for the lines that the attempt should leave; those that came, a refusal or the latest last.
fn deciding_lines(lab: &Lab<'_>, attempt: &Attempt, known: usize) -> Vec<Line> {
    let src = attempt.asker.address(attempt.family).to_string();
    let dst = attempt.site.address(attempt.family).to_string();
    let ours = |line: &Line| {
        let ends = (line.text("src"), line.text("dst"));
        ends == (src.clone(), dst.clone()) || ends == (dst.clone(), src.clone())
    };
    let lines = || -> Vec<Line> {
        lab.daemon
            .logs()
            .lines("flow")
            .into_iter()
            .skip(known)
            .filter(|line| ours(line))
            .collect()
    };
    let wanted = |line: &Line| match attempt.ending {
        Ending::Allowed(_) => line.is(&[("outcome", "allowed"), ("cat", "server")]),
        Ending::Refused(_) | Ending::AnswerRefused(_) => line.is(&[("outcome", "disallowed")]),
    };
    wait::holds(Duration::from_secs(3), || lines().iter().any(wanted));
    let mut found = lines();
    found.sort_by_key(|line| wanted(line));
    found
}

/// From the hello's last packet on the inner link to its first byte on the outer one.
fn released_after(inside: &Capture, outside: &Capture, attempt: &Attempt) -> Option<Duration> {
    let server = attempt.site.at(attempt.family, attempt.port);
    let from_client =
        |packet: &&Captured| packet.seen.to == server && !packet.seen.payload.is_empty();
    let out = outside.packets();
    let released = out.iter().find(from_client)?.at;
    let inside = inside.packets();
    let held = inside
        .iter()
        .filter(from_client)
        .take_while(|packet| packet.at <= released)
        .last()?;
    Some(released - held.at)
}

/// From the packet that decided to the reset or the ICMP error that tells the client.
fn refused_after(inside: &Capture, outside: &Capture, attempt: &Attempt) -> Option<Duration> {
    let client = attempt.asker.address(attempt.family);
    let server = attempt.site.at(attempt.family, attempt.port);
    let told =
        |seen: &Seen| seen.to.ip() == client && (seen.is_tcp(flags::RST) || is_unreachable(seen));
    let inner = inside.packets();
    let verdict = inner.iter().find(|packet| told(&packet.seen))?.at;
    let outer = outside.packets();
    let decisive: Vec<&Captured> = match attempt.ending {
        Ending::AnswerRefused(_) => outer
            .iter()
            .filter(|packet| packet.seen.from == server && !packet.seen.payload.is_empty())
            .collect(),
        Ending::Allowed(_) | Ending::Refused(_) => inner
            .iter()
            .filter(|packet| packet.seen.to == server && says_something(&packet.seen))
            .collect(),
    };
    decisive
        .into_iter()
        .rfind(|packet| packet.at <= verdict)
        .map(|packet| verdict - packet.at)
}

fn says_something(seen: &Seen) -> bool {
    seen.protocol != 6 || seen.has(flags::SYN) || !seen.payload.is_empty()
}

/// Destination unreachable of either family.
pub fn is_unreachable(seen: &Seen) -> bool {
    matches!(
        (seen.protocol, seen.icmp),
        (1, Some((3, _))) | (58, Some((1, _)))
    )
}
