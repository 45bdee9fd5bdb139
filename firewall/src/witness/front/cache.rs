//! Answers given before, for as long as they count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::{Name, RecordType};
use moka::Expiry;
use moka::sync::Cache;

use super::message::Answer;

/// Answers by name and type.
#[derive(Debug)]
pub(super) struct Answers {
    cache: Cache<(Name, RecordType), Kept>,
}

/// An answer, and when it came.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// What was said.
    pub(super) answer: Arc<Answer>,
    /// When.
    pub(super) since: Instant,
}

struct TimeToLive;

impl Expiry<(Name, RecordType), Kept> for TimeToLive {
    fn expire_after_create(
        &self,
        _: &(Name, RecordType),
        kept: &Kept,
        _: Instant,
    ) -> Option<Duration> {
        // A failure, or what is stale at once, is not asked for again in the same moment (RFC 9520).
        let lasts = if kept.answer.is_conclusive() {
            kept.answer.ttl_s
        } else {
            0
        };
        Some(Duration::from_secs(lasts.into()).max(AT_LEAST))
    }
}

impl Default for Answers {
    fn default() -> Self {
        let weight = |_: &(Name, RecordType), kept: &Kept| kept.answer.weight();
        let cache = Cache::builder()
            .max_capacity(BYTES_MAX)
            .weigher(weight)
            .expire_after(TimeToLive)
            .build();
        Self { cache }
    }
}

impl Answers {
    pub(super) fn get(&self, sought: &(Name, RecordType)) -> Option<Kept> {
        self.cache.get(sought)
    }

    /// Keeps an answer until it is stale, a second at least; one that takes much is not kept.
    pub(super) fn keep(&self, sought: (Name, RecordType), kept: Kept) {
        if kept.answer.weight() <= ANSWER_BYTES_MAX {
            self.cache.insert(sought, kept);
        }
    }
}

impl Kept {
    pub(super) fn new(answer: Answer) -> Self {
        Self {
            answer: Arc::new(answer),
            since: Instant::now(),
        }
    }

    /// Whole seconds since it came.
    pub(super) fn age_s(&self) -> u32 {
        u32::try_from(self.since.elapsed().as_secs()).unwrap_or(u32::MAX)
    }
}

/// All answers together, in bytes on the wire and what each takes beside them.
const BYTES_MAX: u64 = 16 << 20;
/// One answer.
const ANSWER_BYTES_MAX: u32 = 16 << 10;
const AT_LEAST: Duration = Duration::from_secs(1);
