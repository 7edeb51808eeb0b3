//! The `sidewire` binary.

use sidewire::cli::{self, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match cli::parse().command {
        Command::Tool(tool) => runtime.block_on(tool.execute()),
        Command::Run(_) | Command::Log(_) | Command::Echo(_) => {
            eprintln!("not available in this build");
            ExitCode::FAILURE
        }
    }
}
