//! `sidewire log`: looks at the log of a node that does not run.

use super::LogCommand;
use crate::codec::{Framing, Shown};
use crate::config::{Config, Sources};
use crate::log::{ExportError, Log, OpenError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

/// Runs the command.
pub(super) fn run(command: LogCommand) -> ExitCode {
    let result = match command {
        LogCommand::Stats(args) => directory(args.sources()).and_then(|path| stats(&path)),
        LogCommand::Verify(args) => directory(args.sources()).and_then(|path| verify(&path)),
        LogCommand::Export(args) => directory(args.sources()).and_then(|path| export(&path)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has gone: nothing is wrong.
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => fail(&format!("cannot write: {error}")),
        Err(Failure::Log(message)) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "{message}");
    ExitCode::FAILURE
}

enum Failure {
    Log(String),
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Log(format!("the log cannot be opened: {error}"))
    }
}

fn directory(sources: Sources) -> Result<std::path::PathBuf, Failure> {
    let directory = Config::load(sources).map_err(|error| Failure::Log(error.to_string()))?.log.dir;
    if !directory.is_dir() {
        // Opening would make it, and say that all is well.
        return Err(Failure::Log(format!(
            "there is no log at {}: name its directory with --data-dir",
            directory.display()
        )));
    }
    Ok(directory)
}

fn stats(directory: &Path) -> Result<(), Failure> {
    let (stats, epoch) = Log::inspect(directory)?;
    let mut out = BufWriter::new(io::stdout().lock());
    for (name, number) in [
        ("events", stats.events),
        ("disk_bytes", stats.disk_bytes),
        ("raw_bytes", stats.raw_bytes),
        ("generations", stats.generations),
        ("journals", stats.journals),
        ("oldest_position", stats.oldest.map_or(0, |position| position.0)),
        ("oldest_time_ms", stats.oldest_time.unwrap_or(0)),
        ("newest_position", stats.newest.0),
        ("remembered_ids", stats.ids),
        ("damaged", stats.damaged),
        ("quarantined", stats.quarantined),
    ] {
        writeln!(out, "{name}: {number}")?;
    }
    writeln!(out, "epoch: {epoch}")?;
    Ok(out.flush()?)
}

fn verify(directory: &Path) -> Result<(), Failure> {
    let report = Log::verify(directory)?;
    let mut out = io::stdout().lock();
    writeln!(out, "events: {}", report.packed_events + report.journal_events)?;
    writeln!(
        out,
        "generations: {}\nblocks: {}\njournals: {}",
        report.generations, report.blocks, report.journals
    )?;
    if report.is_sound() {
        writeln!(out, "ok")?;
        return Ok(());
    }
    let problems = report.problems.join("\n");
    Err(Failure::Log(format!("{problems}\n{} problems: what is whole stays readable", report.problems.len())))
}

fn export(directory: &Path) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    // The cursors are those of this log: a client could resume with them.
    let exported = Log::export(directory, &mut |cursor, event| {
        let shown = Shown::new(event.clone(), &cursor);
        out.write_all(shown.frame(Framing::Lines))
    });
    match exported {
        Ok(_) => Ok(out.flush()?),
        Err(ExportError::Write(error)) => Err(Failure::Output(error)),
        Err(error) => Err(Failure::Log(error.to_string())),
    }
}
