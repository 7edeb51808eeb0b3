//! Lines on standard output.

use super::error::CliError;
use std::io::{self, Write as _};

/// Prints one line; it is out when this returns.
pub(super) fn line(text: &str) -> Result<(), CliError> {
    lines([text])
}

/// Prints lines at one go.
pub(super) fn lines<T: AsRef<str>>(lines: impl IntoIterator<Item = T>) -> Result<(), CliError> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    lines
        .into_iter()
        .try_for_each(|line| {
            output.write_all(line.as_ref().as_bytes())?;
            output.write_all(b"\n")
        })
        .and_then(|()| output.flush())
        .map_err(|error| match error.kind() {
            // `sidewire subscribe .. | head` has seen enough.
            io::ErrorKind::BrokenPipe => CliError::OutputClosed,
            _ => CliError::Output(error),
        })
}
