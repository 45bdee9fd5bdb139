//! What an error of Google's client libraries means to us.

use std::time::Duration;

use google_cloud_gax::error::Error;
use google_cloud_gax::error::rpc::Code;

use crate::cloud::{CloudError, CloudErrorKind};

/// How long one call may take, tries included. The libraries set no limit of their own.
const CALL_TIME: Duration = Duration::from_secs(30);

/// Waits for one call, and says which call failed, on which page, and what that means.
pub(super) async fn call<T>(
    name: &str,
    page: u32,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, CloudError> {
    match tokio::time::timeout(CALL_TIME, answer).await {
        Ok(answer) => answer.map_err(|error| classify(name, page, &error)),
        Err(_) => Err(CloudError {
            call: place(name, page),
            kind: CloudErrorKind::Unavailable,
            detail: format!("no answer within {} s", CALL_TIME.as_secs()),
        }),
    }
}

/// An answer that lacks what every answer has.
pub(super) fn incomplete(name: &str, page: u32, what: &str) -> CloudError {
    CloudError {
        call: place(name, page),
        kind: CloudErrorKind::Incomplete,
        detail: format!("no {what} in it"),
    }
}

fn place(name: &str, page: u32) -> String {
    if page > 1 {
        format!("{name}, page {page}")
    } else {
        name.to_owned()
    }
}

fn classify(name: &str, page: u32, error: &Error) -> CloudError {
    let message = error.status().map(|status| status.message.clone());
    let payload = error
        .http_payload()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let mut detail = message.unwrap_or_else(|| chain(error));
    detail.truncate(detail.floor_char_boundary(400));
    let said = format!(
        "{detail} {:?} {}",
        error.status().map(|status| &status.details),
        payload.unwrap_or_default()
    );
    CloudError {
        call: place(name, page),
        kind: kind(error, &said),
        detail,
    }
}

/// An error and what caused it.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn kind(error: &Error, said: &str) -> CloudErrorKind {
    if error.is_authentication() {
        return CloudErrorKind::Credentials;
    }
    if error.is_deserialization() {
        return CloudErrorKind::Incomplete;
    }
    if error.is_serialization() || error.is_binding() {
        return CloudErrorKind::Refused;
    }
    let status = error.http_status_code().unwrap_or_default();
    match error.status().map(|status| status.code) {
        Some(code) => of_code(code, status, said),
        None => of_status(status, said),
    }
}

/// What a canonical code means, where the service sent one.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's list, which grows; what is new is trouble of the service"
)]
fn of_code(code: Code, status: u16, said: &str) -> CloudErrorKind {
    match code {
        Code::ResourceExhausted => CloudErrorKind::Throttled,
        Code::Unauthenticated => CloudErrorKind::Credentials,
        Code::PermissionDenied => of_status(403, said),
        Code::NotFound => CloudErrorKind::Missing,
        Code::Unavailable
        | Code::Internal
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Aborted => CloudErrorKind::Unavailable,
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::AlreadyExists
        | Code::Unimplemented => CloudErrorKind::Refused,
        _ => of_status(status, said),
    }
}

/// What a status means. Compute Engine says that a rate is exceeded with a 403
/// (<https://cloud.google.com/compute/api-quota>: "a 403 error with the reason rateLimitExceeded").
fn of_status(status: u16, said: &str) -> CloudErrorKind {
    const RATE: [&str; 3] = ["rateLimitExceeded", "RATE_LIMIT_EXCEEDED", "quotaExceeded"];
    match status {
        403 | 429 if RATE.iter().any(|word| said.contains(word)) => CloudErrorKind::Throttled,
        429 => CloudErrorKind::Throttled,
        401 => CloudErrorKind::Credentials,
        403 => CloudErrorKind::Denied,
        404 => CloudErrorKind::Missing,
        // A good status with a body that is not what it should be.
        200..=299 => CloudErrorKind::Incomplete,
        400..=499 => CloudErrorKind::Refused,
        _ => CloudErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_is_exceeded_is_not_a_missing_permission() {
        let limited = r#"{"errors":[{"reason":"rateLimitExceeded"}]}"#;
        assert_eq!(of_status(403, limited), CloudErrorKind::Throttled);
        assert_eq!(
            of_code(Code::PermissionDenied, 403, limited),
            CloudErrorKind::Throttled
        );
        assert_eq!(
            of_status(403, "Required permission"),
            CloudErrorKind::Denied
        );
        assert_eq!(of_status(429, ""), CloudErrorKind::Throttled);
    }

    #[test]
    fn trouble_of_the_service_is_told_from_a_request_it_does_not_like() {
        assert_eq!(of_status(503, ""), CloudErrorKind::Unavailable);
        assert_eq!(of_status(0, ""), CloudErrorKind::Unavailable);
        assert_eq!(of_status(401, ""), CloudErrorKind::Credentials);
        assert_eq!(of_status(413, ""), CloudErrorKind::Refused);
        assert_eq!(of_status(404, ""), CloudErrorKind::Missing);
        assert_eq!(of_status(200, ""), CloudErrorKind::Incomplete);
    }
}
