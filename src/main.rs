//! The `sidewire` binary.

use std::process::ExitCode;

/// musl's own allocator has one lock for all threads, and the binary of the archive and the image is linked with musl.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    sidewire::cli::parse().execute()
}
