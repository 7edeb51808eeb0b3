//! The one way into the log: append to the active journal, then show; sync from another thread.

use super::directory;
use super::eras::{Eras, Gap, Next};
use super::error::AppendError;
use super::journal::{Header, Journal};
use super::memtable::Memtable;
use super::starts::RESTART_GAP;
use super::view::{Hole, Source};
use super::{Shared, lock, reserve};
use crate::event::{Epoch, Event, Marks, Position};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// Journals that wait to be packed; more, and publishers are told that the log is behind. Each is held in
/// memory.
pub(super) const MOST_WAITING: usize = 6;
/// Groups that are rewritten after a failed sync are cut to about this many events.
const REWRITE_EVENTS: usize = 1024;
/// What is written to see whether the disk takes anything again: an event of common size.
const TRIAL_BYTES: usize = 64 << 10;

/// What only the appending thread touches.
pub(super) struct Writer {
    pub(super) active: Option<Active>,
    /// The last stored position.
    pub(super) last_stored: Position,
    pub(super) closed: bool,
    buffer: Vec<u8>,
}

/// The journal that is appended to, and the same in memory.
#[derive(Clone)]
pub(super) struct Active {
    pub(super) journal: Arc<Journal>,
    pub(super) table: Arc<Memtable>,
    /// Everything up to here is durable.
    durable: Arc<AtomicU64>,
}

impl Writer {
    pub(super) fn new(last_stored: Position) -> Self {
        Self { active: None, last_stored, closed: false, buffer: Vec::new() }
    }
}

impl Shared {
    /// See [`super::Log::append`].
    pub(super) fn append(&self, group: &[Arc<Event>]) -> Result<(), AppendError> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(()) };
        let mut writer = lock(&self.writer);
        if writer.closed {
            return Err(AppendError::Io(io::Error::other("the log is closed")));
        }
        let in_order = group.windows(2).all(|pair| pair[0].position < pair[1].position);
        if !in_order || first.position <= self.head() {
            return Err(AppendError::Io(io::Error::new(
                io::ErrorKind::InvalidInput,
                "positions must grow from event to event",
            )));
        }
        if let Some(first_stored) = group.iter().find(|event| event.is_stored()) {
            if self.reserve.is_released() {
                return Err(AppendError::Full);
            }
            let (table, bytes) = self.write(&mut writer, group, first_stored.position)?;
            table.extend(group.iter().filter(|event| event.is_stored()));
            writer.last_stored = table.last();
            self.counters.appended_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        {
            let mut ids = lock(&self.ids);
            for event in group.iter().filter(|event| event.id_given) {
                ids.remember(&event.id, event.position);
            }
        }
        if last.marks().is_some() {
            let mut trail = lock(&self.trail);
            for event in group {
                event.marks().into_iter().for_each(|marks| trail.push(event.position, marks));
            }
        }
        self.head.store(last.position.0, Ordering::Release);
        Ok(())
    }

    /// See [`super::Log::try_out`].
    pub(super) fn try_out(&self) -> Result<(), AppendError> {
        if self.reserve.is_released() {
            return Err(AppendError::Full);
        }
        let active = lock(&self.writer).active.clone().filter(|active| !self.is_full(active, 1));
        if active.is_none() && self.waiting() >= MOST_WAITING {
            return Err(AppendError::Behind);
        }
        // As far out as the next event would stand: a limit on the size of files is a full disk, too.
        let end = active.map_or(0, |active| active.journal.bytes());
        directory::try_out(self.directory.path(), end, TRIAL_BYTES).map_err(|error| self.refused(error))?;
        // What an earlier sync did not make durable is still to be.
        self.sync().map(drop)
    }

    /// One write of the stored events of a group.
    fn write(
        &self,
        writer: &mut Writer,
        group: &[Arc<Event>],
        first: Position,
    ) -> Result<(Arc<Memtable>, u64), AppendError> {
        let stored = group.iter().filter(|event| event.is_stored()).count();
        let active = match &writer.active {
            Some(active) if !self.is_full(active, stored) => active.clone(),
            _ => self.begin_journal(writer, first)?,
        };
        let events = group.iter().filter(|event| event.is_stored());
        active.journal.append(&mut writer.buffer, events).map_err(|error| self.refused(error))?;
        let bytes = writer.buffer.len() as u64;
        // One huge group must not pin its size for ever.
        writer.buffer.shrink_to(1 << 20);
        self.counters.stored_events.fetch_add(stored as u64, Ordering::Relaxed);
        Ok((active.table, bytes))
    }

    /// An append does not take what is given up: that is for readers.
    fn refused(&self, error: io::Error) -> AppendError {
        if reserve::is_full(&error) {
            self.reserve.release();
        }
        error.into()
    }

    fn is_full(&self, active: &Active, more: usize) -> bool {
        let fold_bytes = self.options.fold_bytes();
        active.journal.is_broken()
            // The keys were changed.
            || active.journal.key() != self.options.keyring.current()
            || active.journal.bytes() >= fold_bytes
            || active.table.footprint() as u64 >= 3 * fold_bytes
            || (active.table.len() + more) as u64 >= RESTART_GAP
    }

    /// Seals the active journal and begins another, whose first event will stand at `first`.
    fn begin_journal(&self, writer: &mut Writer, first: Position) -> Result<Active, AppendError> {
        if self.waiting() >= MOST_WAITING {
            self.wake_keeper();
            return Err(AppendError::Behind);
        }
        // Before anything of this life is kept: or a later start could not tell what was passed over.
        self.note_start().map_err(|error| self.refused(error))?;
        let header = Header { epoch: self.meta.epoch, first, previous_stored: writer.last_stored };
        let journal = Journal::create(self.directory.path(), header, &self.options.keyring);
        let journal = Arc::new(journal.map_err(|error| self.refused(error))?);
        let table = Arc::new(Memtable::new(header, vec![journal.path().to_owned()]));
        let active = Active { journal, table, durable: Arc::new(AtomicU64::new(writer.last_stored.0)) };
        lock(&self.unsynced).push(active.clone());
        self.change_view(|view| view.sources.push(Source::Memory(active.table.clone())));
        writer.active = Some(active.clone());
        self.wake_keeper();
        Ok(active)
    }

    /// See [`super::Log::begin_era`].
    pub(super) fn begin_era(&self, shards: &[(Epoch, Position)], lost: bool) -> io::Result<Position> {
        // No append may come between the note and the head.
        let mut writer = lock(&self.writer);
        let mut eras = Eras::clone(&self.eras());
        // What the last start passed over is not used either.
        let head = self.next_position().previous();
        // A stretch without events, in which those that are missing stood.
        let hole = Hole { after: head, up_to: if lost { head.next() } else { head } };
        let begin = eras.begin(Next::Bus(shards), hole.up_to, self.head());
        let marks = eras.current_stretch().map(|stretch| stretch.begin.clone());
        if lost {
            eras.add_gap(Gap { hole, marks: None });
        }
        self.reserve.with_room(|| eras.write(self.directory.path()))?;
        self.seal(&mut writer);
        if lost {
            writer.last_stored = hole.up_to;
            self.change_view(|view| view.holes.push(hole));
        }
        lock(&self.trail).begin(begin, marks.as_ref());
        *self.eras.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(eras);
        self.head.store(begin.0, Ordering::Release);
        Ok(begin)
    }

    /// See [`super::Log::skip_to`].
    pub(super) fn skip_to(&self, marks: &[Position]) -> io::Result<Position> {
        let mut writer = lock(&self.writer);
        let mut eras = Eras::clone(&self.eras());
        let (up_to, marks) = match marks {
            [one] => (eras.at_bus(*one), None),
            several => (self.next_position(), Marks::new(several)),
        };
        if up_to <= self.head() {
            return Ok(self.head());
        }
        let hole = Hole { after: writer.last_stored, up_to };
        eras.add_gap(Gap { hole, marks: marks.clone() });
        self.reserve.with_room(|| eras.write(self.directory.path()))?;
        // The header of the next journal says that something is missing before it, as after a loss.
        self.seal(&mut writer);
        writer.last_stored = hole.up_to;
        self.change_view(|view| view.holes.push(hole));
        if let Some(marks) = &marks {
            lock(&self.trail).push(up_to, marks);
        }
        *self.eras.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(eras);
        self.head.store(up_to.0, Ordering::Release);
        Ok(up_to)
    }

    /// Seals the active journal, if there is one, so that it is packed.
    pub(super) fn seal(&self, writer: &mut Writer) {
        if writer.active.take().is_some() {
            self.wake_keeper();
        }
    }

    /// See [`super::Log::sync`].
    pub(super) fn sync(&self) -> Result<Position, AppendError> {
        let _one_at_a_time = lock(&self.syncing);
        let reached = self.head();
        let stored = self.counters.stored_events.load(Ordering::Relaxed);
        let unsynced = lock(&self.unsynced).clone();
        let start = Instant::now();
        let mut touched = false;
        for part in &unsynced {
            let last = part.table.last();
            match part.journal.sync() {
                Ok(did) => {
                    touched |= did;
                    part.durable.fetch_max(last.0, Ordering::AcqRel);
                }
                Err(error) => {
                    tracing::error!(path = %part.journal.path().display(), %error, "a journal cannot be synced: its end is written anew");
                    self.rewrite_end(part)?;
                    touched = true;
                }
            }
        }
        if touched {
            let took = start.elapsed();
            let synced = self.counters.synced_events.swap(stored, Ordering::Relaxed);
            self.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
            self.counters.last_fsync_us.store(took.as_micros() as u64, Ordering::Relaxed);
            if let Some(observer) = &self.options.observer {
                observer.fsync(took, stored.saturating_sub(synced));
            }
        }
        self.forget_synced(&unsynced);
        Ok(reached)
    }

    /// Writes what was appended since the last good sync of a journal into another file and syncs that: a
    /// later success on the same file would prove nothing.
    fn rewrite_end(&self, part: &Active) -> Result<(), AppendError> {
        // No append may slip between the copy and the switch to the new file.
        let mut writer = lock(&self.writer);
        let durable = Position(part.durable.load(Ordering::Acquire));
        let events = part.table.events_after(durable);
        if let Some(first) = events.first() {
            let header = Header { first: first.position, previous_stored: durable, ..part.table.header };
            // What was appended may have been shown: here what is kept back may be used.
            let create = || Journal::create(self.directory.path(), header, &self.options.keyring);
            let journal = self.reserve.with_room(create)?;
            let mut chunks = events.chunks(REWRITE_EVENTS);
            let written = chunks.try_for_each(|chunk| journal.append(&mut writer.buffer, chunk.iter()));
            if let Err(error) = written.and_then(|()| journal.sync()) {
                let _ = std::fs::remove_file(journal.path());
                return Err(self.refused(error));
            }
            part.table.add_file(&journal);
        }
        part.durable.fetch_max(part.table.last().0, Ordering::AcqRel);
        if writer.active.as_ref().is_some_and(|active| Arc::ptr_eq(&active.table, &part.table)) {
            self.seal(&mut writer);
        }
        lock(&self.unsynced).retain(|other| !Arc::ptr_eq(&other.table, &part.table));
        Ok(())
    }

    /// Sealed journals that are durable need no more syncs.
    fn forget_synced(&self, synced: &[Active]) {
        let active = lock(&self.writer).active.clone();
        lock(&self.unsynced).retain(|part| {
            let is_active = active.as_ref().is_some_and(|active| Arc::ptr_eq(&active.table, &part.table));
            let was_synced = synced.iter().any(|done| Arc::ptr_eq(&done.table, &part.table));
            is_active || !was_synced || part.durable.load(Ordering::Acquire) < part.table.last().0
        });
    }

    /// A packed journal is durable by other means.
    pub(super) fn forget_unsynced(&self, table: &Arc<Memtable>) {
        lock(&self.unsynced).retain(|part| !Arc::ptr_eq(&part.table, table));
    }
}
