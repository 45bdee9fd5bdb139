//! Policies that take turns while a load runs, and whether each connection was judged by the one that it met.

use std::time::{Duration, Instant};

use anyhow::Result;
use ipc::control::Document;

use super::{Attempt, Fate, Outcome};
use crate::flowlog::Line;
use crate::publisher::Publisher;

/// A policy that was published.
#[derive(Debug, Clone, Copy)]
pub struct Publication {
    /// Its generation.
    pub generation: u64,
    /// Whether it allows what the load asks for.
    pub allows: bool,
    /// When it was handed over.
    pub asked: Instant,
    /// When the answer came that it is in force.
    pub adopted: Instant,
}

/// Publishes two documents in turn, the one that allows first.
pub fn publish_in_turn(
    publisher: &mut Publisher,
    [allows, refuses]: [&Document; 2],
    times: usize,
    every: Duration,
) -> Result<Vec<Publication>> {
    let mut publications = Vec::new();
    for turn in 0..times {
        let allowed = turn % 2 == 0;
        let document = if allowed { allows } else { refuses }.as_json().to_owned();
        let document = Document::from_json(document)?;
        let asked = Instant::now();
        let generation = publisher.publish_document(document)?;
        let adopted = Instant::now();
        publications.push(Publication {
            generation,
            allows: allowed,
            asked,
            adopted,
        });
        std::thread::sleep(every.saturating_sub(asked.elapsed()));
    }
    Ok(publications)
}

/// Connections of which begin and end lie under one policy, and that met another verdict than its.
pub fn wrong_verdicts(outcome: &Outcome, publications: &[Publication]) -> (usize, Vec<Attempt>) {
    let mut judged = 0;
    let mut wrong = Vec::new();
    for (index, policy) in publications.iter().enumerate() {
        let until = publications.get(index + 1).map(|next| next.asked);
        for attempt in &outcome.attempts {
            let ended = attempt.at + attempt.took;
            if attempt.at <= policy.adopted || until.is_some_and(|until| ended >= until) {
                continue;
            }
            judged += 1;
            let expected = if policy.allows {
                Fate::Served
            } else {
                Fate::Reset
            };
            // Served, it is echoed a moment later; ended by the next policy is no verdict of this one.
            let cut = until.is_some_and(|until| ended + Duration::from_millis(200) >= until);
            if attempt.fate != expected && !(cut && attempt.fate == Fate::Reset) {
                wrong.push(*attempt);
            }
        }
    }
    (judged, wrong)
}

/// Lines that name a generation whose policy says otherwise.
pub fn wrong_lines<'l>(lines: &'l [Line], publications: &[Publication]) -> Vec<&'l Line> {
    let says_otherwise = |line: &&Line| {
        let generation = line.text("generation");
        let policy = publications
            .iter()
            .find(|policy| policy.generation.to_string() == generation);
        policy.is_some_and(|policy| (line.text("outcome") == "allowed") != policy.allows)
    };
    lines.iter().filter(says_otherwise).collect()
}
