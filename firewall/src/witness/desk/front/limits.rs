//! How much of each thing one source may have of the front.

use std::net::IpAddr;

use super::FrontDesk;

impl FrontDesk {
    /// Whether a refusal of this source has a line of its own.
    pub(super) fn may_say(&mut self, source: IpAddr, now_ms: u64) -> bool {
        let second = now_ms / 1_000;
        if self.said.len() >= SOURCES_MAX {
            self.said.retain(|_, (at, _)| *at == second);
        }
        let (at, count) = self.said.entry(source).or_default();
        if *at != second {
            (*at, *count) = (second, 0);
        }
        *count = count.saturating_add(1);
        *count <= LINES_PER_SECOND
    }

    /// Whether another question of a source may wait for room.
    pub(super) fn may_defer(&self, source: IpAddr) -> bool {
        let its = self
            .deferred
            .iter()
            .filter(|(_, asked)| asked.from.ip() == source);
        let most = if self.settings.is_resolver(source) {
            DEFERRED_MAX / 2
        } else {
            DEFERRED_PER_SOURCE
        };
        self.deferred.len() < DEFERRED_MAX && its.take(most).count() < most
    }

    /// Whether cloud resolvers may bring up another new name in this second.
    pub(super) fn may_learn(&mut self, now_ms: u64) -> bool {
        let second = now_ms / 1_000;
        if self.learnt.0 != second {
            self.learnt = (second, 0);
        }
        self.learnt.1 = self.learnt.1.saturating_add(1);
        self.learnt.1 <= NEW_NAMES_PER_SECOND
    }

    /// Whether an unknown source is worth a look-up: ten a second, each once.
    pub(super) fn may_report(&mut self, source: IpAddr, now_ms: u64) -> bool {
        let second = now_ms / 1_000;
        let (at, told) = &mut self.unknown;
        if *at != second {
            *at = second;
            told.clear();
        }
        if told.len() >= UNKNOWN_PER_SECOND || told.contains(&source) {
            return false;
        }
        told.push(source);
        true
    }
}

/// Questions that may wait for room.
const DEFERRED_MAX: usize = 1_024;
/// Of these, of one source: more than it may learn while they wait.
const DEFERRED_PER_SOURCE: usize = 64;
const SOURCES_MAX: usize = 65_536;
/// Lines about refusals of one source.
const LINES_PER_SECOND: u32 = 20;
const UNKNOWN_PER_SECOND: usize = 10;
/// New names under patterns that cloud resolvers may bring up together; of ten minutes' worth others still find room.
const NEW_NAMES_PER_SECOND: u32 = 20;
