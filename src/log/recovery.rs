//! Starting: what the directory holds, what is missing, and where numbering goes on.

use super::directory::{self, Directory};
use super::eras::{Eras, Next};
use super::error::OpenError;
use super::folds;
use super::generation::{self, Generation};
use super::ids::Ids;
use super::journal;
use super::liveness::unix_ms;
use super::memtable::Memtable;
use super::meta::{self, Meta, Watermark};
use super::packed::PackedFold;
use super::reserve::Reserve;
use super::starts::Starts;
use super::view::{Hole, Source, View};
use super::wire::Damaged;
use super::{Access, LogOptions, Numbering, compaction, keys};
use crate::cipher::Keyring;
use crate::event::Position;
use std::fs;
use std::io;
use std::path::Path;
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
    /// The newest stored position that is known to be durable.
    pub(super) durable: Position,
    /// What the starts passed over, and whether this one is noted.
    pub(super) starts: Starts,
    pub(super) start_noted: bool,
    pub(super) eras: Eras,
    pub(super) damaged: u64,
    pub(super) quarantined: u64,
}

/// Puts the parts that are found together into one chain.
struct Chain {
    access: Access,
    view: View,
    last_stored: Position,
    damaged: u64,
    quarantined: u64,
    /// The last part was put aside: what is missing before the next one was counted with it.
    after_damage: bool,
    /// What the bus could not give any more: no damage of ours.
    gaps: Vec<Hole>,
    keyring: Keyring,
}

pub(super) fn recover(
    directory: &Directory,
    options: &LogOptions,
    access: Access,
    reserve: &Reserve,
) -> Result<Found, OpenError> {
    let dir = directory.path();
    let stored = Meta::read(dir)?;
    let mark = Watermark::read(dir);
    let meta = stored.unwrap_or_else(Meta::fresh);
    let names = directory.names().map_err(|error| OpenError::io(dir, error))?;
    keys::check(dir, &names, &options.keyring)?;
    if access == Access::Full {
        directory.sweep().map_err(|error| OpenError::io(dir, error))?;
    }
    let mut ids = Ids::new(meta.seed, options.id_window, options.id_limit);
    let mut eras = Eras::read(dir);
    let mut chain = Chain {
        view: View { floor: mark.map_or(Position::ZERO, |mark| mark.floor), ..View::default() },
        last_stored: mark.map_or(Position::ZERO, |mark| mark.floor),
        access,
        damaged: 0,
        quarantined: 0,
        after_damage: false,
        gaps: eras.gaps().iter().map(|gap| gap.hole).collect(),
        keyring: options.keyring.clone(),
    };
    // Folds are always older than journals: a journal is removed once it is packed.
    let superseded = compaction::superseded(&names);
    for name in names.iter().filter(|name| name.starts_with(generation::PREFIX)) {
        if superseded.contains(&name.as_str()) {
            chain.remove(&dir.join(name))?;
            continue;
        }
        chain.generation(&dir.join(name), &mut ids)?;
    }
    for name in names.iter().filter(|name| name.starts_with(journal::PREFIX)) {
        chain.journal(&dir.join(name), &mut ids)?;
    }
    chain.pass_gaps();
    let mark_stored = mark.map_or(Position::ZERO, |mark| mark.stored);
    let mark_head = mark.map_or(Position::ZERO, |mark| mark.head);
    let is_new = stored.is_none() && chain.view.sources.is_empty() && mark.is_none();
    let is_behind = chain.last_stored < mark_stored;
    let clean = is_new || (mark.is_some_and(|mark| mark.clean) && !is_behind);
    let head = if clean { chain.last_stored.max(mark_head) } else { chain.last_stored };
    let mut starts = match Starts::read(dir) {
        Some(starts) => starts,
        None if is_new => Starts::default(),
        None => Starts::unknown(head),
    };
    // A log that never was begins at its first position: nothing can have been given before.
    // On a bus nothing is passed over either: it gives the positions, and reading goes on where it stopped.
    let goes_on = is_new || options.numbering == Numbering::Bus;
    let next = if goes_on { head.next() } else { starts.begin(head, mark_head, chain.view.floor, unix_ms()) };
    let mut found = Found {
        meta,
        head,
        durable: mark_stored.min(chain.last_stored),
        last_stored: chain.last_stored,
        next,
        starts,
        start_noted: false,
        eras: Eras::own(),
        damaged: chain.damaged,
        quarantined: chain.quarantined,
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
        if options.numbering == Numbering::Own {
            found.head = Position(found.next.0 - 1);
        }
        found.starts = Starts::default();
    }
    let comes_from_bus = options.numbering == Numbering::Own && eras.bus().is_some();
    if comes_from_bus {
        // A cursor that is given before the first event must be of this era: one of the bus that is left would be
        // answered `reset`, one that was passed over `expired`. So the era has a first position without an event.
        found.head = eras.begin(Next::Own(found.next), found.head, found.head);
        found.next = found.next.next();
    }
    found.eras = eras;
    if access == Access::ReadOnly {
        return Ok(found);
    }
    if comes_from_bus {
        reserve.with_room(|| found.eras.write(dir)).map_err(|error| OpenError::io(dir, error))?;
    }
    if stored != Some(found.meta) {
        reserve.with_room(|| found.meta.write(dir)).map_err(|error| OpenError::io(dir, error))?;
    }
    // Before anything else is: a start that is not noted must not have given a position.
    match reserve.with_room(|| found.starts.write(dir)) {
        Ok(()) => found.start_noted = true,
        Err(error) => {
            tracing::warn!(%error, "the start of the log cannot be noted: appends wait until it is")
        }
    }
    // From here on the stop is no clean one until the log is closed.
    let mark = Watermark {
        head: mark_head.max(found.head),
        stored: found.last_stored.min(mark_stored),
        floor: found.view.floor,
        clean: false,
    };
    if let Err(error) = reserve.with_room(|| mark.write(dir)) {
        // A full disk must not keep the log from starting: it may be what makes room. Without the file the
        // next start takes this for what it is, no clean stop.
        tracing::warn!(%error, "how far the log has come cannot be noted");
        directory::remove(&dir.join(meta::HEAD)).map_err(|error| OpenError::io(dir, error))?;
    }
    Ok(found)
}

impl Chain {
    /// Takes in a generation by its list alone: sled stays closed.
    fn generation(&mut self, path: &Path, ids: &mut Ids) -> Result<(), OpenError> {
        let list = match folds::read(path) {
            Ok(Ok(list)) => list,
            Ok(Err(Damaged)) => {
                self.put_aside(path);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.put_aside(path);
                return Ok(());
            }
            Err(error) => return Err(OpenError::io(path, error)),
        };
        if list.is_cut {
            // Torn by a crash: then the journal is there still. Damaged: then the chain shows a hole.
            tracing::warn!(path = %path.display(), "the list of a generation ends in the middle of a record");
        }
        let last = list.folds.last().map(|fold| fold.last);
        if last.is_none_or(|last| last <= self.view.floor) {
            // A crash came between noting its removal and removing it, or before anything was in it.
            return self.remove(path);
        }
        if !path.join("db").exists() {
            self.put_aside(path);
            return Ok(());
        }
        let generation = Arc::new(Generation::new(path.to_owned(), list.swept));
        self.view.generations.push(generation.clone());
        for fold in list.folds {
            self.link(fold.previous_stored);
            if fold.last <= self.last_stored {
                continue;
            }
            for hole in &fold.holes {
                self.hole(hole.after, hole.up_to);
            }
            self.last_stored = fold.last;
            let packed = PackedFold::found(fold, generation.clone(), &self.keyring)
                .map_err(|error| OpenError::KeyMissing { path: path.to_owned(), more: 0, error })?;
            recall_ids(ids, &packed);
            self.view.sources.push(Source::Packed(Arc::new(packed)));
        }
        Ok(())
    }

    fn journal(&mut self, path: &Path, ids: &mut Ids) -> Result<(), OpenError> {
        let recovered = journal::recover(path, &self.keyring).map_err(|error| OpenError::io(path, error))?;
        let Ok(mut recovered) = recovered else {
            if journal::is_blank(path).map_err(|error| OpenError::io(path, error))? {
                // The power went before its first sync.
                return self.remove(path);
            }
            self.put_aside(path);
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
            self.hole(*after, first.previous());
        }
        let (Some(first), Some(last)) = (recovered.events.first(), recovered.events.last()) else {
            return self.remove(path);
        };
        let now = unix_ms();
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
        let (after, up_to) = (self.last_stored, previous_stored);
        let is_counted = std::mem::take(&mut self.after_damage);
        if self.gaps.iter().any(|gap| gap.after <= after && after < up_to && up_to <= gap.up_to) {
            self.hole(after, up_to);
        } else if previous_stored > self.last_stored {
            tracing::error!(
                after = self.last_stored.0,
                up_to = previous_stored.0,
                "a part of the log is missing"
            );
            self.damaged += u64::from(!is_counted);
            self.hole(self.last_stored, previous_stored);
        }
    }

    /// What the bus could not give after the last event that is here.
    fn pass_gaps(&mut self) {
        for gap in std::mem::take(&mut self.gaps) {
            if gap.after <= self.last_stored && self.last_stored < gap.up_to {
                self.hole(self.last_stored, gap.up_to);
                self.last_stored = gap.up_to;
            }
        }
    }

    /// Removes what counts no more.
    fn remove(&self, path: &Path) -> Result<(), OpenError> {
        match self.access {
            Access::ReadOnly => Ok(()),
            Access::Full => directory::remove(path).map_err(|error| OpenError::io(path, error)),
        }
    }

    /// Keeps what cannot be read for whoever wants to look into it.
    fn put_aside(&mut self, path: &Path) {
        tracing::error!(path = %path.display(), "a part of the log is damaged: it is put aside");
        self.quarantined += 1;
        self.after_damage = true;
        if self.access == Access::ReadOnly {
            return;
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = path.parent().unwrap_or(Path::new("."));
        let aside = directory::free_name(parent, &format!("quarantined-{name}"));
        if let Err(error) = fs::rename(path, aside) {
            tracing::error!(path = %path.display(), %error, "a damaged part cannot be put aside");
        }
    }

    fn hole(&mut self, after: Position, up_to: Position) {
        if after < up_to {
            self.view.holes.push(Hole { after, up_to });
        }
    }
}

/// Takes up the given ids of a fold, if they are young enough to matter.
fn recall_ids(ids: &mut Ids, packed: &PackedFold) {
    let now = unix_ms();
    let window = ids.window().as_millis() as u64;
    if packed.fold.max_time.saturating_add(window) < now {
        return;
    }
    match packed.ids() {
        None => {}
        Some(Ok(given)) => {
            for (hash, position, time) in given {
                ids.recall(hash, Duration::from_millis(now.saturating_sub(time)), position);
            }
        }
        Some(Err(Damaged)) => {
            tracing::warn!(path = %packed.generation.path().display(), "the remembered ids of a part of the log are damaged");
        }
    }
}
