//! Answers and errors as Google writes them.

use serde_json::{Value, json};

use super::super::http::Message;

/// A good answer.
pub(super) fn ok(body: &Value) -> Message {
    Message::answer(200, "application/json; charset=UTF-8", body.to_string())
}

/// An error in the form of <https://cloud.google.com/apis/design/errors>, with the older list of reasons that Compute
/// Engine still sends beside it.
pub(super) fn error(status: u16, canonical: &str, reason: &str, message: &str) -> Message {
    let body = json!({"error": {
        "code": status,
        "message": message,
        "status": canonical,
        "errors": [{"message": message, "domain": "global", "reason": reason}],
    }});
    Message::answer(status, "application/json; charset=UTF-8", body.to_string())
}

/// A request the service does not understand.
pub(super) fn invalid(message: &str) -> Message {
    error(400, "INVALID_ARGUMENT", "invalid", message)
}

/// Something that is not there.
pub(super) fn missing(what: &str) -> Message {
    let message = format!("The resource '{what}' was not found");
    error(404, "NOT_FOUND", "notFound", &message)
}

/// Fields of an object that the service does not have.
pub(super) fn unknown_field(object: &Value, known: &[&str]) -> Option<Message> {
    let fields = object.as_object().into_iter().flatten();
    let mut unknown = fields.filter(|(name, _)| !known.contains(&name.as_str()));
    unknown.next().map(|(name, _)| {
        invalid(&format!(
            "Invalid JSON payload received. Unknown name \"{name}\": Cannot find field."
        ))
    })
}
