//! What an error of a service means to us.

use std::fmt;

use serde_json::Value;

use super::xml;
use crate::cloud::{CloudError, CloudErrorKind};

/// What a service answered instead of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceError {
    /// Its status.
    pub(super) status: u16,
    /// Its code; empty when it has none.
    pub(super) code: String,
    /// Its words; empty when it has none.
    pub(super) message: String,
}

impl ServiceError {
    /// Reads the body of an error, in XML or in JSON.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let (code, message) = in_json(body).or_else(|| in_xml(body)).unwrap_or_default();
        let message = message.chars().take(400).collect();
        Self {
            status,
            code,
            message,
        }
    }
}

/// `{"__type": "prefix#Code", "message": "…"}`; some services write `Message`.
fn in_json(body: &[u8]) -> Option<(String, String)> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let text = |key: &str| value.get(key)?.as_str();
    let code = text("__type")?.rsplit('#').next()?;
    let message = text("message").or_else(|| text("Message"));
    Some((code.to_owned(), message.unwrap_or_default().to_owned()))
}

/// `<Error><Code>…</Code><Message>…</Message></Error>`, wrapped in one way or another.
fn in_xml(body: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(body).ok()?;
    let document = roxmltree::Document::parse(text).ok()?;
    let error = document
        .descendants()
        .find(|node| node.tag_name().name() == "Error")?;
    let code = xml::text(error, "Code")?;
    Some((
        code.to_owned(),
        xml::text(error, "Message").unwrap_or_default().to_owned(),
    ))
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            ("", _) => write!(f, "status {}", self.status),
            (code, "") => f.write_str(code),
            (code, message) => write!(f, "{code}: {message}"),
        }
    }
}

impl std::error::Error for ServiceError {}

/// The same error, on a page that is not the first.
pub(super) fn on_page(mut error: CloudError, page: u32) -> CloudError {
    error.call = place(&error.call, page);
    error
}

/// An answer that lacks what every answer has.
pub(super) fn incomplete(call: &str, page: u32, what: &str) -> CloudError {
    CloudError {
        call: place(call, page),
        kind: CloudErrorKind::Incomplete,
        detail: format!("no {what} in it"),
    }
}

fn place(call: &str, page: u32) -> String {
    if page > 1 {
        format!("{call}, page {page}")
    } else {
        call.to_owned()
    }
}

/// What a service's code and the status it came with mean.
pub(super) fn kind(code: &str, status: u16) -> CloudErrorKind {
    match code {
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "TooManyRequestsException"
        | "SlowDown"
        | "LimitExceededException" => CloudErrorKind::Throttled,
        "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken" => CloudErrorKind::Credentials,
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => {
            CloudErrorKind::Denied
        }
        "ResourceNotFoundException" | "ParameterNotFound" | "ParameterVersionNotFound" => {
            CloudErrorKind::Missing
        }
        _ if code.ends_with(".NotFound") => CloudErrorKind::Missing,
        _ if status >= 500 => CloudErrorKind::Unavailable,
        _ => CloudErrorKind::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_statuses_are_told_apart() {
        assert_eq!(kind("RequestLimitExceeded", 503), CloudErrorKind::Throttled);
        assert_eq!(kind("InternalError", 500), CloudErrorKind::Unavailable);
        assert_eq!(kind("", 502), CloudErrorKind::Unavailable);
        assert_eq!(kind("RequestExpired", 400), CloudErrorKind::Credentials);
        assert_eq!(kind("InvalidGroup.NotFound", 400), CloudErrorKind::Missing);
        assert_eq!(
            kind("InvalidParameterException", 400),
            CloudErrorKind::Refused
        );
    }

    #[test]
    fn errors_are_read_as_each_service_writes_them() {
        let ec2 = b"<?xml version=\"1.0\"?><Response><Errors><Error><Code>AuthFailure</Code>\
            <Message>no</Message></Error></Errors><RequestID>1</RequestID></Response>";
        assert_eq!(ServiceError::read(401, ec2).to_string(), "AuthFailure: no");
        let scaling = b"<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error>\
            <Type>Sender</Type><Code>ValidationError</Code><Message>no</Message></Error></ErrorResponse>";
        assert_eq!(ServiceError::read(400, scaling).code, "ValidationError");
        let json = br#"{"__type":"com.amazonaws#ThrottlingException","Message":"slow"}"#;
        assert_eq!(
            ServiceError::read(400, json).to_string(),
            "ThrottlingException: slow"
        );
        let nothing = ServiceError::read(503, b"<html><h1>503</h1></html>");
        assert_eq!(nothing.to_string(), "status 503");
    }
}
