//! `sidewire generate DIR`: what packages install besides the binary, made of the definition of the command line.

use super::{Cli, CliError};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use std::io;
use std::path::{Path, PathBuf};

/// Options of `generate`.
#[derive(Args, Debug)]
pub struct GenerateArgs {
    /// The directory, which is made if it is not there
    directory: PathBuf,
}

/// Writes `sidewire.1`, a page for each command, and completions for bash, zsh and fish.
pub(super) fn run(args: GenerateArgs) -> Result<(), CliError> {
    write(&args.directory)
        .map_err(|error| CliError::Input(format!("{}: cannot be written: {error}", args.directory.display())))
}

fn write(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "sidewire", directory)?;
    }
    clap_mangen::generate_to(Cli::command(), directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_completions_tell_of_every_command() {
        let directory = tempfile::tempdir().unwrap();
        run(GenerateArgs { directory: directory.path().join("new") }).unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join("new").join(name)).unwrap();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            for file in ["sidewire.bash", "_sidewire", "sidewire.fish"] {
                assert!(read(file).contains(name), "{file} has {name}");
            }
            assert!(read("sidewire.1").contains(&name.replace('-', "\\-")), "{name}");
            assert!(read(&format!("sidewire-{name}.1")).contains("SYNOPSIS"), "{name}");
        }
    }
}
