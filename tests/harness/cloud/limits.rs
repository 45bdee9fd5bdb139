//! What EC2 and CloudWatch Logs refuse and moto does not.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;

use super::fault::{ec2_error, logs_error};
use super::http::Message;

/// Requests an account may make of one API at once, and how fast it may make more: the documented default of EC2's
/// describe actions.
const BUCKET: f64 = 100.0;
const REFILL_PER_SECOND: f64 = 20.0;

/// One bucket of tokens for each API.
#[derive(Debug, Default)]
pub(super) struct Buckets(Mutex<HashMap<String, (f64, Instant)>>);

impl Buckets {
    /// Takes a token, if there is one.
    pub(super) fn take(&self, action: &str) -> bool {
        let now = Instant::now();
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = buckets.entry(action.to_owned()).or_insert((BUCKET, now));
        *tokens =
            (*tokens + now.duration_since(*since).as_secs_f64() * REFILL_PER_SECOND).min(BUCKET);
        *since = now;
        let has = *tokens >= 1.0;
        if has {
            *tokens -= 1.0;
        }
        has
    }
}

/// Refuses what EC2 refuses: page sizes, filters and descriptions outside their limits.
pub(super) fn ec2(form: &[(String, String)]) -> Option<Message> {
    for (key, value) in form {
        if key == "MaxResults"
            && !value
                .parse()
                .is_ok_and(|size: u32| (5..=1_000).contains(&size))
        {
            let message = format!("Value ( {value} ) for parameter maxResults is invalid");
            return Some(ec2_error(400, "InvalidParameterValue", &message));
        }
        if key.ends_with(".Description") && !is_description(value) {
            let message = "Invalid rule description. Valid descriptions are strings less than 256 characters from \
                           the following set:  a-zA-Z0-9. _-:/()#,@[]+=&amp;;{}!$*";
            return Some(ec2_error(400, "InvalidParameterValue", message));
        }
    }
    let mut values: HashMap<&str, usize> = HashMap::new();
    for (key, _) in form.iter().filter(|(key, _)| key.starts_with("Filter.")) {
        *values
            .entry(key.split(".Value").next().unwrap_or_default())
            .or_default() += 1;
    }
    let too_many = values.values().any(|count| *count > 200);
    too_many.then(|| {
        ec2_error(
            400,
            "FilterLimitExceeded",
            "The maximum length for a filter is 200",
        )
    })
}

/// Whether EC2 takes this as the description of a rule.
pub(super) fn is_description(text: &str) -> bool {
    text.chars().count() <= 255
        && text.chars().all(|character| {
            character.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(character)
        })
}

/// Refuses what PutLogEvents refuses.
pub(super) fn put_log_events(body: &[u8]) -> Option<Message> {
    let refuse = |message: &str| Some(logs_error(400, "InvalidParameterException", message));
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return Some(logs_error(400, "SerializationException", "not JSON"));
    };
    let Some(events) = request["logEvents"]
        .as_array()
        .filter(|events| !events.is_empty())
    else {
        return refuse("Log events must have length greater than or equal to 1");
    };
    if events.len() > 10_000 {
        return refuse("Log events must have length less than or equal to 10000");
    }
    let sizes = events
        .iter()
        .map(|event| event["message"].as_str().unwrap_or_default().len());
    if sizes.clone().any(|size| size == 0 || size + 26 > 262_144) {
        return refuse("Log event too large or empty");
    }
    if sizes.map(|size| size + 26).sum::<usize>() > 1_048_576 {
        return refuse("Upload too large: the batch exceeds 1048576 bytes");
    }
    let times: Vec<i64> = events
        .iter()
        .filter_map(|event| event["timestamp"].as_i64())
        .collect();
    if times.len() != events.len() || !times.is_sorted() {
        return refuse(
            "Log events in a single PutLogEvents request must be in chronological order.",
        );
    }
    if times[times.len() - 1] - times[0] > 24 * 3_600 * 1_000 {
        return refuse(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
        );
    }
    None
}

/// moto names the last event that is too old; the service the first that is not (API reference,
/// `RejectedLogEventsInfo`: "This field is exclusive").
pub(super) fn rejected_as_the_service_counts(body: &[u8]) -> serde_json::Result<Vec<u8>> {
    let mut answer: Value = serde_json::from_slice(body)?;
    let end = &mut answer["rejectedLogEventsInfo"]["tooOldLogEventEndIndex"];
    if let Some(last) = end.as_u64() {
        *end = (last + 1).into();
        return serde_json::to_vec(&answer);
    }
    Ok(body.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_taken_and_refused_as_ec2_does() {
        assert!(is_description(
            "postern:tls:*.example.org,api.example.com # why"
        ));
        assert!(is_description(&"*".repeat(255)));
        assert!(!is_description(&"*".repeat(256)));
        assert!(!is_description("a\"b"));
        assert!(!is_description("ü"));
    }

    #[test]
    fn a_bucket_is_empty_after_a_hundred_requests() {
        let buckets = Buckets::default();
        let taken = (0..200).filter(|_| buckets.take("DescribeVpcs")).count();
        assert!((100..=105).contains(&taken), "{taken}");
        assert!(buckets.take("DescribeSecurityGroupRules"));
    }

    #[test]
    fn a_batch_over_a_limit_is_refused() {
        let batch = |events: Value| {
            let body = serde_json::json!({ "logEvents": events }).to_string();
            put_log_events(body.as_bytes()).is_none()
        };
        let event = |time: i64, size: usize| serde_json::json!({"timestamp": time, "message": "x".repeat(size)});
        assert!(batch(vec![event(1, 1); 10_000].into()));
        assert!(!batch(vec![event(1, 1); 10_001].into()));
        assert!(!batch(vec![event(2, 1), event(1, 1)].into()));
        assert!(!batch(vec![event(0, 1), event(86_400_001, 1)].into()));
        assert!(!batch(vec![event(1, 262_119)].into()));
        assert!(!batch(vec![event(1, 200_000); 6].into()));
        assert!(!batch(Vec::<Value>::new().into()));
    }
}
