//! Cloud Logging: one log for each stream, every line an entry of the instance.
//!
//! Limits: <https://cloud.google.com/logging/quotas>. An entry is known by its log, its time and its
//! `insert_id`, and kept once however often it is sent, so a batch whose fate is unknown is sent
//! again without harm.

use std::time::Duration;

use google_cloud_api::model::MonitoredResource;
use google_cloud_gax::error::Error;
use google_cloud_gax::error::rpc::{Code, StatusDetails};
use google_cloud_gax::options::RequestOptionsBuilder as _;
use google_cloud_logging::client::LoggingServiceV2;
use google_cloud_logging::model::{LogEntry, WriteLogEntriesPartialErrors};
use google_cloud_wkt::Timestamp;
use ipc::record::Stream;
use serde_json::{Map, Value};

use super::error::call;
use super::metadata::{Metadata, Own};
use super::unusable;
use crate::cloud::{Acknowledged, BatchLimits, CloudError, CloudErrorKind, LogEvent, LogSink};
use crate::config::Config;

const CALL: &str = "entries.write";

/// Well under 10 MB and 256 KB: what the service counts is its own form of an entry, not ours.
const LIMITS: BatchLimits = BatchLimits {
    events: 10_000,
    bytes: 8 << 20,
    event_overhead: 256,
    event_bytes: 240 << 10,
    // The service sets none.
    span: Duration::from_secs(366 * 24 * 3_600),
};

/// The logs of one instance.
#[derive(Debug, Clone)]
pub(crate) struct CloudLogging {
    client: LoggingServiceV2,
    /// `projects/P/logs/postern`, to which the stream is added.
    prefix: String,
    /// The instance's number, which tells its lines from those of other appliances.
    instance: String,
    resource: MonitoredResource,
}

impl CloudLogging {
    /// The logs of the instance this runs on.
    ///
    /// # Errors
    ///
    /// When it runs on none: an entry needs a machine that it is about.
    pub(crate) async fn new(config: &Config) -> Result<Self, CloudError> {
        let own = Metadata::new().own().await.ok_or_else(|| CloudError {
            call: "finding the instance to log for".to_owned(),
            kind: CloudErrorKind::Missing,
            detail: "there is no instance metadata: say `ship = false` in [logs]".to_owned(),
        })?;
        let mut builder = LoggingServiceV2::builder();
        if let Some(url) = &config.gcp.endpoint_url {
            builder = builder.with_endpoint(url);
        }
        Ok(Self {
            client: builder.build().await.map_err(unusable)?,
            prefix: format!("projects/{}/logs/{}", own.project, config.logs.group),
            resource: resource(&own),
            instance: own.id,
        })
    }
}

impl CloudLogging {
    /// Asks whether an entry would be taken, without writing it.
    pub(super) async fn try_out(&self) -> Result<(), CloudError> {
        let entry = LogEntry::new().set_text_payload("preflight");
        let request = self
            .client
            .write_log_entries()
            .set_log_name(format!("{}-{}", self.prefix, Stream::Config))
            .set_resource(self.resource.clone())
            .set_dry_run(true)
            .set_entries([entry]);
        call(CALL, 1, request.send()).await.map(drop)
    }
}

/// <https://cloud.google.com/monitoring/api/resources#tag_gce_instance>
fn resource(own: &Own) -> MonitoredResource {
    MonitoredResource::new()
        .set_type("gce_instance")
        .set_labels([
            ("project_id", own.project.clone()),
            ("instance_id", own.id.clone()),
            ("zone", own.zone.clone()),
        ])
}

/// One line as an entry; a line that is no object stays text.
fn entry(stream: Stream, instance: &str, event: &LogEvent) -> LogEntry {
    let seconds = event.unix_ms / 1_000;
    let nanos = i32::try_from(event.unix_ms % 1_000).unwrap_or_default() * 1_000_000;
    let entry = LogEntry::new()
        .set_timestamp(Timestamp::clamp(
            i64::try_from(seconds).unwrap_or(i64::MAX),
            nanos,
        ))
        .set_insert_id(format!("{instance}-{}", event.place));
    match serde_json::from_str::<Map<String, Value>>(&event.message) {
        Ok(payload) => entry
            .set_severity(severity(stream, &payload))
            .set_json_payload(payload),
        Err(_) => entry.set_text_payload(&event.message),
    }
}

/// What an operator should look at: refusals before changes, changes before the rest.
fn severity(stream: Stream, line: &Map<String, Value>) -> &'static str {
    let word = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
    match (stream, word("cat"), word("outcome")) {
        (Stream::Config, "fault", _) => "ERROR",
        (Stream::Config, "status", _) => "INFO",
        (Stream::Config, _, _) => "NOTICE",
        (Stream::Flow | Stream::End | Stream::Dns, _, "disallowed") => "WARNING",
        (Stream::Flow | Stream::End | Stream::Dns, _, _) if line.contains_key("would_reason") => {
            "NOTICE"
        }
        (Stream::Flow | Stream::End | Stream::Dns, _, _) => "INFO",
    }
}

/// Which entries were not written, when all others were.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's list, which grows; only one of them is asked for"
)]
fn partial(error: &Error) -> Option<WriteLogEntriesPartialErrors> {
    error
        .status()?
        .details
        .iter()
        .find_map(|detail| match detail {
            StatusDetails::Other(any) => any.to_msg::<WriteLogEntriesPartialErrors>().ok(),
            _ => None,
        })
}

/// What a partial failure comes to: entries that will never be taken are counted; for anything
/// that may pass the whole batch is sent again, which does the written ones no harm.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's list, which grows; what is new is trouble of the service"
)]
fn settle(errors: &WriteLogEntriesPartialErrors) -> Result<Acknowledged, CloudError> {
    let is_final = |code: i32| code == Code::InvalidArgument as i32;
    let mut errors_left = errors.log_entry_errors.values();
    match errors_left.find(|status| !is_final(status.code)) {
        None => Ok(Acknowledged {
            rejected: errors.log_entry_errors.len(),
        }),
        Some(status) => Err(CloudError {
            call: CALL.to_owned(),
            kind: match Code::from(status.code) {
                Code::PermissionDenied => CloudErrorKind::Denied,
                Code::ResourceExhausted => CloudErrorKind::Throttled,
                _ => CloudErrorKind::Unavailable,
            },
            detail: status.message.clone(),
        }),
    }
}

impl LogSink for CloudLogging {
    fn limits(&self) -> BatchLimits {
        LIMITS
    }

    async fn put(
        &self,
        stream: Stream,
        appliance: &str,
        events: &[LogEvent],
    ) -> Result<Acknowledged, CloudError> {
        let request = self
            .client
            .write_log_entries()
            .set_log_name(format!("{}-{stream}", self.prefix))
            .set_resource(self.resource.clone())
            .set_labels([("appliance", appliance)])
            .set_partial_success(true)
            .set_entries(
                events
                    .iter()
                    .map(|event| entry(stream, &self.instance, event)),
            )
            // Every entry has an id: the library may send the request again by itself.
            .with_idempotency(true);
        let mut settled = None;
        let answer = async {
            let answer = request.send().await;
            if let Err(error) = &answer {
                settled = partial(error).map(|errors| settle(&errors));
            }
            answer
        };
        let answer = call(CALL, 1, answer).await;
        match settled {
            Some(settled) => settled,
            None => answer.map(|_| Acknowledged::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_follows_the_outcome() {
        use Stream::{Config, Flow};
        let cases = [
            (Flow, r#"{"cat":"client","outcome":"allowed"}"#, "INFO"),
            (
                Flow,
                r#"{"cat":"server","outcome":"disallowed"}"#,
                "WARNING",
            ),
            (
                Flow,
                r#"{"cat":"client","outcome":"allowed","would_reason":"ech"}"#,
                "NOTICE",
            ),
            (
                Config,
                r#"{"cat":"fault","outcome":"no such name"}"#,
                "ERROR",
            ),
            (Config, r#"{"cat":"addr","outcome":"accepted"}"#, "NOTICE"),
            (Config, r#"{"cat":"status"}"#, "INFO"),
        ];
        for (stream, line, wanted) in cases {
            let parsed = serde_json::from_str(line).unwrap();
            assert_eq!(severity(stream, &parsed), wanted, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_object_is_sent_as_text() {
        let event = LogEvent {
            unix_ms: 1_700_000_000_123,
            place: "00000001-000000000000".into(),
            message: "{\"cut".into(),
        };
        let entry = entry(Stream::Flow, "7", &event);
        assert_eq!(entry.insert_id, "7-00000001-000000000000");
        assert_eq!(entry.text_payload().unwrap(), "{\"cut");
        assert_eq!(entry.timestamp.unwrap().nanos(), 123_000_000);
    }

    #[test]
    fn only_entries_that_will_never_be_taken_are_given_up() {
        let status = |code: Code| google_cloud_rpc::model::Status::new().set_code(code as i32);
        let errors =
            |code| WriteLogEntriesPartialErrors::new().set_log_entry_errors([(3, status(code))]);
        assert_eq!(settle(&errors(Code::InvalidArgument)).unwrap().rejected, 1);
        let again = settle(&errors(Code::ResourceExhausted)).unwrap_err();
        assert_eq!(again.kind, CloudErrorKind::Throttled);
    }
}
