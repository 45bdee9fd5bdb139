//! Last good bodies, on disk: an outage that begins before a restart does not end with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipc::snapshot::PreferencesV1;
use policy::annotation::ListReference;
use policy::preferences::SCOPE;
use policy::{FaultKind, Kind, Preferences, lists};
use serde::{Deserialize, Serialize};

use crate::durable;

/// The file, under the state folder.
const FILE: &str = "documents.json";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Content {
    version: u32,
    #[serde(default)]
    preferences: Option<serde_json::Value>,
    #[serde(default)]
    lists: BTreeMap<String, String>,
}

/// The last good body of each document.
#[derive(Debug)]
pub(super) struct Good {
    folder: PathBuf,
    content: Content,
    on_disk: Content,
    complained: bool,
}

impl Good {
    /// Reads what is kept in `folder`; what cannot be read is as good as nothing.
    pub(super) fn open(folder: &Path) -> Self {
        let read = std::fs::read(folder.join(FILE)).ok();
        let content: Content = read
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let content = Content {
            version: 1,
            ..content
        };
        Self {
            folder: folder.to_owned(),
            on_disk: content.clone(),
            content,
            complained: false,
        }
    }

    /// The preferences in force last.
    pub(super) fn preferences(&self) -> Option<Preferences> {
        let table = self.content.preferences.as_ref()?;
        let document = serde_json::json!({ SCOPE: table }).to_string();
        let (preferences, _) = Preferences::read_json(&document, &Preferences::default()).ok()?;
        Some(preferences)
    }

    /// The last good body of a list.
    pub(super) fn list(&self, reference: &ListReference) -> Option<Arc<str>> {
        let body = self.content.lists.get(&reference.to_string())?;
        Some(body.as_str().into())
    }

    /// Takes note of a good body.
    pub(super) fn note(&mut self, reference: &ListReference, body: &str) {
        self.content
            .lists
            .insert(reference.to_string(), body.to_owned());
    }

    /// Its owner has deleted it.
    pub(super) fn forget(&mut self, reference: &ListReference) {
        self.content.lists.remove(&reference.to_string());
    }

    /// Writes what changed: these preferences, and of the lists those still wanted. Nothing is
    /// dropped before somebody wants a list, as at the start.
    pub(super) fn keep(&mut self, preferences: &Preferences, wanted: &BTreeSet<ListReference>) {
        self.content.preferences = serde_json::to_value(PreferencesV1::from(preferences)).ok();
        if !wanted.is_empty() {
            let names: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
            self.content.lists.retain(|name, _| names.contains(name));
        }
        if self.content == self.on_disk {
            return;
        }
        let path = self.folder.join(FILE);
        let made = std::fs::create_dir_all(&self.folder);
        match made.and_then(|()| durable::write(&self.folder, &path, &self.content)) {
            Ok(()) => self.on_disk = self.content.clone(),
            Err(error) if !self.complained => {
                tracing::warn!(path = %path.display(), %error, "last good documents are not kept across a restart");
                self.complained = true;
            }
            Err(_) => {}
        }
    }
}

/// Whether a body may become the last good one; if not, that it is there, and what is wrong.
pub(super) fn usable(body: &str, reference: &ListReference) -> Result<(), (bool, String)> {
    let read = lists::read(body, Kind::Tls, reference, &Preferences::default());
    let too_large = read
        .faults
        .into_iter()
        .find(|fault| fault.kind == FaultKind::ListTooLarge);
    too_large.map_or(Ok(()), |fault| Err((false, fault.detail)))
}
