//! `sidewire log`: looks at the log of a node that does not run.

use super::LogCommand;
use crate::cipher::Keyring;
use crate::codec::{Framing, Shown};
use crate::config::{Config, Sources};
use crate::log::{ExportError, KeyUse, Log, OpenError};
use crate::outbox::{Outbox, RejectedError};
use crate::sidecar::{OUTBOX_DIRECTORY, keyring};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs the command.
pub(super) fn run(command: LogCommand) -> ExitCode {
    let result = match command {
        LogCommand::Stats(args) => find(args.sources()).and_then(|(path, keys)| stats(&path, &keys)),
        LogCommand::Verify(args) => find(args.sources()).and_then(|(path, keys)| verify(&path, &keys)),
        LogCommand::Export(args) => find(args.sources()).and_then(|(path, keys)| export(&path, &keys)),
        LogCommand::Rejected(args) => find(args.sources()).and_then(|(path, keys)| rejected(&path, &keys)),
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

fn find(sources: Sources) -> Result<(PathBuf, Keyring), Failure> {
    let config = Config::load(sources).map_err(|error| Failure::Log(error.to_string()))?;
    let keyring =
        keyring(&config).map_err(|error| Failure::Log(format!("log.encryption_key_file: {error}")))?;
    let directory = config.log.dir;
    if !directory.is_dir() {
        // Opening would make it, and say that all is well.
        return Err(Failure::Log(format!(
            "there is no log at {}: name its directory with --data-dir",
            directory.display()
        )));
    }
    Ok((directory, keyring))
}

fn stats(directory: &Path, keyring: &Keyring) -> Result<(), Failure> {
    // First, and whether the keys are there or not: who looks for a key wants to know what for.
    keys(directory)?;
    let (stats, epoch) = Log::inspect(directory, keyring)?;
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

/// Most parts that are named for each key.
const MOST_NAMED: usize = 20;

/// Says what each key is needed for.
fn keys(directory: &Path) -> Result<(), Failure> {
    let outbox = directory.join(OUTBOX_DIRECTORY);
    let in_outbox = Outbox::key_uses(&outbox)
        .map_err(|error| Failure::Log(format!("{}: {error}", outbox.display())))?
        .into_iter()
        .map(|(key, parts)| {
            let parts = parts.into_iter().map(|name| format!("{OUTBOX_DIRECTORY}/{name}"));
            KeyUse { key: Some(key), parts: parts.collect() }
        });
    let mut out = io::stdout().lock();
    for KeyUse { key, parts } in Log::key_uses(directory)?.into_iter().chain(in_outbox) {
        match key {
            Some(key) => write!(out, "key {key}: {}", parts.len())?,
            None => write!(out, "not encrypted: {}", parts.len())?,
        }
        let named = parts.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join(" ");
        let rest = if parts.len() > MOST_NAMED { " .." } else { "" };
        writeln!(out, " ({named}{rest})")?;
    }
    Ok(())
}

fn verify(directory: &Path, keyring: &Keyring) -> Result<(), Failure> {
    let report = Log::verify(directory, keyring)?;
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

fn rejected(directory: &Path, keyring: &Keyring) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let each = &mut |line: &str| writeln!(out, "{line}");
    match Outbox::rejected(&directory.join(OUTBOX_DIRECTORY), keyring, each) {
        Ok(()) => Ok(out.flush()?),
        Err(RejectedError::Write(error)) => Err(Failure::Output(error)),
        Err(error) => Err(Failure::Log(error.to_string())),
    }
}

fn export(directory: &Path, keyring: &Keyring) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    // The cursors are those of this log: a client could resume with them.
    let exported = Log::export(directory, keyring, &mut |cursor, event| {
        let shown = Shown::new(event.clone(), &cursor);
        out.write_all(shown.frame(Framing::Lines))
    });
    match exported {
        Ok(_) => Ok(out.flush()?),
        Err(ExportError::Write(error)) => Err(Failure::Output(error)),
        Err(error) => Err(Failure::Log(error.to_string())),
    }
}
