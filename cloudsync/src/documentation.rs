//! `postern-cloudsync documentation`, hidden: manual pages and shell completions, for the package that ships them.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};

use crate::cli::Args;

/// Where to write.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The folder that gets `man` and `completions`.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// Writes both folders.
///
/// # Errors
///
/// When the folder cannot be written.
pub(crate) fn documentation(options: &Options) -> anyhow::Result<()> {
    write(&options.out)?;
    Ok(())
}

fn write(out: &Path) -> std::io::Result<()> {
    let (pages, completions) = (out.join("man"), out.join("completions"));
    std::fs::create_dir_all(&pages)?;
    std::fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(Args::command(), &pages)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(
            shell,
            &mut Args::command(),
            "postern-cloudsync",
            &completions,
        )?;
    }
    Ok(())
}
