//! User data: one TOML document whose tables are the appliance's configuration files.

use std::path::Path;

use policy::Preferences;
use policy::inventory::{self, Scope};

use super::machine;
use crate::config::ProviderKind;

/// The file that every configured machine has.
pub(super) const MARK: &str = "configured";
/// The sidecar's file.
pub(super) const CLOUDSYNC: &str = "cloudsync.toml";
/// The file of clients and groups beside the cloud's.
pub(super) const OVERLAY: &str = "overlay.toml";

/// Its tables, and the files they become.
const TABLES: [(&str, &str); 4] = [
    ("postern", "postern.toml"),
    ("cloudsync", CLOUDSYNC),
    ("overlay", OVERLAY),
    ("inventory", "inventory.toml"),
];

/// Why user data is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DocumentError {
    /// Not TOML.
    #[error("line {line}: {why}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        why: String,
    },
    /// A key that nothing reads.
    #[error("\"{0}\" is none of [postern], [cloudsync], [overlay], [inventory]")]
    Unknown(String),
    /// Not a table.
    #[error("\"{0}\" is not a table")]
    NoTable(String),
    /// A provider that is none.
    #[error("cloudsync.provider is {0}, none of \"aws\", \"gcp\", \"file\"")]
    Provider(String),
}

/// Parsed user data.
#[derive(Debug)]
pub(super) struct Document {
    tables: toml::Table,
    provider: Option<ProviderKind>,
}

impl Document {
    /// Reads the text; an empty one is a document without tables.
    ///
    /// # Errors
    ///
    /// At the first thing in it that nothing would read.
    pub(super) fn parse(text: &str) -> Result<Self, DocumentError> {
        let tables: toml::Table = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            DocumentError::Syntax {
                line: before
                    .unwrap_or_default()
                    .matches('\n')
                    .count()
                    .saturating_add(1),
                why: error.message().trim_end().replace('\n', ", "),
            }
        })?;
        for (key, value) in &tables {
            if !TABLES.iter().any(|(name, _)| name == key) {
                return Err(DocumentError::Unknown(key.clone()));
            }
            if !value.is_table() {
                return Err(DocumentError::NoTable(key.clone()));
            }
        }
        let asked = tables
            .get("cloudsync")
            .and_then(|table| table.get("provider"));
        let provider = match asked {
            None => None,
            Some(value) => Some(provider(value)?),
        };
        Ok(Self { tables, provider })
    }

    /// Where policy is to come from, if it says so.
    pub(super) const fn provider(&self) -> Option<ProviderKind> {
        self.provider
    }

    /// The files it stands for, the sidecar's with this provider in any case, and the mark of a configured machine.
    ///
    /// # Errors
    ///
    /// When a table cannot be written as TOML.
    pub(super) fn files(
        mut self,
        provider: ProviderKind,
    ) -> Result<Vec<(&'static str, String)>, toml::ser::Error> {
        let sidecar = self
            .tables
            .entry("cloudsync")
            .or_insert_with(|| toml::Table::new().into());
        if let Some(table) = sidecar.as_table_mut() {
            table.insert("provider".to_owned(), machine::name(provider).into());
        }
        let mut files = vec![(MARK, String::new())];
        for (key, file) in TABLES {
            if let Some(table) = self.tables.get(key) {
                files.push((file, format!("{HEADER}{}", toml::to_string(table)?)));
            }
        }
        Ok(files)
    }
}

fn provider(value: &toml::Value) -> Result<ProviderKind, DocumentError> {
    [ProviderKind::Aws, ProviderKind::Gcp, ProviderKind::File]
        .into_iter()
        .find(|kind| value.as_str() == Some(machine::name(*kind)))
        .ok_or_else(|| DocumentError::Provider(value.to_string()))
}

/// Reads an overlay as the sidecar will.
///
/// # Errors
///
/// Where it is not what an overlay may be. Lists are not fetched: they may come later.
pub(super) fn check_overlay(text: &str) -> Result<(), inventory::InvalidInventory> {
    let preferences = Preferences::default();
    let mut lists = inventory::lists_beside(Path::new("/nonexistent").to_owned());
    inventory::read(text, Scope::Overlay(&preferences), &mut lists).map(drop)
}

const HEADER: &str = "# From the instance's user data, written again at every boot.\n\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Document::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn no_user_data_means_the_machines_own_cloud_and_defaults() {
        let document = Document::parse("").unwrap();
        assert_eq!(document.provider(), None);
        let files = document.files(ProviderKind::Gcp).unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [MARK, CLOUDSYNC]);
        let written: toml::Table = toml::from_str(&files[1].1).unwrap();
        assert_eq!(written["provider"].as_str(), Some("gcp"));
    }

    #[test]
    fn each_table_becomes_its_file() {
        let text = "[cloudsync]\nprovider = \"aws\"\n[cloudsync.aws]\nvpcs = [\"vpc-1\"]\n\
                    [overlay]\nserved = [\"10.0.0.0/8\"]\n[postern]\nqueues = 2\n";
        let files = Document::parse(text)
            .unwrap()
            .files(ProviderKind::Aws)
            .unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [MARK, "postern.toml", CLOUDSYNC, OVERLAY]);
        let sidecar: toml::Table = toml::from_str(&files[2].1).unwrap();
        assert_eq!(sidecar["aws"]["vpcs"][0].as_str(), Some("vpc-1"));
        assert!(check_overlay(&files[3].1).is_ok());
    }

    #[test]
    fn a_mistake_is_named_and_nothing_is_guessed() {
        assert_eq!(
            refused("[cloudsync]\nprovider = \"azure\""),
            "cloudsync.provider is \"azure\", none of \"aws\", \"gcp\", \"file\""
        );
        assert_eq!(
            refused("[cloudsink]\n"),
            "\"cloudsink\" is none of [postern], [cloudsync], [overlay], [inventory]"
        );
        assert_eq!(refused("postern = 1"), "\"postern\" is not a table");
        assert!(refused("#!/bin/sh\necho hello\n").starts_with("line 2: "));
        assert!(check_overlay("colour = 1").is_err());
    }
}
