//! One look-up of one name: every record type, each sample side by side.

use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RecordType};
use ipc::witness::{AnswerOutcome, Lookup};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{Finding, Merge, Upstreams};

/// What is to be asked.
#[derive(Debug)]
pub(in crate::witness) struct Question {
    /// The name as the daemon wrote it.
    pub(in crate::witness) name: String,
    /// The name as it is asked for.
    pub(in crate::witness) wire_name: Name,
    /// Times to ask for addresses side by side.
    pub(in crate::witness) samples: usize,
    /// The record types to ask for; hints do not rotate, so that HTTPS is asked for once.
    pub(in crate::witness) types: Vec<RecordType>,
    /// The look-up of a packet that waits for it.
    pub(in crate::witness) asked: Option<Asked>,
    /// How long it may take.
    pub(in crate::witness) budget: Duration,
    /// Its place among the refreshes, given back with its end.
    pub(in crate::witness) place: Option<OwnedSemaphorePermit>,
}

/// What a packet waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::witness) struct Asked {
    /// Whether it asks for AAAA.
    pub(in crate::witness) ipv6: bool,
}

/// A look-up's end.
#[derive(Debug)]
pub(in crate::witness) struct Done {
    /// The name as the daemon wrote it.
    pub(in crate::witness) name: String,
    /// What it brought that no [`Part`] has told.
    pub(in crate::witness) finding: Finding,
    /// The look-up of a packet that waits for it.
    pub(in crate::witness) asked: Option<Asked>,
    /// Whether it says nothing of when the name is due.
    pub(in crate::witness) sampled: bool,
    /// How the single questions ended.
    pub(in crate::witness) tally: Tally,
}

/// One of the answers of a look-up that goes on.
#[derive(Debug)]
pub(in crate::witness) struct Part {
    /// The name as the daemon wrote it.
    pub(in crate::witness) name: String,
    /// The look-up of a packet that waits for it.
    pub(in crate::witness) asked: Option<Asked>,
    /// Addresses not told before.
    pub(in crate::witness) finding: Finding,
}

/// How many questions ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::witness) struct Tally {
    /// Nobody answered.
    pub(in crate::witness) timed_out: u64,
    /// Refused, failed, unreadable.
    pub(in crate::witness) failed: u64,
    /// Answered by another than the preferred resolver.
    pub(in crate::witness) failed_over: u64,
}

impl Tally {
    /// Counts one question's end.
    pub(in crate::witness) fn count(&mut self, finding: &Finding) {
        let timed_out = u64::from(finding.outcome == AnswerOutcome::TimedOut);
        let failed = u64::from(finding.outcome == AnswerOutcome::ServerFailure);
        self.timed_out = self.timed_out.saturating_add(timed_out);
        self.failed = self.failed.saturating_add(failed);
        self.failed_over = self.failed_over.saturating_add(finding.failed_over.into());
    }
}

/// Asks for some record types of a name, each sample side by side.
///
/// While a packet waits, each answer with new addresses goes out through `parts` at once. The end
/// comes when the address records are in and HTTPS had [`HINT_GRACE`] more, so that a resolver
/// that ignores HTTPS questions delays nobody.
pub(in crate::witness) async fn look_up(
    upstreams: Upstreams,
    question: Question,
    parts: mpsc::Sender<Part>,
) -> Done {
    let patience = question.budget.mul_f32(WORK_SHARE);
    let mut deadline = Instant::now() + question.budget.mul_f32(WAIT_SHARE);
    let mut pending = ask_all(&upstreams, &question, patience);
    let mut merge = Merge::default();
    let mut tally = Tally::default();
    let hints = question.types.contains(&RecordType::HTTPS);
    let mut addresses_pending = pending.len().saturating_sub(usize::from(hints));
    loop {
        tokio::select! {
            next = pending.join_next() => {
                let Some(joined) = next else { break };
                let Ok((record_type, finding)) = joined else { continue };
                tally.count(&finding);
                let is_address = record_type != RecordType::HTTPS;
                addresses_pending = addresses_pending.saturating_sub(usize::from(is_address));
                let resolved = finding.outcome == AnswerOutcome::Resolved;
                // That there is no HTTPS record says nothing of the name.
                if is_address || resolved {
                    merge.add(finding);
                }
                if resolved && question.asked.is_some() && !pending.is_empty() {
                    tell_part(&question.name, question.asked, &mut merge, &parts).await;
                }
                if addresses_pending == 0 {
                    deadline = deadline.min(Instant::now() + HINT_GRACE);
                }
            }
            () = sleep_until(deadline) => break,
        }
    }
    // Whoever has not answered by now is silent: the loop may have ended a moment before them.
    let silent = u64::try_from(pending.len()).unwrap_or(u64::MAX);
    tally.timed_out = tally.timed_out.saturating_add(silent);
    drop(question.place);
    Done {
        name: question.name,
        finding: merge.take(),
        asked: question.asked,
        sampled: false,
        tally,
    }
}

fn ask_all(
    upstreams: &Upstreams,
    question: &Question,
    patience: Duration,
) -> JoinSet<(RecordType, Finding)> {
    let mut pending = JoinSet::new();
    for &record_type in &question.types {
        let samples = if record_type == RecordType::HTTPS {
            1
        } else {
            question.samples
        };
        for sample in 0..samples {
            let (upstreams, name) = (upstreams.clone(), question.wire_name.clone());
            pending.spawn(async move {
                let finding = upstreams.ask(&name, record_type, sample, patience).await;
                (record_type, finding)
            });
        }
    }
    pending
}

/// Tells what has come in of a look-up that goes on; nothing when that is nothing.
pub(in crate::witness) async fn tell_part(
    name: &str,
    asked: Option<Asked>,
    merge: &mut Merge,
    parts: &mpsc::Sender<Part>,
) {
    let finding = merge.take();
    if finding.addresses.is_empty() {
        return;
    }
    let part = Part {
        name: name.to_owned(),
        asked,
        finding,
    };
    // The witness ends when nobody receives.
    drop(parts.send(part).await);
}

/// The record types a look-up asks for.
pub(in crate::witness) fn types_of(lookup: &Lookup) -> Vec<RecordType> {
    let wanted = [
        (lookup.ipv4, RecordType::A),
        (lookup.ipv6, RecordType::AAAA),
        (lookup.hints, RecordType::HTTPS),
    ];
    let wanted = wanted.into_iter().filter(|(wanted, _)| *wanted);
    wanted.map(|(_, record_type)| record_type).collect()
}

/// Questions that make up a look-up.
pub(in crate::witness) fn price(types: &[RecordType], samples: usize) -> u64 {
    let of = |record_type: &RecordType| {
        if *record_type == RecordType::HTTPS {
            1
        } else {
            samples
        }
    };
    u64::try_from(types.iter().map(of).sum::<usize>()).unwrap_or(u64::MAX)
}

/// How much longer than the addresses an HTTPS record may take.
const HINT_GRACE: Duration = Duration::from_millis(100);
/// How much of its time a look-up spends on asking; the rest is the way back.
const WORK_SHARE: f32 = 0.85;
/// And how much it waits for answers, a little more, so that each has ended by itself.
const WAIT_SHARE: f32 = 0.9;
