//! Looking at a log from the command line: is everything readable, and what is in it.

use super::directory::Directory;
use super::folds;
use super::generation::{self, Generation, Kind, Trouble};
use super::journal;
use super::pack;
use super::packed::PackedFold;
use super::view::Source;
use super::walk::{Walk, Wanted};
use super::{
    Access, Cursors, KeyUse, LogOptions, LogStats, OpenError, ReadError, Shared, block, compaction, keys,
    terms,
};
use crate::cipher::Keyring;
use crate::event::{Cursor, Epoch, Event, Filter, Position};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What reading the whole of a log found.
#[derive(Clone, Default, Debug)]
pub struct VerifyReport {
    /// Generations of packed events.
    pub generations: u64,
    /// Blocks that are whole.
    pub blocks: u64,
    /// Events in them.
    pub packed_events: u64,
    /// Journals.
    pub journals: u64,
    /// Events in them.
    pub journal_events: u64,
    /// What is damaged or missing, in words; empty if nothing is.
    pub problems: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Why events were not exported.
#[derive(Debug)]
pub enum ExportError {
    /// The log could not be opened.
    Open(OpenError),
    /// A part of it could not be read.
    Read(ReadError),
    /// Whoever took the events failed.
    Write(io::Error),
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Read(error) => error.fmt(f),
            Self::Write(error) => write!(f, "the events cannot be written: {error}"),
        }
    }
}

impl std::error::Error for ExportError {}

/// More problems than this are only counted.
const MOST_PROBLEMS: usize = 1000;

/// See [`super::Log::verify`].
pub(super) fn verify(dir: &Path, keyring: &Keyring) -> Result<VerifyReport, OpenError> {
    must_exist(dir)?;
    let directory = Directory::open(dir)?;
    let mut report = VerifyReport::default();
    let mut last_stored = Position::ZERO;
    let names = directory.names().map_err(|error| OpenError::io(dir, error))?;
    keys::check(dir, &names, keyring)?;
    let superseded = compaction::superseded(&names);
    for name in &names {
        if name.starts_with("quarantined-") {
            report.problem(format!("{name}: was damaged and put aside"));
        } else if name.starts_with(generation::PREFIX) && !superseded.contains(&name.as_str()) {
            report.generation(&dir.join(name), name, keyring, &mut last_stored);
        }
    }
    for name in names.iter().filter(|name| name.starts_with(journal::PREFIX)) {
        report.journal(&dir.join(name), name, keyring, &mut last_stored);
    }
    Ok(report)
}

impl VerifyReport {
    fn problem(&mut self, words: String) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(words);
        }
    }

    fn link(&mut self, name: &str, previous: Position, last_stored: Position) {
        if last_stored != Position::ZERO && previous > last_stored {
            self.problem(format!("{name}: what was between {} and {} is missing", last_stored.0, previous.0));
        }
    }

    fn generation(&mut self, path: &Path, name: &str, keyring: &Keyring, last_stored: &mut Position) {
        self.generations += 1;
        let list = match folds::read(path) {
            Ok(Ok(list)) => list,
            Ok(Err(_)) => return self.problem(format!("{name}: its list of folds is damaged")),
            Err(error) => return self.problem(format!("{name}: its list of folds cannot be read: {error}")),
        };
        if list.is_cut {
            self.problem(format!("{name}: its list of folds ends in the middle of a record"));
        }
        let generation = std::sync::Arc::new(Generation::new(path.to_owned(), list.swept));
        for fold in list.folds {
            self.link(name, fold.previous_stored, *last_stored);
            *last_stored = fold.last.max(*last_stored);
            let first = fold.first;
            let packed = match PackedFold::found(fold, generation.clone(), keyring) {
                Ok(packed) => packed,
                Err(error) => {
                    self.problem(format!("{name} {error}"));
                    break;
                }
            };
            if let Err(trouble) = self.fold(&packed, name) {
                self.problem(format!("{name}: the fold at {} cannot be read: {trouble:?}", first.0));
                break;
            }
        }
        generation.close();
    }

    fn fold(&mut self, packed: &PackedFold, name: &str) -> Result<(), Trouble> {
        let first = packed.fold.first;
        let at = first.0;
        let bytes = packed.value(Kind::Directory, 0)?;
        let Some(directory) = bytes.and_then(|bytes| pack::Directory::parse(&bytes, first).ok()) else {
            self.problem(format!("{name}: the directory of the fold at {at} is damaged"));
            return Ok(());
        };
        let mut events = 0;
        for number in 0..directory.blocks.len() {
            let bytes = packed.value(Kind::Block, number as u32)?;
            let block =
                bytes.and_then(|bytes| block::Block::unpack(&bytes, directory.dictionary.as_ref()).ok());
            let Some(block) = block else {
                self.problem(format!("{name}: block {number} of the fold at {at} is damaged"));
                continue;
            };
            self.blocks += 1;
            let kept = block.entries.iter().filter(|entry| !entry.head.is_stub());
            events += kept.filter(|entry| block.event(entry).is_ok()).count() as u64;
        }
        for number in 0..directory.pages.len() {
            let page = packed.value(Kind::Terms, number as u32)?;
            if page.is_none_or(|page| terms::scan(&page, |_, _| true).is_err()) {
                self.problem(format!("{name}: page {number} of the index of the fold at {at} is damaged"));
            }
        }
        if events != packed.fold.events {
            self.problem(format!("{name}: the fold at {at} has {events} of {} events", packed.fold.events));
        }
        self.packed_events += events;
        Ok(())
    }

    fn journal(&mut self, path: &Path, name: &str, keyring: &Keyring, last_stored: &mut Position) {
        self.journals += 1;
        let found = match journal::recover(path, keyring) {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => return self.problem(format!("{name}: its header is damaged")),
            Err(error) => return self.problem(format!("{name}: {error}")),
        };
        self.link(name, found.header.previous_stored, *last_stored);
        for (after, first) in &found.holes {
            self.problem(format!("{name}: what was between {} and {} is damaged", after.0, first.0));
        }
        if found.torn_bytes > 0 {
            self.problem(format!("{name}: its last {} bytes are torn", found.torn_bytes));
        }
        let new = found.events.iter().filter(|event| event.position > *last_stored).count();
        self.journal_events += new as u64;
        *last_stored = found.events.last().map_or(*last_stored, |event| event.position.max(*last_stored));
    }
}

/// See [`super::Log::inspect`].
pub(super) fn inspect(dir: &Path, keyring: &Keyring) -> Result<(LogStats, Epoch), OpenError> {
    must_exist(dir)?;
    let options = LogOptions { keyring: keyring.clone(), ..LogOptions::new(dir) };
    let shared = Shared::open(options, Access::ReadOnly)?;
    shared.measure();
    let epoch = shared.eras().bus().unwrap_or(shared.meta.epoch);
    Ok((shared.stats(), epoch))
}

/// See [`super::Log::key_uses`].
pub(super) fn key_uses(dir: &Path) -> Result<Vec<KeyUse>, OpenError> {
    must_exist(dir)?;
    let directory = Directory::open(dir)?;
    let names = directory.names().map_err(|error| OpenError::io(dir, error))?;
    keys::in_use(dir, &names).map_err(|error| OpenError::io(dir, error))
}

/// See [`super::Log::export`].
pub(super) fn export(
    dir: &Path,
    keyring: &Keyring,
    each: &mut dyn FnMut(Cursor, &Event) -> io::Result<()>,
) -> Result<u64, ExportError> {
    must_exist(dir).map_err(ExportError::Open)?;
    let mut options = LogOptions { keyring: keyring.clone(), ..LogOptions::new(dir) };
    // Each event's own expiry holds; the configuration is not known here.
    options.ttl = Duration::from_millis(u64::MAX / 4);
    let shared = Arc::new(Shared::open(options, Access::ReadOnly).map_err(ExportError::Open)?);
    let cursors = Cursors { eras: shared.eras(), shared: shared.clone() };
    let filter = Filter::default();
    let end = shared.view().sources.last().map_or(Position::ZERO, Source::last);
    let mut walk = Walk::new(&shared, Wanted::new(None, &filter));
    let (mut at, mut count) = (Position::ZERO, 0);
    while let Some(step) = walk.forward(at, end).map_err(ExportError::Read)? {
        for event in &step.events {
            each(cursors.of_event(event), event).map_err(ExportError::Write)?;
            count += 1;
        }
        at = step.reached;
    }
    Ok(count)
}

/// A mistyped path must not become an empty log that is all right.
fn must_exist(dir: &Path) -> Result<(), OpenError> {
    match std::fs::metadata(dir) {
        Ok(_) => Ok(()),
        Err(error) => Err(OpenError::io(dir, error)),
    }
}
