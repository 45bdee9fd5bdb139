//! What an error of the SDK means to us.

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use crate::cloud::{CloudError, CloudErrorKind};

/// Says which call failed, on which page, and what that means.
pub(super) fn classify<E>(call: &str, page: u32, error: SdkError<E, HttpResponse>) -> CloudError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let code = error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code)
        .unwrap_or_default();
    let message = error
        .as_service_error()
        .and_then(ProvideErrorMetadata::message);
    let status = error
        .raw_response()
        .map(|response| response.status().as_u16());
    let context = DisplayErrorContext(&error).to_string();
    let kind = match &error {
        SdkError::ServiceError(_) => of_code(code, status.unwrap_or_default()),
        SdkError::ResponseError(_) => CloudErrorKind::Incomplete,
        SdkError::ConstructionFailure(_) => CloudErrorKind::Refused,
        // The SDK reports credentials it cannot find as a request it cannot dispatch.
        _ if context.contains("redentials") => CloudErrorKind::Credentials,
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | _ => CloudErrorKind::Unavailable,
    };
    let detail = match (code, message) {
        ("", _) => context.chars().take(400).collect(),
        (code, Some(message)) => format!("{code}: {message}"),
        (code, None) => code.to_owned(),
    };
    let call = if page > 1 {
        format!("{call}, page {page}")
    } else {
        call.to_owned()
    };
    CloudError { call, kind, detail }
}

/// An answer that lacks what every answer has.
pub(super) fn incomplete(call: &str, page: u32, what: &str) -> CloudError {
    let call = if page > 1 {
        format!("{call}, page {page}")
    } else {
        call.to_owned()
    };
    CloudError {
        call,
        kind: CloudErrorKind::Incomplete,
        detail: format!("no {what} in it"),
    }
}

/// What a service's code and the status it came with mean.
fn of_code(code: &str, status: u16) -> CloudErrorKind {
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
        "ResourceNotFoundException" => CloudErrorKind::Missing,
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
        assert_eq!(
            of_code("RequestLimitExceeded", 503),
            CloudErrorKind::Throttled
        );
        assert_eq!(of_code("InternalError", 500), CloudErrorKind::Unavailable);
        assert_eq!(of_code("", 502), CloudErrorKind::Unavailable);
        assert_eq!(of_code("", 200), CloudErrorKind::Incomplete);
        assert_eq!(of_code("RequestExpired", 400), CloudErrorKind::Credentials);
        assert_eq!(
            of_code("InvalidGroup.NotFound", 400),
            CloudErrorKind::Missing
        );
        assert_eq!(
            of_code("InvalidParameterException", 400),
            CloudErrorKind::Refused
        );
    }
}
