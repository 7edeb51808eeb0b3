//! The outbox: events that were accepted while the bus is away wait here, on the disk and in order, until the
//! bus has them.
//!
//! It is a row of files that are only appended to, *segments*. A group of events is safe on the disk when
//! [`Outbox::append`] returns, and what the bus has taken goes with the segment that it is in. In memory there
//! is nothing for each event, only a few numbers for each segment. All methods block; none panics on what is
//! on the disk.
//!
//! What was being written when the process was killed may be there after the next start or not: nobody was told
//! that it was accepted. What was refused with an error never comes back once anything was accepted after it.

mod directory;
mod error;
mod index;
mod record;
mod recovery;
mod rejected;
mod search;
mod segment;
mod settled;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{AppendError, OpenError, ReadError};
pub use rejected::{Refused, RejectedError};
pub use search::{Sought, Waiting};

use crate::bus::backend::Origin;
use crate::cipher::{KeyId, Keyring};
use crate::event::{Event, UnixMs};
use index::Index;
use rejected::Rejected;
use settled::Note;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use writer::Writer;

/// A segment that is larger takes no more, so that the disk is given back in pieces of about this.
const MOST_SEGMENT_BYTES: u64 = 8 << 20;
/// An outbox consists of so many segments at least when it is full.
const LEAST_SEGMENTS: u64 = 8;

/// The place of an event in the outbox. Numbers grow, and none is used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Number(pub u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An event that waits for the bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Who sends it: under this and the sequence its readers know a repetition.
    pub origin: Origin,
    /// Which of the sender's events it is.
    pub sequence: u64,
    /// The event. Its position is not kept, as the bus gives it.
    pub event: Arc<Event>,
}

/// What the outbox may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes on the disk, without rejected events, which have a bound of their own.
    pub max_bytes: u64,
    /// For how long the oldest event may have waited while new ones are taken.
    pub max_age: Duration,
}

/// What waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// Events.
    pub events: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// When the oldest event was accepted.
    pub oldest_ms: Option<UnixMs>,
}

/// The outbox of one directory. Clones are the same outbox.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<Shared>);

/// Locks are taken in the order in which they stand here.
#[derive(Debug)]
struct Shared {
    limits: Limits,
    writer: Mutex<Writer>,
    index: Mutex<Index>,
    note: Mutex<Note>,
    rejected: Rejected,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    events: AtomicU64,
    bytes: AtomicU64,
    /// 0 where nothing waits.
    oldest_ms: AtomicU64,
}

impl Outbox {
    /// Opens the outbox of a directory that no other process uses, or makes one. Events of earlier runs that
    /// are whole are kept, whatever is damaged beside them. What it writes is encrypted with these keys.
    pub fn open(dir: &Path, limits: Limits, keyring: &Keyring) -> Result<Outbox, OpenError> {
        directory::prepare(dir)?;
        let (note, settled) = Note::open(dir);
        let found = recovery::recover(dir, settled, keyring)?;
        let segment_bytes = (limits.max_bytes / LEAST_SEGMENTS).min(MOST_SEGMENT_BYTES);
        let shared = Shared {
            limits,
            writer: Mutex::new(Writer::new(dir, keyring, segment_bytes, found.last)),
            index: Mutex::new(found.index),
            note: Mutex::new(note),
            rejected: Rejected::new(dir, keyring),
            counters: Counters::default(),
        };
        shared.count(&lock(&shared.index));
        Ok(Outbox(Arc::new(shared)))
    }

    /// The names of the files in a directory that need a key, sorted, for each key.
    pub fn key_uses(dir: &Path) -> io::Result<BTreeMap<KeyId, Vec<String>>> {
        let mut uses: BTreeMap<KeyId, Vec<String>> = BTreeMap::new();
        if !dir.is_dir() {
            return Ok(uses);
        }
        let mut names = directory::names(dir)?;
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let keys = match segment::number_in(&name) {
                Some(_) => recovery::key_of(&path)?.into_iter().collect(),
                None if rejected::FILES.contains(&&*name) => rejected::keys_of(&path)?,
                None => BTreeSet::new(),
            };
            for key in keys {
                uses.entry(key).or_default().push(name.clone());
            }
        }
        Ok(uses)
    }

    /// Hands each event of a directory that the bus refused to `each`, the oldest first, as the line of JSON that was
    /// kept of it, decrypted.
    pub fn rejected(
        dir: &Path,
        keyring: &Keyring,
        each: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<(), RejectedError> {
        rejected::read(dir, keyring, each)
    }

    /// Appends a group in order: all of it is safe on the disk when this returns, or nothing of it was taken.
    pub fn append(&self, entries: &[Entry]) -> Result<(), AppendError> {
        if entries.is_empty() {
            return Ok(());
        }
        let shared = &*self.0;
        let mut writer = lock(&shared.writer);
        {
            let mut index = lock(&shared.index);
            if index.events() == 0 {
                shared.clear(&mut writer, &mut index);
            }
            let waited = index.oldest_ms.map_or(0, |oldest| unix_ms().saturating_sub(oldest));
            if Duration::from_millis(waited) > shared.limits.max_age {
                return Err(AppendError::Full);
            }
        }
        writer.append(&shared.index, entries, shared.limits.max_bytes)?;
        shared.count(&lock(&shared.index));
        Ok(())
    }

    /// Reads the oldest events after a number, or of all that wait: at least one if there is any, beyond that
    /// about as much as asked for at most, or less. What cannot be read any more is left out, and logged.
    pub fn read(
        &self,
        after: Option<Number>,
        most_events: usize,
        most_bytes: u64,
    ) -> Result<Vec<(Number, Entry)>, ReadError> {
        let shared = &*self.0;
        let mut index = lock(&shared.index);
        let after = after.map_or(0, |number| number.0);
        let entries = index.read(after, most_events, most_bytes, &shared.rejected);
        shared.count(&index);
        Ok(entries?)
    }

    /// Everything up to a number is on the bus: it is not read again. After a power cut some of it may.
    pub fn settle(&self, up_to: Number) {
        let shared = &*self.0;
        let mut index = lock(&shared.index);
        shared.settle(&mut index, up_to.0);
    }

    /// Sets an event aside that the bus will never take: it goes to `rejected.ndjson` with the reason, and is
    /// not read again. Where others before it wait, it is rejected again after a restart.
    pub fn reject(&self, number: Number, why: &str) -> Result<(), ReadError> {
        let shared = &*self.0;
        let mut index = lock(&shared.index);
        if number.0 <= index.settled {
            return Ok(());
        }
        let Some(found) = index.find(number.0)? else { return Ok(()) };
        shared.rejected.add(&found.bytes, why)?;
        if found.is_oldest {
            shared.settle(&mut index, number.0);
        } else {
            index.leave_out(found.segment, Some(number.0))?;
            shared.count(&index);
        }
        Ok(())
    }

    /// What waits.
    pub fn status(&self) -> Status {
        let counters = &self.0.counters;
        let oldest = counters.oldest_ms.load(Ordering::Relaxed);
        Status {
            events: counters.events.load(Ordering::Acquire),
            bytes: counters.bytes.load(Ordering::Relaxed),
            oldest_ms: (oldest != 0).then_some(oldest),
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.counters.events.load(Ordering::Acquire) == 0
    }

    /// Makes durable what was settled, so that nothing of it is sent again. What waits is safe already.
    pub fn close(&self) {
        let settled = lock(&self.0.index).settled;
        let mut note = lock(&self.0.note);
        note.write(settled);
        if let Err(error) = note.sync() {
            tracing::warn!(%error, "what the bus has taken of the outbox may be sent again after a power cut");
        }
    }
}

impl Shared {
    fn settle(&self, index: &mut Index, up_to: u64) {
        // A number that was not given yet must not settle the event that gets it.
        let up_to = up_to.min(index.last());
        if up_to <= index.settled {
            return;
        }
        index.settled = up_to;
        lock(&self.note).write(up_to);
        // Waiting for the writer here would be against the order of locks, and last as long as the disk: if it
        // is busy, the segment gets more events anyway.
        let writer = match self.writer.try_lock() {
            Ok(writer) => Some(writer),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        match writer {
            Some(mut writer) if index.last() <= up_to => self.clear(&mut writer, index),
            _ => index.trim(false),
        }
        self.count(index);
    }

    /// Removes everything, as nothing waits.
    fn clear(&self, writer: &mut Writer, index: &mut Index) {
        let last = index.last();
        if index.settled < last {
            index.settled = last;
            lock(&self.note).write(last);
        }
        writer.seal();
        index.trim(true);
    }

    fn count(&self, index: &Index) {
        let counters = &self.counters;
        counters.bytes.store(index.bytes(), Ordering::Relaxed);
        counters.oldest_ms.store(index.oldest_ms.unwrap_or(0), Ordering::Relaxed);
        counters.events.store(index.events(), Ordering::Release);
    }
}

/// A panic of another thread while it held the lock leaves at worst an index that is behind the disk.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
