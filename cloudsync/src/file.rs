//! The file provider: an inventory, with lists beside it, read anew each time.

use std::net::IpAddr;
use std::path::PathBuf;

use policy::annotation::ListReference;
use policy::inventory::{self, Scope};

use crate::cloud::{Answer, Cloud, CloudError, CloudErrorKind, Found, Reading, Store};

/// An inventory file.
#[derive(Debug)]
pub(crate) struct FileCloud {
    path: PathBuf,
}

impl FileCloud {
    /// Reads `path`.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Cloud for FileCloud {
    async fn read(&self) -> Result<Answer, CloudError> {
        match inventory::read_file(&self.path, Scope::Whole) {
            Ok(draft) => Ok(Answer::Draft(Box::new(draft))),
            Err(error) => Err(CloudError {
                call: format!("reading {}", self.path.display()),
                kind: CloudErrorKind::Refused,
                detail: crate::chain(&error),
            }),
        }
    }

    /// Everybody a file knows is in the last reading of it.
    async fn look_up(&self, _: &[IpAddr], _: &Reading) -> Result<Option<Found>, CloudError> {
        Ok(None)
    }

    fn calls_per_reading(&self) -> u32 {
        0
    }
}

/// The inventory holds the preferences and names the lists: there is no other store.
#[derive(Debug)]
pub(crate) enum NoStore {}

impl Store for NoStore {
    async fn preferences(&self, _: &str) -> Result<Option<String>, CloudError> {
        match *self {}
    }

    async fn list(&self, _: &ListReference) -> Result<String, CloudError> {
        match *self {}
    }
}
