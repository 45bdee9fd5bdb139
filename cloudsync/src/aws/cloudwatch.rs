//! CloudWatch Logs: batches into streams of one group, all created where absent.

use std::time::Duration;

use ipc::record::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::Caller;
use super::error::incomplete;
use super::service::LOGS;
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
const RETENTION_DAYS: [u32; 23] = [
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
    3_653,
    u32::MAX,
];

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

/// A batch, as the service reads it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PutLogEvents<'a> {
    log_group_name: &'a str,
    log_stream_name: &'a str,
    log_events: Vec<InputLogEvent<'a>>,
}

#[derive(Serialize)]
struct InputLogEvent<'a> {
    timestamp: u64,
    message: &'a str,
}

/// What the service says about a batch it took.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    rejected_log_events_info: Option<Rejected>,
}

/// Which events of a batch the service will not keep.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rejected {
    too_new_log_event_start_index: Option<usize>,
    too_old_log_event_end_index: Option<usize>,
    expired_log_event_end_index: Option<usize>,
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
        const CALL: &str = "PutLogEvents";
        let log_events = events.iter().map(|event| InputLogEvent {
            timestamp: event.unix_ms,
            message: &event.message,
        });
        let request = PutLogEvents {
            log_group_name: &self.group,
            log_stream_name: name,
            log_events: log_events.collect(),
        };
        let request = serde_json::to_vec(&request).unwrap_or_default();
        let answer = self.caller.json_bytes(LOGS, CALL, None, request).await?;
        let answer: Answer = match answer.bytes.as_slice() {
            [] => Answer::default(),
            body => {
                serde_json::from_slice(body).map_err(|_| incomplete(CALL, 1, "whole document"))?
            }
        };
        let rejected = answer.rejected_log_events_info;
        Ok(Acknowledged {
            rejected: rejected.map_or(0, |info| rejected_of(&info, events.len())),
        })
    }

    /// Creates the group, unless it is somebody else's, and the stream; either may be there already. Only a group that we made gets the
    /// retention we were told: one that was there has its owner's.
    async fn create(&self, name: &str) -> Result<(), CloudError> {
        let group = json!({ "logGroupName": self.group });
        if !self.managed && self.created("CreateLogGroup", &group).await? {
            tracing::info!(group = self.group, "created");
            self.retain().await;
        }
        let stream = json!({ "logGroupName": self.group, "logStreamName": name });
        if self.created("CreateLogStream", &stream).await? {
            tracing::info!(group = self.group, stream = name, "created");
        }
        Ok(())
    }

    /// Creates something; says whether it was not there before.
    async fn created(&self, action: &str, request: &Value) -> Result<bool, CloudError> {
        match self.caller.json(LOGS, action, None, request).await {
            Ok(_) => Ok(true),
            Err(error) if error.detail.starts_with("ResourceAlreadyExistsException") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sets how long lines are kept. Logs without it are better than no logs.
    async fn retain(&self) {
        if self.retention_days == 0 {
            return;
        }
        let allowed = RETENTION_DAYS
            .iter()
            .find(|days| **days >= self.retention_days);
        let days = allowed
            .copied()
            .filter(|days| *days != u32::MAX)
            .unwrap_or(3_653);
        let request = json!({ "logGroupName": self.group, "retentionInDays": days });
        let set = self.caller.json(LOGS, "PutRetentionPolicy", None, &request);
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

/// How many of `count` events the service will not keep: those after the first that is too new,
/// and those before the last that is too old or expired.
fn rejected_of(info: &Rejected, count: usize) -> usize {
    let too_new = info
        .too_new_log_event_start_index
        .map_or(0, |first| count.saturating_sub(first));
    let too_old = info.too_old_log_event_end_index.unwrap_or_default();
    let expired = info.expired_log_event_end_index.unwrap_or_default();
    too_new.saturating_add(too_old.max(expired)).min(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_events_are_counted_from_both_ends() {
        let info = serde_json::from_str(
            r#"{"tooNewLogEventStartIndex":8,"tooOldLogEventEndIndex":3,"expiredLogEventEndIndex":2}"#,
        );
        assert_eq!(rejected_of(&info.unwrap(), 10), 5);
        assert_eq!(rejected_of(&Rejected::default(), 10), 0);
    }

    #[test]
    fn an_appliance_with_a_colon_still_has_a_stream() {
        assert_eq!(CloudWatch::stream_name(Stream::Flow, "a:b"), "flow/a_b");
    }
}
