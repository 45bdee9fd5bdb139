//! Files that are whole or not there, whatever happens while they are written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;

/// Replaces `path`, in `folder`, by `content` as JSON, readable for nobody else: a new file is
/// written, on disk before it takes the old one's name, and the folder that says so after it.
///
/// # Errors
///
/// When any of that fails; the old file is still there then, whole.
pub(crate) fn write(folder: &Path, path: &Path, content: &impl Serialize) -> io::Result<()> {
    let fresh = path.with_extension("json.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&serde_json::to_vec(content)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}
