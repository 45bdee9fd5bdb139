//! What an error of a service means to us.

use std::error::Error;
use std::fmt;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};
use serde_json::Value;

use super::xml;
use crate::cloud::{CloudError, CloudErrorKind};

/// What a service answered instead of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceError {
    meta: ErrorMetadata,
}

impl ServiceError {
    /// Reads the body of an error, in XML or in JSON.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut meta = ErrorMetadata::builder();
        if let Some((code, message)) = in_json(body).or_else(|| in_xml(body)) {
            meta = meta.code(code);
            if !message.is_empty() {
                meta = meta.message(message);
            }
        }
        Self { meta: meta.build() }
    }
}

impl ProvideErrorMetadata for ServiceError {
    fn meta(&self) -> &ErrorMetadata {
        &self.meta
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
        self.meta.fmt(f)
    }
}

impl Error for ServiceError {}

/// Says which call failed, and what that means.
pub(super) fn classify<E>(call: &str, error: &SdkError<E, HttpResponse>) -> CloudError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let service = error.as_service_error();
    let code = service.and_then(|error| error.code()).unwrap_or_default();
    let message = service
        .and_then(|error| error.message())
        .unwrap_or_default();
    let status = error
        .raw_response()
        .map(|response| response.status().as_u16());
    let status = status.unwrap_or_default();
    let kind = match error {
        SdkError::ServiceError(_) => kind(code, status),
        SdkError::ResponseError(_) => CloudErrorKind::Incomplete,
        SdkError::ConstructionFailure(_) => CloudErrorKind::Refused,
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | _ => CloudErrorKind::Unavailable,
    };
    let detail = match (code, message, service) {
        ("", _, Some(_)) if status >= 300 => format!("status {status}"),
        ("", _, _) => DisplayErrorContext(error).to_string(),
        (code, "", _) => code.to_owned(),
        (code, message, _) => format!("{code}: {message}"),
    };
    CloudError {
        call: call.to_owned(),
        kind,
        detail: short(&detail),
    }
}

/// The beginning of a long story.
pub(super) fn short(text: &str) -> String {
    text.chars().take(400).collect()
}

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
fn kind(code: &str, status: u16) -> CloudErrorKind {
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
        // A good status with a body that could not be read.
        _ if (200..300).contains(&status) => CloudErrorKind::Incomplete,
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
        assert_eq!(kind("", 200), CloudErrorKind::Incomplete);
        assert_eq!(kind("RequestExpired", 400), CloudErrorKind::Credentials);
        assert_eq!(kind("InvalidGroup.NotFound", 400), CloudErrorKind::Missing);
        assert_eq!(
            kind("InvalidParameterException", 400),
            CloudErrorKind::Refused
        );
    }

    #[test]
    fn errors_are_read_as_each_service_writes_them() {
        let said = |body: &[u8]| {
            let ServiceError { meta } = ServiceError::read(body);
            (
                meta.code().map(ToOwned::to_owned),
                meta.message().map(ToOwned::to_owned),
            )
        };
        let pair = |code: &str, message: &str| (Some(code.to_owned()), Some(message.to_owned()));
        let scaling = b"<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error>\
            <Type>Sender</Type><Code>ValidationError</Code><Message>no</Message></Error></ErrorResponse>";
        assert_eq!(said(scaling), pair("ValidationError", "no"));
        let json = br#"{"__type":"com.amazonaws#ThrottlingException","Message":"slow"}"#;
        assert_eq!(said(json), pair("ThrottlingException", "slow"));
        assert_eq!(said(b"<html><h1>503</h1></html>"), (None, None));
    }
}
