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
        Some(Duration::from_secs(kept.answer.ttl_s.into()))
    }
}

impl Default for Answers {
    fn default() -> Self {
        let weight = |_: &(Name, RecordType), kept: &Kept| kept.answer.weight();
        let cache = Cache::builder()
            .max_capacity(RECORDS_MAX)
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

    /// Keeps an answer of use until it is stale; one that is so at once is not kept.
    pub(super) fn keep(&self, sought: (Name, RecordType), kept: Kept) {
        if kept.answer.is_conclusive() && kept.answer.ttl_s > 0 {
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

/// Records of all answers together: some ten megabytes.
const RECORDS_MAX: u64 = 50_000;
