//! CloudWatch Logs: batches into streams of one group, all created where absent.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::types::{InputLogEvent, RejectedLogEventsInfo};
use ipc::record::Stream;

use super::error::classify;
use crate::cloud::{Acknowledged, BatchLimits, CloudError, CloudErrorKind, LogEvent, LogSink};
use crate::config::Logs;

/// The limits of PutLogEvents.
const LIMITS: BatchLimits = BatchLimits {
    events: 10_000,
    bytes: 1_048_576,
    event_overhead: 26,
    event_bytes: 262_144,
    span: Duration::from_secs(24 * 3_600),
};

/// One log group.
#[derive(Debug, Clone)]
pub(crate) struct CloudWatch {
    client: Client,
    group: String,
    /// Whether somebody else creates group and streams.
    managed: bool,
}

impl CloudWatch {
    /// A sink for this group.
    pub(crate) fn new(sdk: &SdkConfig, logs: &Logs) -> Self {
        Self {
            client: Client::new(sdk),
            group: logs.group.clone(),
            managed: logs.group_managed,
        }
    }

    /// The stream's name. The service allows neither `:` nor `*` in it.
    fn stream_name(stream: Stream, appliance: &str) -> String {
        format!("{stream}/{}", appliance.replace([':', '*'], "_"))
    }

    async fn send(&self, name: &str, events: &[LogEvent]) -> Result<Acknowledged, CloudError> {
        let mut input = Vec::with_capacity(events.len());
        for event in events {
            let timestamp = i64::try_from(event.unix_ms).unwrap_or(i64::MAX);
            let built = InputLogEvent::builder()
                .timestamp(timestamp)
                .message(&event.message);
            // Both fields that can be missing are set right here.
            input.extend(built.build().ok());
        }
        let answer = self
            .client
            .put_log_events()
            .log_group_name(&self.group)
            .log_stream_name(name)
            .set_log_events(Some(input))
            .send()
            .await
            .map_err(|error| classify("PutLogEvents", 1, error))?;
        let rejected = answer
            .rejected_log_events_info()
            .map(|info| rejected(info, events.len()));
        Ok(Acknowledged {
            rejected: rejected.unwrap_or_default(),
        })
    }

    /// Creates group and stream; either may be there already.
    async fn create(&self, name: &str) -> Result<(), CloudError> {
        let group = self
            .client
            .create_log_group()
            .log_group_name(&self.group)
            .send()
            .await;
        if let Err(error) = group {
            let there = error
                .as_service_error()
                .is_some_and(|error| error.is_resource_already_exists_exception());
            if !there {
                return Err(classify("CreateLogGroup", 1, error));
            }
        }
        let stream = self
            .client
            .create_log_stream()
            .log_group_name(&self.group)
            .log_stream_name(name)
            .send()
            .await;
        match stream {
            Ok(_) => {
                tracing::info!(group = self.group, stream = name, "created");
                Ok(())
            }
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_resource_already_exists_exception()) =>
            {
                Ok(())
            }
            Err(error) => Err(classify("CreateLogStream", 1, error)),
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
            Err(error) if error.kind == CloudErrorKind::Missing && !self.managed => {
                self.create(&name).await?;
                self.send(&name, events).await
            }
            other => other,
        }
    }
}

/// How many of `count` events the service will not keep: those after the first that is too new,
/// and those before the last that is too old or expired.
fn rejected(info: &RejectedLogEventsInfo, count: usize) -> usize {
    let index = |index: Option<i32>| index.and_then(|index| usize::try_from(index).ok());
    let too_new =
        index(info.too_new_log_event_start_index()).map_or(0, |first| count.saturating_sub(first));
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
        assert_eq!(rejected(&info, 10), 5);
        assert_eq!(rejected(&RejectedLogEventsInfo::builder().build(), 10), 0);
    }

    #[test]
    fn an_appliance_with_a_colon_still_has_a_stream() {
        assert_eq!(CloudWatch::stream_name(Stream::Flow, "a:b"), "flow/a_b");
    }
}
