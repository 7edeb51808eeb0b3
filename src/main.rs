//! The `sidewire` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    sidewire::cli::parse().execute()
}
