//! Starting: what the directory holds, what is missing, and where numbering goes on.

use super::directory::Directory;
use super::error::OpenError;
use super::ids::Ids;
use super::journal;
use super::memtable::Memtable;
use super::meta::{Meta, Watermark};
use super::view::{Hole, Source, View};
use super::writer::RESTART_GAP;
use crate::event::Position;
use std::sync::Arc;
use std::time::Duration;

/// What a start found.
pub(super) struct Found {
    pub(super) meta: Meta,
    pub(super) view: View,
    pub(super) ids: Ids,
    pub(super) head: Position,
    pub(super) last_stored: Position,
    pub(super) next: Position,
    pub(super) after_crash: bool,
    pub(super) damaged: u64,
}

/// Puts the parts that are found together into one chain.
struct Chain {
    view: View,
    last_stored: Position,
    damaged: u64,
}

pub(super) fn recover(directory: &Directory, window: Duration, limit: usize) -> Result<Found, OpenError> {
    let dir = directory.path();
    let stored = Meta::read(dir)?;
    let mark = Watermark::read(dir);
    let meta = stored.unwrap_or_else(Meta::fresh);
    let mut ids = Ids::new(meta.seed, window, limit);
    let mut chain = Chain {
        view: View { floor: mark.map_or(Position::ZERO, |mark| mark.floor), ..View::default() },
        last_stored: mark.map_or(Position::ZERO, |mark| mark.floor),
        damaged: 0,
    };
    for name in directory.names().map_err(|error| OpenError::io(dir, error))? {
        if name.starts_with(journal::PREFIX) {
            chain.journal(&dir.join(name), &mut ids)?;
        }
    }
    let mark_stored = mark.map_or(Position::ZERO, |mark| mark.stored);
    let mark_head = mark.map_or(Position::ZERO, |mark| mark.head);
    let is_new = stored.is_none() && chain.view.sources.is_empty() && mark.is_none();
    let is_behind = chain.last_stored < mark_stored;
    let clean = is_new || (mark.is_some_and(|mark| mark.clean) && !is_behind);
    let head = if clean { chain.last_stored.max(mark_head) } else { chain.last_stored };
    let next = if clean { head.next() } else { Position(head.max(mark_head).0 + RESTART_GAP) };
    let mut found = Found {
        meta,
        head,
        last_stored: chain.last_stored,
        next,
        after_crash: !clean,
        damaged: chain.damaged,
        view: chain.view,
        ids,
    };
    if is_behind || (stored.is_none() && !is_new) {
        tracing::warn!(
            found = found.last_stored.0,
            expected = mark_stored.0,
            "the log is not the one it was (lost or restored files): a new epoch begins, clients are told"
        );
        found.meta.epoch = Meta::fresh().epoch;
        // What was lost behind the last event found is another log's; this one begins without a gap in it.
        found.head = Position(found.next.0 - 1);
        found.after_crash = false;
    }
    if stored != Some(found.meta) {
        found.meta.write(dir).map_err(|error| OpenError::io(dir, error))?;
    }
    // From here on the stop is no clean one until the log is closed.
    let mark = Watermark {
        head: mark_head.max(found.head),
        stored: found.last_stored.min(mark_stored),
        floor: found.view.floor,
        clean: false,
    };
    mark.write(dir).map_err(|error| OpenError::io(dir, error))?;
    Ok(found)
}

impl Chain {
    fn journal(&mut self, path: &std::path::Path, ids: &mut Ids) -> Result<(), OpenError> {
        let recovered = journal::recover(path).map_err(|error| OpenError::io(path, error))?;
        let Ok(mut recovered) = recovered else {
            self.damaged += 1;
            put_aside(path);
            return Ok(());
        };
        if recovered.torn_bytes > 0 {
            tracing::warn!(path = %path.display(), bytes = recovered.torn_bytes, "the torn end of a journal was left out");
        }
        let last_stored = self.last_stored;
        recovered.events.retain(|event| event.position > last_stored);
        self.link(recovered.header.previous_stored);
        for (after, first) in &recovered.holes {
            tracing::error!(path = %path.display(), after = after.0, "a damaged part of a journal was passed over");
            self.damaged += 1;
            self.hole(*after, first.previous(), true);
        }
        let (Some(first), Some(last)) = (recovered.events.first(), recovered.events.last()) else {
            return super::directory::remove(path).map_err(|error| OpenError::io(path, error));
        };
        if recovered.header.after_crash {
            self.hole(self.last_stored, first.position.previous(), false);
        }
        let now = super::liveness::unix_ms();
        for event in recovered.events.iter().filter(|event| event.id_given) {
            let age = Duration::from_millis(now.saturating_sub(event.time));
            ids.recall(ids.hash(&event.id), age, event.position);
        }
        let mut header = recovered.header;
        header.first = first.position;
        self.last_stored = last.position;
        let table = Memtable::new(header, vec![path.to_owned()]);
        table.extend(recovered.events.iter());
        self.view.sources.push(Source::Memory(Arc::new(table)));
        Ok(())
    }

    /// A part says what the last event before it was: a later one than we have means that a part is missing.
    fn link(&mut self, previous_stored: Position) {
        if previous_stored > self.last_stored {
            tracing::error!(
                after = self.last_stored.0,
                up_to = previous_stored.0,
                "a part of the log is missing"
            );
            self.damaged += 1;
            self.hole(self.last_stored, previous_stored, true);
        }
    }

    fn hole(&mut self, after: Position, up_to: Position, lost: bool) {
        if after < up_to {
            self.view.holes.push(Hole { after, up_to, lost });
        }
    }
}

/// Keeps a file that cannot be read for whoever wants to look into it.
fn put_aside(path: &std::path::Path) {
    tracing::error!(path = %path.display(), "a journal is damaged: it is put aside");
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let Err(error) = std::fs::rename(path, path.with_file_name(format!("quarantined-{name}"))) {
        tracing::error!(path = %path.display(), %error, "a damaged journal cannot be put aside");
    }
}
