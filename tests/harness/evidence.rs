//! What the tests of a tier have really brought about: each notes which reasons its Postern's flow and DNS logs held and which
//! metrics were above zero, and the suite looks afterwards whether one of those that are promised never came up.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use policy::Reason;

use crate::flowlog::Logs;

/// Names the folder that tests note to; without it nothing is noted.
pub const FOLDER: &str = "E2E_EVIDENCE";

/// The page that documents the metrics.
const METRICS: &str = include_str!("../../firewall/METRICS.md");

/// Codes that no packet of this build provokes, and why.
const REASONS_EXCUSED: [(Reason, &str); 2] = [
    (
        Reason::CertificateRevoked,
        "reserved for revocation lists, which the certificate witness does not read yet",
    ),
    (
        Reason::Internal,
        "a fault of ours; whoever finds a packet for it has found a bug",
    ),
];

/// Metrics that no test can raise on every machine, and why.
const METRICS_EXCUSED: [(&str, &str); 1] = [(
    "postern_clock_synchronised",
    "there is one clock for the whole machine; clock_unsynchronised_and_it_is_said compares it with that",
)];

/// What this process has noted already.
static NOTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The metrics that are documented: names in backquotes that begin as ours do.
pub fn documented() -> BTreeSet<String> {
    let rows = METRICS.lines().filter(|line| line.starts_with("| `"));
    let words = rows.flat_map(|line| line.split('|').nth(1).unwrap_or_default().split('`'));
    words
        .filter(|word| word.starts_with("postern_"))
        .map(str::to_owned)
        .collect()
}

/// Notes that a metric was above zero.
pub fn metric(name: &str) {
    note(&[format!("metric {name}")]);
}

/// Notes every metric of a page that is above zero.
pub fn page(text: &str) {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let raised = lines.filter_map(|line| {
        let (key, value) = line.rsplit_once(' ')?;
        let name = key.split('{').next()?;
        (value.parse::<f64>().ok()? > 0.0).then(|| format!("metric {name}"))
    });
    note(&raised.collect::<Vec<_>>());
}

/// Notes the reasons in the logs of flows and of questions.
pub fn reasons(logs: &Logs) {
    if std::env::var_os(FOLDER).is_none() {
        return;
    }
    let lines = ["flow", "dns"].map(|log| logs.lines(log));
    let refused = lines
        .iter()
        .flatten()
        .filter(|line| line.text("outcome") == "disallowed");
    let found = refused.map(|line| format!("reason {}", line.text("reason")));
    note(&found.collect::<Vec<_>>());
}

fn note(found: &[String]) {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    let new: String = found
        .iter()
        .filter(|line| noted.insert((*line).clone()))
        .map(|line| format!("{line}\n"))
        .collect();
    if new.is_empty() {
        return;
    }
    // Process numbers come round within a run of the suite: whoever had this one before keeps its notes.
    let file = Path::new(&folder).join(std::process::id().to_string());
    let file = OpenOptions::new().create(true).append(true).open(file);
    // What cannot be noted is missed by the suite.
    drop(file.and_then(|mut file| file.write_all(new.as_bytes())));
}

/// Makes the folder anew, for a tier about to run.
pub fn begin(folder: &Path) -> Result<()> {
    drop(fs::remove_dir_all(folder));
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))
}

/// Whether every reason was found in a flow log and every metric was above zero in some test.
///
/// # Errors
/// With those that never came up.
pub fn check(folder: &Path) -> Result<()> {
    let mut noted = BTreeSet::new();
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let text = fs::read_to_string(entry.context("listing notes")?.path());
        noted.extend(text.context("reading notes")?.lines().map(str::to_owned));
    }
    let reasons = Reason::ALL
        .iter()
        .filter(|reason| REASONS_EXCUSED.iter().all(|(one, _)| one != *reason))
        .map(|reason| format!("reason {}", reason.as_str()));
    let metrics = documented().into_iter();
    let metrics = metrics
        .filter(|name| METRICS_EXCUSED.iter().all(|(one, _)| one != name))
        .map(|name| format!("metric {name}"));
    let missing: Vec<String> = reasons
        .chain(metrics)
        .filter(|line| !noted.contains(line))
        .collect();
    if !missing.is_empty() {
        bail!("never came up: {}", missing.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_came_up_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let all = Reason::ALL
            .iter()
            .map(|one| format!("reason {}", one.as_str()));
        let metrics = documented()
            .into_iter()
            .map(|name| format!("metric {name}"));
        let mut lines: Vec<String> = all.chain(metrics).collect();
        let write = |name: &str, lines: &[String]| {
            fs::write(folder.path().join(name), lines.join("\n")).unwrap();
        };
        let (some, others) = lines.split_at(20);
        write("1", some);
        write("2", others);
        check(folder.path()).unwrap();
        lines.retain(|line| !line.ends_with(" tcp_overlap") && !line.ends_with("_judged_total"));
        write("1", &lines);
        write("2", &[]);
        let said = check(folder.path()).unwrap_err().to_string();
        assert_eq!(
            said,
            "never came up: reason tcp_overlap, metric postern_judged_total"
        );
    }
}
