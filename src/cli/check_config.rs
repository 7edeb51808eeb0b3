//! `sidewire check-config F`

use super::error::CliError;
use super::output;
use crate::config::{Config, Sources};
use clap::Args;
use std::io::Write as _;
use std::path::PathBuf;

/// Options of `check-config`.
#[derive(Args, Debug)]
pub struct CheckConfigArgs {
    /// Configuration file
    file: PathBuf,
}

/// Prints `F: ok`, or fails with all that is wrong. The environment counts, as it would for `run`.
pub(super) fn run(args: CheckConfigArgs) -> Result<(), CliError> {
    let name = args.file.display().to_string();
    let config = Config::load(Sources::of_process(Some(args.file)))?;
    for warning in config.warnings() {
        // Nobody may be there to read it, which must not make it a panic.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    output::line(&format!("{name}: ok"))
}
