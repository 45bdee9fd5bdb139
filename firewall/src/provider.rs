//! The file provider: an inventory as the source of policy, adopted again when it changes.
//!
//! The kernel's notices make a change quick; looking at the files four times a second makes
//! it sure, on file systems without notices and for lists that are links. A broken file is
//! refused whole and the policy in force stays.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use policy::annotation::{ListBody, ListReference};
use policy::inventory::{self, InventoryError, Scope};
use policy::{Draft, lists};
use thiserror::Error;
use tokio::sync::Notify;

use crate::appliance::Appliance;
use crate::control::Shared;

/// An inventory that was refused.
#[derive(Debug, Error)]
#[error("reading inventory {}", path.display())]
pub struct ProviderError {
    path: PathBuf,
    #[source]
    source: InventoryError,
}

/// An inventory file, and what it looked like when it was read.
#[derive(Debug)]
pub struct FileProvider {
    path: PathBuf,
    /// The inventory and every list it refers to.
    seen: BTreeMap<PathBuf, Option<Stamp>>,
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl FileProvider {
    /// The provider of the file at `path`.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: BTreeMap::new(),
        }
    }

    /// Reads the inventory and the lists beside it.
    ///
    /// # Errors
    /// When the file cannot be read or is refused, with the line.
    pub fn read(&mut self) -> Result<Draft, ProviderError> {
        // Stamped before it is read: a change in between is seen at the next look.
        self.seen = BTreeMap::from([(self.path.clone(), stamp(&self.path))]);
        let text = std::fs::read_to_string(&self.path);
        let text = text.map_err(|error| self.error(InventoryError::Read(error)))?;
        self.parse(&text, Scope::Whole)
    }

    /// The text of the file, for [`FileProvider::parse`]; `None` when there is no file.
    ///
    /// # Errors
    /// When there is one and it cannot be read.
    pub fn text(&mut self) -> Result<Option<String>, ProviderError> {
        self.seen = BTreeMap::from([(self.path.clone(), stamp(&self.path))]);
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error(InventoryError::Read(error))),
        }
    }

    /// Reads a text of this file, and the lists beside it.
    ///
    /// # Errors
    /// When it is refused, with the line.
    pub fn parse(&mut self, text: &str, scope: Scope<'_>) -> Result<Draft, ProviderError> {
        let folder = self
            .path
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default();
        let seen = &mut self.seen;
        let mut list = |reference: &ListReference| -> ListBody {
            if let ListReference::Named(name) = reference {
                let path = folder.join(name);
                let stamp = stamp(&path);
                seen.insert(path, stamp);
            }
            let body = lists::read_file(&folder, reference);
            body.map(Into::into).map_err(|error| error.to_string())
        };
        let draft = inventory::read(text, scope, &mut list);
        draft.map_err(|invalid| self.error(invalid.into()))
    }

    fn error(&self, source: InventoryError) -> ProviderError {
        ProviderError {
            path: self.path.clone(),
            source,
        }
    }

    /// Whether the inventory or a list has changed since it was last read.
    pub fn has_changed(&self) -> bool {
        self.seen.iter().any(|(path, seen)| stamp(path) != *seen)
    }

    fn folders(&self) -> impl Iterator<Item = &Path> {
        self.seen.keys().filter_map(|path| path.parent())
    }
}

/// Adopts the inventory again whenever it changes; never returns.
pub async fn follow(mut provider: FileProvider, appliance: Shared) {
    let noticed = std::sync::Arc::new(Notify::new());
    let watcher = watch(&provider, std::sync::Arc::clone(&noticed));
    if watcher.is_none() {
        tracing::info!("no notices of file changes, looking four times a second");
    }
    loop {
        tokio::select! {
            () = noticed.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if !provider.has_changed() {
            continue;
        }
        // An editor that writes in place is given the time to finish.
        tokio::time::sleep(SETTLE).await;
        match provider.read() {
            Ok(draft) => {
                appliance.borrow_mut().set_degraded(SOURCE, None);
                // A rejected policy is in the config log already.
                drop(appliance.borrow_mut().adopt(draft));
            }
            Err(error) => refused(&mut appliance.borrow_mut(), &error),
        }
    }
}

/// Looks at the overlay now and whenever it changes; never returns.
pub async fn follow_overlay(appliance: Shared) {
    let noticed = std::sync::Arc::new(Notify::new());
    let watcher = appliance
        .borrow()
        .overlay_provider()
        .and_then(|provider| watch(provider, std::sync::Arc::clone(&noticed)));
    if watcher.is_none() {
        tracing::debug!("no notices of changes of the overlay, looking four times a second");
    }
    loop {
        tokio::select! {
            () = noticed.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let has_changed = appliance
            .borrow()
            .overlay_provider()
            .is_some_and(FileProvider::has_changed);
        if has_changed {
            tokio::time::sleep(SETTLE).await;
            appliance.borrow_mut().read_overlay();
        }
    }
}

/// Says why an inventory was refused while another policy stays in force.
pub fn refused(appliance: &mut Appliance, error: &ProviderError) {
    let why = crate::cli::chain(error);
    appliance.fault("inventory", &why);
    let sentence = format!("the last good policy is in force: {why}");
    appliance.set_degraded(SOURCE, Some(sentence));
}

fn watch(provider: &FileProvider, noticed: std::sync::Arc<Notify>) -> Option<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |_| noticed.notify_one()).ok()?;
    for folder in provider.folders() {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        watcher.watch(folder, RecursiveMode::NonRecursive).ok()?;
    }
    Some(watcher)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        inode: metadata.ino(),
        bytes: metadata.len(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

const LOOK_EVERY: Duration = Duration::from_millis(250);
const SETTLE: Duration = Duration::from_millis(20);
/// Key of the sentence in `degraded`.
const SOURCE: &str = "inventory";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const INVENTORY: &str = "[[group]]\nid = \"web\"\n[[group.rule]]\n\
        description = \"postern:tls:@names\"\nprotocol = \"tcp\"\nports = \"443\"\n";

    #[test]
    fn change_of_the_inventory_or_a_list_is_seen_in_place_and_by_rename() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inventory.toml");
        let list = dir.path().join("names");
        fs::write(&path, INVENTORY).unwrap();
        fs::write(&list, "a.example.org").unwrap();
        let mut provider = FileProvider::new(&path);
        provider.read().unwrap();
        assert!(!provider.has_changed());
        fs::write(&list, "b.example.org,c.example.org").unwrap();
        assert!(provider.has_changed());
        provider.read().unwrap();
        let fresh = dir.path().join("fresh");
        fs::write(&fresh, INVENTORY).unwrap();
        fs::rename(&fresh, &path).unwrap();
        assert!(provider.has_changed());
    }

    #[test]
    fn refused_inventory_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        fs::write(&path, "[[client]]\nadress = \"10.0.0.1\"\n").unwrap();
        let error = FileProvider::new(&path).read().unwrap_err();
        let chain = crate::cli::chain(&error);
        assert!(chain.starts_with(&format!("reading inventory {}: line 2: ", path.display())));
        assert!(chain.contains("unknown key \"adress\""), "{chain}");
    }
}
