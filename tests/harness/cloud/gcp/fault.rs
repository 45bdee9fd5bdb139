//! Ways in which Google's services can fail, on request.

use super::super::http::Message;
use super::answer::error;

/// How an answer is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoogleBreak {
    /// Status 500.
    ServerError,
    /// Status 503 with the web server's own page.
    Unavailable,
    /// Compute Engine's 403 `rateLimitExceeded`; everybody else's 429.
    Throttled,
    /// Status 401.
    Unauthenticated,
    /// The first half of the bytes, then the end of the connection.
    Cut,
    /// The first half of the body, with a length that agrees.
    Half,
    /// A well-formed object with nothing of the answer in it.
    Empty,
    /// The whole list comes with a warning that something is missing.
    Warning,
    /// This zone of an aggregated list comes with a warning and nothing else.
    Unreachable(&'static str),
    /// Carried out, and then the connection ends before the answer.
    LostAnswer,
}

/// Which answers are broken, how, and how many of them.
#[derive(Debug, Clone)]
pub struct GoogleFault {
    /// The method, such as `firewalls.list`; `*` for every one.
    pub method: &'static str,
    /// From which page of the answer on, counted from 1.
    pub from_page: u32,
    /// How.
    pub how: GoogleBreak,
    /// How many times; `None` until cleared.
    pub times: Option<u32>,
}

impl GoogleFault {
    /// Breaks every answer of a method until cleared.
    pub fn lasting(method: &'static str, how: GoogleBreak) -> Self {
        Self {
            method,
            from_page: 1,
            how,
            times: None,
        }
    }

    /// Whether it breaks this page of this method.
    pub(super) fn applies(&self, method: &str, page: u32) -> bool {
        (self.method == "*" || self.method == method)
            && page >= self.from_page
            && self.times != Some(0)
    }
}

/// What the service says instead of an answer.
pub(super) fn instead(method: &str, how: GoogleBreak) -> Option<Message> {
    Some(match how {
        GoogleBreak::ServerError => error(500, "INTERNAL", "backendError", "Internal error."),
        GoogleBreak::Unavailable => {
            Message::answer(503, "text/html", "<html><title>503</title></html>")
        }
        GoogleBreak::Throttled => throttled(method),
        GoogleBreak::Unauthenticated => unauthenticated(),
        GoogleBreak::Empty => Message::answer(200, "application/json", "{}"),
        GoogleBreak::Cut
        | GoogleBreak::Half
        | GoogleBreak::Warning
        | GoogleBreak::Unreachable(_)
        | GoogleBreak::LostAnswer => return None,
    })
}

/// Over the quota. Compute Engine says it with a 403 (<https://cloud.google.com/compute/api-quota>).
pub(super) fn throttled(method: &str) -> Message {
    let message = "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'.";
    if method.starts_with("entries.") || method.starts_with("secrets.") {
        error(429, "RESOURCE_EXHAUSTED", "rateLimitExceeded", message)
    } else {
        error(403, "PERMISSION_DENIED", "rateLimitExceeded", message)
    }
}

/// No token, or one that has expired.
pub(super) fn unauthenticated() -> Message {
    error(
        401,
        "UNAUTHENTICATED",
        "authError",
        "Request had invalid authentication credentials.",
    )
}
