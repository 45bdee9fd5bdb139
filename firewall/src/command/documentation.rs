//! `postern documentation`, hidden: manual pages and shell completions, for the package that ships them.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};

use crate::cli::{Cli, DocumentationArgs, Failure, Finding};

/// Writes `man/` and `completions/` below a folder.
pub(crate) fn run(args: &DocumentationArgs) -> Result<Finding, Failure> {
    write(&args.out).map_err(Failure::machine)?;
    Ok(Finding::None)
}

fn write(out: &Path) -> std::io::Result<()> {
    let (pages, completions) = (out.join("man"), out.join("completions"));
    std::fs::create_dir_all(&pages)?;
    std::fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(Cli::command(), &pages)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut Cli::command(), "postern", &completions)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let page = |name: &str| std::fs::read_to_string(folder.path().join("man").join(name));
        assert!(page("postern.1").unwrap().contains("postern\\-run(1)"));
        for command in Cli::command().get_subcommands() {
            let written = page(&format!("postern-{}.1", command.get_name())).is_ok();
            assert_eq!(written, !command.is_hide_set(), "{}", command.get_name());
        }
        for file in ["postern.bash", "postern.fish", "_postern"] {
            assert!(folder.path().join("completions").join(file).is_file());
        }
    }
}
