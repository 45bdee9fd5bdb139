//! `postern-cloudsync configure`: which machine this is, and what its user data asks for, as configuration files.
//!
//! Runs at every boot of the appliance before `postern-cloudsync run`. User data is one TOML document with up to three
//! tables, each the content of a file: `[postern]`, `[cloudsync]` and `[overlay]`. All of it is checked before
//! anything is written, so that a mistake leaves the appliance as it was: without a policy nothing leaves.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::config::Config;

mod document;
mod machine;
mod metadata;

use document::Document;
use machine::Machine;

/// What to read, and where to write.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The folder that gets the files; made if absent.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Where files of an earlier boot are in force, to go on with while the metadata service is silent.
    #[arg(long, value_name = "FOLDER", default_value = "/etc/postern")]
    current: PathBuf,
    /// Where the machine describes itself.
    #[arg(long, value_name = "FOLDER", default_value = machine::DMI, hide = true)]
    dmi: PathBuf,
    /// The metadata service.
    #[arg(long, value_name = "ADDRESS", default_value = metadata::ADDRESS, hide = true)]
    metadata: std::net::SocketAddr,
}

/// Reads user data until there is an answer, and writes the files it stands for.
///
/// # Errors
///
/// When the user data cannot be used; nothing is written then. A metadata service that is silent is asked
/// again without end, or, where an earlier boot left a configuration, for [`PATIENCE`].
pub(crate) fn configure(options: &Options) -> anyhow::Result<()> {
    let machine = Machine::read(&options.dmi);
    tracing::info!("this machine is {machine}");
    let text = match machine.metadata() {
        None => String::new(),
        Some(service) => match user_data(options, service)? {
            Some(text) => text,
            None => return Ok(()),
        },
    };
    let document = Document::parse(&text).context("user data")?;
    let provider = document.provider().unwrap_or_else(|| machine.provider());
    if !machine.allows(provider) {
        bail!(
            "user data: cloudsync.provider is \"{}\", and this machine is {machine}",
            machine::name(provider)
        );
    }
    let files = document.files(provider)?;
    check(&files)?;
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("making {}", options.out.display()))?;
    for (name, content) in files {
        let path = options.out.join(name);
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        tracing::info!("{name} from user data");
    }
    Ok(())
}

/// The user data, empty where the machine has none; nothing when the files of an earlier boot are to go on.
fn user_data(options: &Options, service: metadata::Service) -> anyhow::Result<Option<String>> {
    let configured = options.current.join(document::MARK).is_file();
    let started = Instant::now();
    let mut said = None;
    loop {
        let error = match metadata::user_data(options.metadata, service) {
            Ok(text) => return Ok(Some(text)),
            Err(error) => error,
        };
        if let metadata::MetadataError::Foreign(_) = error {
            bail!("user data: {error}");
        }
        let text = error.to_string();
        if said.as_ref() != Some(&text) {
            tracing::error!("user data: {text}; asking again until it answers");
            said = Some(text);
        }
        if configured && started.elapsed() > PATIENCE {
            tracing::warn!("user data: no answer; the configuration of the last boot stays");
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Reads what was made as its readers will.
fn check(files: &[(&'static str, String)]) -> anyhow::Result<()> {
    for (name, content) in files {
        if *name == document::CLOUDSYNC {
            Config::parse(content, Path::new("user data, [cloudsync]"))?;
        }
        if *name == document::OVERLAY {
            document::check_overlay(content).context("user data, [overlay]")?;
        }
    }

    Ok(())
}

/// How long a configured machine waits for its metadata service.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(500);
