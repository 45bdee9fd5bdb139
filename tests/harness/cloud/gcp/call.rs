//! What a request is a call of.

use super::super::http::form;
use super::compute::{self, Call};
use super::server::Google;

/// A request taken apart; nothing when there is no such method.
pub(super) fn call(verb: &str, path: &str, query: &str, body: &[u8]) -> Option<Call> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (method, project, place) = match (verb, parts.as_slice()) {
        (_, ["compute", "v1", "projects", project, rest @ ..]) => {
            let method = compute::method(verb, rest)?;
            let place = match rest {
                ["regions", region, ..] => vec![(*region).to_owned()],
                ["zones", zone, _, name, ..] => vec![(*zone).to_owned(), (*name).to_owned()],
                ["zones", zone, _] => vec![(*zone).to_owned()],
                _ => Vec::new(),
            };
            (method, *project, place)
        }
        ("POST", ["v2", "entries:write"]) => ("entries.write", Google::PROJECT, Vec::new()),
        ("GET", ["v1", secret @ .., "versions", "latest:access"]) => {
            let ["projects", project, "secrets", _] = secret else {
                return None;
            };
            let place = secret.iter().map(|part| (*part).to_owned()).collect();
            ("secrets.access", *project, place)
        }
        _ => return None,
    };
    Some(Call {
        method,
        project: project.to_owned(),
        place,
        query: form(query.as_bytes()).into_iter().collect(),
        body: body.to_vec(),
    })
}
