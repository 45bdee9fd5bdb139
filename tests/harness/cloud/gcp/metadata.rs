//! The metadata server: who asks without its header gets nothing
//! (<https://cloud.google.com/compute/docs/metadata/querying-metadata>).

use serde_json::json;

use super::super::http::Message;
use super::model::World;

/// How long a token lasts that this server gives out, in seconds, unless told otherwise.
pub(super) const TOKEN_SECONDS: u32 = 3_600;

/// Answers a path under `/computeMetadata/v1/`.
pub(super) fn answer(world: &mut World, request: &Message, path: &str, seconds: u32) -> Message {
    let mut answer = if request.headers.get("metadata-flavor").map(String::as_str) != Some("Google")
    {
        Message::answer(403, "text/html", "Missing Metadata-Flavor:Google header.")
    } else if path == "instance/service-accounts/default/token" {
        world.tokens += 1;
        let token = json!({
            "access_token": token(world.tokens),
            "expires_in": seconds,
            "token_type": "Bearer",
        });
        Message::answer(200, "application/json", token.to_string())
    } else {
        match value(world, path) {
            Some(text) => Message::answer(200, "application/text", text),
            None => Message::answer(404, "text/html", "Not Found"),
        }
    };
    answer
        .headers
        .insert("Metadata-Flavor".to_owned(), "Google".to_owned());
    answer
}

/// One value, or the names in a folder, which ends in a slash.
fn value(world: &World, path: &str) -> Option<String> {
    if !path.ends_with('/') {
        return world.metadata.get(path).cloned();
    }
    let mut names: Vec<String> = world
        .metadata
        .keys()
        .filter_map(|key| key.strip_prefix(path))
        .map(|rest| rest.split_inclusive('/').next().unwrap_or(rest).to_owned())
        .collect();
    names.dedup();
    (!names.is_empty()).then(|| names.join("\n"))
}

/// The token of this number.
pub(super) fn token(number: u32) -> String {
    format!("ya29.double-{number}")
}
