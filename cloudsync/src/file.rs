//! The file provider: an inventory, with lists beside it, read anew each time.

use std::net::IpAddr;
use std::path::PathBuf;

use policy::inventory::{self, Scope};

use crate::cloud::{Answer, Cloud, CloudError, CloudErrorKind};

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
    async fn read(&mut self) -> Result<Answer, CloudError> {
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
    async fn look_up(&mut self, _: &[IpAddr]) -> Result<Option<Answer>, CloudError> {
        Ok(None)
    }

    fn calls_per_reading(&self) -> u32 {
        0
    }
}
