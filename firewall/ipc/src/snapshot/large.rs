//! Reading a document straight into what decides, its groups and its clients at the same time.
//!
//! A policy waits for this before it can be in force, and a large one is megabytes of text.

use ipnet::IpNet;
use policy::{Draft, Group};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ClientV1, FaultV1, GroupV1, InvalidSnapshot, PreferencesV1, ReadSnapshotError, SnapshotV1,
    convert, read,
};

/// Why a document is no policy.
#[derive(Debug, thiserror::Error)]
pub enum ReadDraftError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadSnapshotError),
    /// It says something impossible.
    #[error(transparent)]
    Invalid(#[from] InvalidSnapshot),
}

/// A document of which the two long lists are still text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outline<'a> {
    version: u32,
    preferences: PreferencesV1,
    #[serde(borrow)]
    groups: &'a RawValue,
    #[serde(borrow)]
    clients: &'a RawValue,
    served: Vec<IpNet>,
    faults: Vec<FaultV1>,
}

/// The policy that a document of any version this build knows states.
///
/// # Errors
///
/// When it is none, with the place. The same as [`read`] and a conversion.
pub fn read_draft(json: &[u8]) -> Result<Draft, ReadDraftError> {
    match at_once(json) {
        Some(draft) => Ok(draft),
        // Whatever is wrong: the plain way says what and where.
        None => Ok(Draft::try_from(read(json)?)?),
    }
}

/// The policy, unless anything is unusual.
fn at_once(json: &[u8]) -> Option<Draft> {
    let outline: Outline<'_> = serde_json::from_slice(json).ok()?;
    if outline.version != 1 {
        return None;
    }
    let (groups, clients) = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("groups".to_owned());
        let groups = thread.spawn_scoped(scope, || groups(outline.groups));
        let clients = serde_json::from_str::<Vec<ClientV1>>(outline.clients.get());
        let groups = groups.ok().and_then(|thread| thread.join().ok().flatten());
        (groups, clients.ok())
    });
    let rest = SnapshotV1 {
        version: 1,
        preferences: outline.preferences,
        groups: Vec::new(),
        clients: clients?,
        served: outline.served,
        faults: outline.faults,
    };
    let draft = Draft::try_from(rest).ok()?;
    Some(Draft {
        groups: groups?,
        ..draft
    })
}

fn groups(text: &RawValue) -> Option<Vec<Group>> {
    let groups: Vec<GroupV1> = serde_json::from_str(text.get()).ok()?;
    convert::groups(groups).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"version":1,"preferences":PREFERENCES,"groups":[{"gid":"g","rules":[{"rule":"r",
        "transport":"tcp","ports":[443,443],"entries":[{"name":{"kind":"tls","name":"a.example"}}]}]}],
        "clients":[{"net":"10.0.0.1/32","instance":"i","groups":["g"]}],"served":["10.0.0.0/8"],"faults":[]}"#;

    fn document() -> String {
        let preferences = serde_json::to_string(&PreferencesV1::default()).unwrap();
        DOCUMENT.replace("PREFERENCES", &preferences)
    }

    #[test]
    fn a_document_read_at_once_is_the_one_read_plainly() {
        let document = document();
        let plainly = Draft::try_from(read(document.as_bytes()).unwrap()).unwrap();
        assert_eq!(at_once(document.as_bytes()), Some(plainly.clone()));
        assert_eq!(read_draft(document.as_bytes()).unwrap(), plainly);
        assert_eq!((plainly.groups.len(), plainly.clients.len()), (1, 1));
    }

    #[test]
    fn what_is_wrong_is_said_as_plainly() {
        for (from, to, said) in [
            (
                "a.example",
                "a..example",
                "groups[0].rules[0].entries[0].name: ",
            ),
            (
                "[443,443]",
                "[443,80]",
                "groups[0].rules[0].ports: the first is over the last",
            ),
            (
                "\"version\":1",
                "\"version\":9",
                "version 9 was written by a later build",
            ),
            (
                "\"served\"",
                "\"deny\":1,\"served\"",
                "not a snapshot document",
            ),
            (
                "\"instance\"",
                "\"deny\":1,\"instance\"",
                "not a snapshot document",
            ),
        ] {
            let document = document().replacen(from, to, 1);
            let error = read_draft(document.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
