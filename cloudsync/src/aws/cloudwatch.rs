//! CloudWatch Logs: batches into streams of one group, all created where absent.

use std::time::Duration;

use aws_sdk_cloudwatchlogs::types::{InputLogEvent, RejectedLogEventsInfo};
use ipc::record::Stream;

use super::call::Caller;
use crate::cloud::{Acknowledged, BatchLimits, CloudError, CloudErrorKind, LogEvent, LogSink};
use crate::config::Logs;

/// The limits of PutLogEvents (API reference of CloudWatch Logs).
const LIMITS: BatchLimits = BatchLimits {
    events: 10_000,
    bytes: 1_048_576,
    event_overhead: 26,
    event_bytes: 262_144,
    span: Duration::from_secs(24 * 3_600),
};

/// Days that a group may keep its lines (PutRetentionPolicy, API reference).
const RETENTION_DAYS: [i32; 22] = [
    1,
    3,
    5,
    7,
    14,
    30,
    60,
    90,
    120,
    150,
    180,
    365,
    400,
    545,
    731,
    1_096,
    1_827,
    2_192,
    2_557,
    2_922,
    3_288,
    RETENTION_DAYS_MAX,
];

const RETENTION_DAYS_MAX: i32 = 3_653;

/// One log group.
#[derive(Debug, Clone)]
pub(crate) struct CloudWatch {
    caller: Caller,
    group: String,
    /// Whether somebody else makes the group. Streams are ours in any case: nobody else knows the
    /// names of appliances.
    managed: bool,
    retention_days: u32,
}

impl CloudWatch {
    /// A sink for this group.
    pub(super) fn new(caller: Caller, logs: &Logs) -> Self {
        Self {
            caller,
            group: logs.group.clone(),
            managed: logs.group_managed,
            retention_days: logs.retention_days,
        }
    }

    /// The stream's name. The service allows neither `:` nor `*` in it.
    fn stream_name(stream: Stream, appliance: &str) -> String {
        format!("{stream}/{}", appliance.replace([':', '*'], "_"))
    }

    async fn send(&self, name: &str, events: &[LogEvent]) -> Result<Acknowledged, CloudError> {
        let answer = self.caller.logs("PutLogEvents", async |logs| {
            let input = events.iter().filter_map(input).collect();
            logs.put_log_events()
                .log_group_name(&self.group)
                .log_stream_name(name)
                .set_log_events(Some(input))
                .send()
                .await
        });
        let answer = answer.await?;
        let rejected = answer.rejected_log_events_info();
        Ok(Acknowledged {
            rejected: rejected.map_or(0, |info| rejected_of(info, events.len())),
        })
    }

    /// Creates the group, unless it is somebody else's, and the stream; either may be there already. Only a group that we made gets the
    /// retention we were told: one that was there has its owner's.
    async fn create(&self, name: &str) -> Result<(), CloudError> {
        // Nothing is asked before it is awaited.
        let group = self.caller.logs("CreateLogGroup", async |logs| {
            let call = logs.create_log_group();
            call.log_group_name(&self.group).send().await
        });
        if !self.managed && is_new(group.await.map(drop))? {
            tracing::info!(group = self.group, "created");
            self.retain().await;
        }
        let stream = self.caller.logs("CreateLogStream", async |logs| {
            logs.create_log_stream()
                .log_group_name(&self.group)
                .log_stream_name(name)
                .send()
                .await
        });
        if is_new(stream.await.map(drop))? {
            tracing::info!(group = self.group, stream = name, "created");
        }
        Ok(())
    }

    /// Sets how long lines are kept. Logs without it are better than no logs.
    async fn retain(&self) {
        if self.retention_days == 0 {
            return;
        }
        let allowed = RETENTION_DAYS
            .iter()
            .find(|days| days.unsigned_abs() >= self.retention_days);
        let days = allowed.copied().unwrap_or(RETENTION_DAYS_MAX);
        let set = self.caller.logs("PutRetentionPolicy", async |logs| {
            let call = logs.put_retention_policy().log_group_name(&self.group);
            call.retention_in_days(days).send().await
        });
        match set.await {
            Ok(_) => tracing::info!(group = self.group, days, "its lines are kept that long"),
            Err(error) => {
                tracing::warn!(%error, "the log group keeps its lines for ever");
            }
        }
    }
}

impl LogSink for CloudWatch {
    fn limits(&self) -> BatchLimits {
        LIMITS
    }

    async fn put(
        &self,
        stream: Stream,
        appliance: &str,
        events: &[LogEvent],
    ) -> Result<Acknowledged, CloudError> {
        let name = Self::stream_name(stream, appliance);
        match self.send(&name, events).await {
            Err(error) if error.kind == CloudErrorKind::Missing => {
                self.create(&name).await?;
                self.send(&name, events).await
            }
            other => other,
        }
    }
}

/// An event as the service takes it. `build` asks for a time and a message, and both are set.
fn input(event: &LogEvent) -> Option<InputLogEvent> {
    let timestamp = i64::try_from(event.unix_ms).unwrap_or(i64::MAX);
    let event = InputLogEvent::builder()
        .timestamp(timestamp)
        .message(&event.message);
    event.build().ok()
}

/// Whether what was created was not there before.
fn is_new(created: Result<(), CloudError>) -> Result<bool, CloudError> {
    match created {
        Ok(()) => Ok(true),
        Err(error) if error.detail.starts_with("ResourceAlreadyExistsException") => Ok(false),
        Err(error) => Err(error),
    }
}

/// How many of `count` events the service will not keep: those after the first that is too new,
/// and those before the last that is too old or expired.
fn rejected_of(info: &RejectedLogEventsInfo, count: usize) -> usize {
    let index = |index: Option<i32>| index.and_then(|index| usize::try_from(index).ok());
    let too_new = index(info.too_new_log_event_start_index());
    let too_new = too_new.map_or(0, |first| count.saturating_sub(first));
    let too_old = index(info.too_old_log_event_end_index()).unwrap_or_default();
    let expired = index(info.expired_log_event_end_index()).unwrap_or_default();
    too_new.saturating_add(too_old.max(expired)).min(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_events_are_counted_from_both_ends() {
        let info = RejectedLogEventsInfo::builder()
            .too_new_log_event_start_index(8)
            .too_old_log_event_end_index(3)
            .expired_log_event_end_index(2)
            .build();
        assert_eq!(rejected_of(&info, 10), 5);
        assert_eq!(
            rejected_of(&RejectedLogEventsInfo::builder().build(), 10),
            0
        );
    }

    #[test]
    fn an_appliance_with_a_colon_still_has_a_stream() {
        assert_eq!(CloudWatch::stream_name(Stream::Flow, "a:b"), "flow/a_b");
    }
}
