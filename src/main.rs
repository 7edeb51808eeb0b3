//! The `sidewire` binary.

use std::process::ExitCode;

/// Measured against the system's allocator: a fan-out to 1,000 clients costs the same, but the memory of many
/// short-lived connections is given back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sidewire::cli::parse().execute()
}
