//! Ways in which the service can fail, on request.

use std::fmt;

use super::http::Message;

/// How an answer is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// Status 500 and a code that says nothing.
    ServerError,
    /// Status 503, as when a load balancer in front has nobody to ask.
    Unavailable,
    /// `RequestLimitExceeded` or `ThrottlingException`.
    Throttled,
    /// Credentials that have expired.
    Expired,
    /// The first half of the bytes, then the end of the connection.
    Cut,
    /// The first half of the body, with a length that agrees.
    Half,
    /// A well-formed answer without the list that every answer has.
    NoList,
    /// Carried out, and then the connection ends before the answer.
    LostAnswer,
}

/// Which answers are broken, how, and how many of them.
#[derive(Clone)]
pub struct Fault {
    /// The action, such as `DescribeSecurityGroupRules`; `*` for every one.
    pub action: &'static str,
    /// From which page of the answer on, counted from 1.
    pub from_page: u32,
    /// How.
    pub how: Break,
    /// How many times; `None` until cleared.
    pub times: Option<u32>,
}

impl Fault {
    /// Breaks every answer to `action` until cleared.
    pub fn lasting(action: &'static str, how: Break) -> Self {
        Self {
            action,
            from_page: 1,
            how,
            times: None,
        }
    }

    /// Whether it breaks this page of this action.
    pub(super) fn applies(&self, action: &str, page: u32) -> bool {
        (self.action == "*" || self.action == action)
            && page >= self.from_page
            && self.times != Some(0)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?} from page {}",
            self.action, self.how, self.from_page
        )
    }
}

/// An error as EC2 writes it.
pub(super) fn ec2_error(status: u16, code: &str, message: &str) -> Message {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>\
         <Message>{message}</Message></Error></Errors><RequestID>double</RequestID></Response>"
    );
    Message::answer(status, "text/xml;charset=UTF-8", body)
}

/// An error as CloudWatch Logs writes it.
pub(super) fn logs_error(status: u16, code: &str, message: &str) -> Message {
    let body = serde_json::json!({ "__type": code, "message": message });
    Message::answer(status, "application/x-amz-json-1.1", body.to_string())
}

/// An error in the words of either service.
pub(super) fn error(is_logs: bool, how: Break) -> Option<Message> {
    let say = |status, ec2: &str, logs: &str, message: &str| {
        Some(if is_logs {
            logs_error(status, logs, message)
        } else {
            ec2_error(status, ec2, message)
        })
    };
    match how {
        Break::ServerError => say(
            500,
            "InternalError",
            "InternalFailure",
            "An internal error has occurred",
        ),
        Break::Unavailable => Some(Message::answer(
            503,
            "text/html",
            "<html><h1>503</h1></html>",
        )),
        Break::Throttled => {
            let status = if is_logs { 400 } else { 503 };
            say(
                status,
                "RequestLimitExceeded",
                "ThrottlingException",
                "Rate exceeded",
            )
        }
        Break::Expired => say(
            400,
            "RequestExpired",
            "ExpiredTokenException",
            "The security token has expired",
        ),
        Break::Cut | Break::Half | Break::NoList | Break::LostAnswer => None,
    }
}
