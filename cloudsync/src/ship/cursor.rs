//! How far each stream is, on disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipc::record::Stream;
use serde::{Deserialize, Serialize};

use crate::durable;

/// The file, under the state folder.
const FILE: &str = "cursor.json";

/// Behind the last line that is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Position {
    /// The segment of the next line.
    pub(crate) segment: u64,
    /// Its first byte there.
    pub(crate) offset: u64,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    /// The daemon's name for itself, for a start while there is no daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    appliance: Option<String>,
    streams: BTreeMap<Stream, Position>,
}

/// Why the cursor cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}: {source}")]
pub(crate) struct CursorError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The cursor of every stream.
#[derive(Debug)]
pub(crate) struct Cursor {
    folder: PathBuf,
    content: Content,
}

impl Cursor {
    /// Reads the cursor kept in `folder`. One that is not there, or makes no sense, starts at
    /// the beginning of the spool: lines twice are better than lines never.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read.
    pub(crate) fn open(folder: &Path) -> Result<Self, CursorError> {
        let path = folder.join(FILE);
        let content = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Content>(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the cursor makes no sense; shipping the spool from its beginning");
                Content::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content::default(),
            Err(source) => return Err(CursorError { operation: "reading", path, source }),
        };
        Ok(Self {
            folder: folder.to_owned(),
            content: Content {
                version: 1,
                ..content
            },
        })
    }

    /// Where a stream is.
    pub(crate) fn position(&self, stream: Stream) -> Position {
        self.content
            .streams
            .get(&stream)
            .copied()
            .unwrap_or_default()
    }

    /// The appliance's name.
    pub(crate) fn appliance(&self) -> Option<&str> {
        self.content.appliance.as_deref()
    }

    /// Notes that everything before `position` is safe, on disk before this returns.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the old position stays, on disk and here.
    pub(crate) fn advance(
        &mut self,
        stream: Stream,
        position: Position,
    ) -> Result<(), CursorError> {
        let mut content = self.content.clone();
        content.streams.insert(stream, position);
        self.store(content)
    }

    /// Notes the appliance's name.
    ///
    /// # Errors
    ///
    /// As [`Cursor::advance`].
    pub(crate) fn name_appliance(&mut self, name: &str) -> Result<(), CursorError> {
        if self.appliance() == Some(name) {
            return Ok(());
        }
        self.store(Content {
            appliance: Some(name.to_owned()),
            ..self.content.clone()
        })
    }

    fn store(&mut self, content: Content) -> Result<(), CursorError> {
        let path = self.folder.join(FILE);
        durable::write(&self.folder, &path, &content).map_err(|source| CursorError {
            operation: "writing",
            path,
            source,
        })?;
        self.content = content;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_position_is_there_after_a_restart_and_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(folder.path()).unwrap();
        let position = Position {
            segment: 7,
            offset: 1_234,
        };
        cursor.advance(Stream::Flow, position).unwrap();
        cursor.name_appliance("i-0fff").unwrap();
        let again = Cursor::open(folder.path()).unwrap();
        assert_eq!(again.position(Stream::Flow), position);
        assert_eq!(again.position(Stream::End), Position::default());
        assert_eq!(again.appliance(), Some("i-0fff"));
        let mode = fs::metadata(folder.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn half_a_cursor_starts_at_the_beginning_of_the_spool() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{\"version\":1,\"str").unwrap();
        assert_eq!(
            Cursor::open(folder.path()).unwrap().position(Stream::Flow),
            Position::default()
        );
    }

    #[test]
    fn a_cursor_that_cannot_be_written_does_not_move() {
        let folder = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(folder.path()).unwrap();
        let gone = folder.path().to_owned();
        drop(folder);
        assert!(
            cursor
                .advance(
                    Stream::Flow,
                    Position {
                        segment: 1,
                        offset: 0
                    }
                )
                .is_err()
        );
        assert_eq!(cursor.position(Stream::Flow), Position::default());
        assert!(!gone.exists());
    }
}
