//! What the repository's Terraform says of itself, read from its text.
//!
//! `terraform fmt` fixes where things stand (a test sees to it that it has been run), so lines are enough.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::suite::ROOT;

/// A folder with Terraform in it.
#[derive(Debug, Clone)]
pub struct Module {
    /// Relative to `terraform/`, such as `aws/eni`.
    pub name: String,
    /// Where it is.
    pub folder: PathBuf,
}

/// One `variable` or `output` block.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// The lines between its braces.
    pub body: String,
}

impl Variable {
    /// The value of an argument of the block itself, its first line only.
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.body.lines().find_map(|line| {
            let rest = line.strip_prefix("  ")?.strip_prefix(name)?;
            rest.trim_start().strip_prefix('=').map(str::trim)
        })
    }

    /// Whether it has a `validation` block.
    pub fn is_validated(&self) -> bool {
        self.body
            .lines()
            .any(|line| line.starts_with("  validation {"))
    }
}

/// Every folder below `terraform/` that holds Terraform, except tests' own.
///
/// # Errors
/// When one cannot be read.
pub fn modules() -> Result<Vec<Module>> {
    let root = Path::new(ROOT).join("terraform");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let mut holds = false;
        for entry in
            fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?
        {
            let path = entry.context("listing a module")?.path();
            let hidden = path
                .file_name()
                .is_some_and(|name| name == "tests" || name.as_encoded_bytes().starts_with(b"."));
            if path.is_dir() && !hidden {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "tf") {
                holds = true;
            }
        }
        if holds {
            let name = folder
                .strip_prefix(&root)
                .context("a module below terraform/")?;
            found.push(Module {
                name: name.display().to_string(),
                folder,
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The blocks of a kind (`variable`, `output`) in a module.
///
/// # Errors
/// When a file cannot be read.
pub fn variables(module: &Module, kind: &str) -> Result<Vec<Variable>> {
    let opening = format!("{kind} \"");
    let mut found: Vec<Variable> = Vec::new();
    for text in texts(&module.folder)? {
        let mut open = false;
        for line in text.lines() {
            if let Some(name) = line
                .strip_prefix(&opening)
                .and_then(|rest| rest.strip_suffix("\" {"))
            {
                found.push(Variable {
                    name: name.to_owned(),
                    body: String::new(),
                });
                open = true;
            } else if line == "}" {
                open = false;
            } else if open && let Some(variable) = found.last_mut() {
                variable.body.push_str(line);
                variable.body.push('\n');
            }
        }
    }
    Ok(found)
}

/// The provider's types that modules and examples use: `aws_eip`, `data.aws_ami`. A module that requires `google-beta` takes
/// all of Google's types from it.
pub(super) fn types(provider: &str) -> Result<BTreeSet<String>> {
    let mut types = BTreeSet::new();
    for module in modules()? {
        let texts = texts(&module.folder)?;
        let beta = texts
            .iter()
            .any(|text| text.contains("hashicorp/google-beta"));
        let prefix = match (provider, beta) {
            ("google-beta", true) | ("google", false) => "google_",
            ("google-beta" | "google", _) => continue,
            _ => "aws_",
        };
        for line in texts.iter().flat_map(|text| text.lines()) {
            for (opening, mark) in [("resource \"", ""), ("data \"", "data.")] {
                let rest = line.trim_start().strip_prefix(opening);
                let name = rest.and_then(|rest| rest.split('"').next());
                if let Some(name) = name.filter(|name| name.starts_with(prefix)) {
                    types.insert(format!("{mark}{name}"));
                }
            }
        }
    }
    Ok(types)
}

/// The texts of a folder's `.tf` files.
fn texts(folder: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry.context("listing a module")?.path();
        if path.extension().is_some_and(|end| end == "tf") {
            texts.push(
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?,
            );
        }
    }
    Ok(texts)
}
