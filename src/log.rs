//! The event log: an append-only journal in front, everything older packed in sled, read as one.
//!
//! An event is in the journal before anybody sees it, so what was shown survives a `kill -9`; [`Log::sync`]
//! makes it survive a power cut. All methods block; none panics on what is on the disk.

mod block;
mod cache;
mod codec;
mod compaction;
mod cursors;
mod delete;
mod deletions;
mod directory;
mod eras;
mod error;
mod floors;
mod folds;
mod generation;
mod ids;
mod journal;
mod keeper;
mod keys;
mod liveness;
mod marks;
mod memtable;
mod meta;
mod options;
mod pack;
mod packed;
mod query;
mod read;
mod record;
mod recovery;
mod remains;
mod reserve;
mod retention;
mod search;
mod shared;
mod starts;
mod stats;
mod terms;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trail;
mod verify;
mod view;
mod walk;
mod way;
mod wire;
mod writer;

pub use cursors::Cursors;
pub use error::{AppendError, DeleteError, OpenError, ReadError};
pub use keys::KeyUse;
pub use options::{ID_LIMIT, ID_WINDOW, LogObserver, LogOptions, LogStats, Numbering, Rule};
pub use query::{Order, Query, QueryPage};
pub use read::{Budget, Page, Resume, ResumeStatus};
pub use search::Sought;
pub use verify::{ExportError, VerifyReport};

use crate::cipher::{KeyId, Keyring};
use crate::event::{
    Channel, Cursor, Epoch, Event, EventId, Expiry, Filter, Interest, Marks, Place, Position, Ttl, UnixMs,
};
use shared::{Access, Shared, lock, read_lock};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The event log of one directory. Clones are the same log.
#[derive(Clone)]
pub struct Log(Arc<Handle>);

/// Stops the log's thread when the last clone is gone.
struct Handle {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log, or makes one. Reads journals and summaries only, so that it is quick.
    pub fn open(options: LogOptions) -> Result<Log, OpenError> {
        let dir = options.dir.clone();
        let shared = Arc::new(Shared::open(options, Access::Full)?);
        let kept = shared.clone();
        let keeper = std::thread::Builder::new()
            .name("log-keeper".to_owned())
            .spawn(move || keeper::run(&kept))
            .map_err(|error| OpenError::io(&dir, error))?;
        Ok(Log(Arc::new(Handle { shared, keeper: Mutex::new(Some(keeper)) })))
    }

    /// Which log this is now: on a bus that of the bus, else its own, which is another one after it was lost
    /// or set back.
    pub fn epoch(&self) -> Epoch {
        self.shared().eras().bus().unwrap_or(self.shared().meta.epoch)
    }

    /// The cursors of positions, as of now.
    pub fn cursors(&self) -> Cursors {
        Cursors { eras: self.shared().eras(), shared: self.0.shared.clone() }
    }

    /// Where a cursor points in this log; none if it is of another. One of a bus with several shards is looked up
    /// in the log, which may block.
    pub fn position_of(&self, cursor: &Cursor) -> Result<Option<Position>, ReadError> {
        Ok(match self.shared().place_of(cursor)? {
            eras::Place::Current(position) | eras::Place::Past(position) => Some(position),
            eras::Place::BeforeCurrent(_) | eras::Place::Elsewhere => None,
        })
    }

    /// The position before which all stands that comes before a cursor: its own, but where nodes have several orders
    /// perhaps later. Reads the log.
    pub fn end_of(&self, cursor: &Cursor) -> Result<Option<Position>, ReadError> {
        match cursor.place {
            Place::At(_) => self.position_of(cursor),
            Place::Marks(_) => self.shared().end_of(cursor),
        }
    }

    /// The shards of the bus have been read up to here, with what was no event.
    pub fn note_read(&self, marks: &[Position]) {
        if let Some(marks) = Marks::new(marks) {
            lock(&self.shared().trail).note_read(marks);
        }
    }

    /// Whether a cursor of this log says more than was here at `position`; on a bus of several shards, than has been
    /// read of it.
    pub fn is_ahead(&self, cursor: &Cursor, position: Position) -> bool {
        match &cursor.place {
            Place::At(_) => {
                self.position_of(cursor).is_ok_and(|place| place.is_some_and(|place| place > position))
            }
            Place::Marks(_) => self.shared().is_beyond(cursor),
        }
    }

    /// Whether a bus orders the events of this log, or its shards do.
    pub fn is_on_bus(&self) -> bool {
        self.shared().eras().bus().is_some()
    }

    /// The logs of the bus that this log is on, one for each shard, and how far it has come on each; none while it
    /// is alone. May read the log.
    pub fn on_bus(&self) -> Option<Vec<(Epoch, Position)>> {
        let epochs = self.shared().eras().shards();
        let head = self.head();
        let marks = match self.cursors().of(head).place {
            _ if epochs.is_empty() => return None,
            Place::At(position) => vec![position],
            Place::Marks(marks) => {
                lock(&self.shared().trail).begin_at(head, &marks);
                marks.positions().to_vec()
            }
        };
        Some(epochs.into_iter().zip(marks).collect())
    }

    /// How far this log came on the logs of a bus that it was on before and left.
    pub fn came_to(&self, epochs: &[Epoch]) -> Option<Vec<Position>> {
        let eras = self.shared().eras();
        if let [epoch] = epochs {
            return eras.came_to(*epoch).map(|position| vec![position]);
        }
        let stretch = eras.stretches(Epoch::of_shards(epochs)).next()?;
        let marks = self.shared().marks_at(&stretch, stretch.end?).ok()?;
        Some(marks.positions().to_vec())
    }

    /// The position in this log of a position on a bus with one order.
    pub fn at_bus(&self, position: Position) -> Position {
        self.shared().eras().at_bus(position)
    }

    /// From now on the events are those of a bus: on each of its shards what comes after a position in the log of
    /// this epoch. With `lost`, events before it may be missing, and readers are told. Returns the new head.
    pub fn begin_era(&self, shards: &[(Epoch, Position)], lost: bool) -> io::Result<Position> {
        self.shared().begin_era(shards, lost)
    }

    /// Everything up to these positions of the shards of the bus can no longer be had: readers are told where they
    /// miss it. Returns the new head.
    pub fn skip_to(&self, marks: &[Position]) -> io::Result<Position> {
        self.shared().skip_to(marks)
    }

    /// The newest position that was appended or is remembered.
    pub fn head(&self) -> Position {
        self.shared().head()
    }

    /// Where an orderer that numbers by this log goes on.
    pub fn next_position(&self) -> Position {
        self.shared().next_position()
    }

    /// When an event that is accepted now ceases to be kept.
    pub fn expiry(&self, channel: &Channel, ttl: Ttl, now: UnixMs) -> Expiry {
        let options = &self.shared().options;
        let rule = options.rule(channel);
        if ttl == Ttl::Live || rule.is_some_and(|rule| !rule.store) {
            return Expiry::Live;
        }
        let by_rule = rule.and_then(|rule| rule.ttl).unwrap_or(options.ttl).as_millis() as u64;
        let kept = if let Ttl::Ms(asked) = ttl { asked } else { by_rule };
        match kept {
            0 => Expiry::Live,
            kept => Expiry::At(now.saturating_add(kept)),
        }
    }

    /// Where the event with this publisher-given id stands, if it is still remembered.
    pub fn known_id(&self, id: &EventId) -> Option<Position> {
        lock(&self.shared().ids).position(id)
    }

    /// Appends a group with one write; after an error nothing of it is visible. Positions must grow. Events
    /// that are live only advance the head and have their ids remembered, but are not stored.
    pub fn append(&self, group: &[Arc<Event>]) -> Result<(), AppendError> {
        self.shared().append(group)
    }

    /// Makes durable everything that was appended before the call, up to the position returned. May run
    /// beside [`Log::append`].
    pub fn sync(&self) -> Result<Position, AppendError> {
        self.shared().sync()
    }

    /// Whether an append would succeed, for after one that did not: writes to the disk, and nothing to the log.
    pub fn try_out(&self) -> Result<(), AppendError> {
        self.shared().try_out()
    }

    /// What a client that comes back with a cursor is told, and where it reads on.
    pub fn resume(&self, interest: &Interest, cursor: &Cursor) -> Resume {
        self.shared().resume(interest, cursor)
    }

    /// The kept matching events in `(after, up_to]`, as many as the budget and a bounded time allow: the page
    /// may be empty and yet not have reached the end.
    pub fn read_after(
        &self,
        interest: &Interest,
        filter: &Filter,
        after: Position,
        up_to: Position,
        budget: Budget,
    ) -> Result<Page, ReadError> {
        self.shared().read_after(interest, filter, after, up_to, budget)
    }

    /// Looks events up. Bounded in time: with sparse results it returns what it has, and where to go on.
    pub fn query(&self, query: &Query) -> Result<QueryPage, ReadError> {
        self.shared().query(query)
    }

    /// The last `count` matching events, oldest first.
    pub fn newest(
        &self,
        interest: &Interest,
        filter: &Filter,
        count: usize,
    ) -> Result<Vec<Arc<Event>>, ReadError> {
        self.shared().newest(interest, filter, count)
    }

    /// The newest event of a channel.
    pub fn last(&self, channel: &Channel) -> Result<Option<Arc<Event>>, ReadError> {
        self.shared().last(channel)
    }

    /// The newest event of each matching channel, oldest first.
    pub fn last_of_each(
        &self,
        interest: &Interest,
        filter: &Filter,
        most: usize,
    ) -> Result<Vec<Arc<Event>>, ReadError> {
        self.shared().last_of_each(interest, filter, most)
    }

    /// The event at a position.
    pub fn find(&self, position: Position) -> Result<Option<Arc<Event>>, ReadError> {
        self.shared().find(position)
    }

    /// Deletes events: durable when it returns. Says how many are no longer kept.
    pub fn delete(
        &self,
        older_than: Option<UnixMs>,
        interest: Option<&Interest>,
    ) -> Result<u64, DeleteError> {
        self.shared().delete(older_than, interest)
    }

    /// What the log says about itself; cheap.
    pub fn stats(&self) -> LogStats {
        self.shared().stats()
    }

    /// Closes in order: everything durable, the head noted, the threads stopped. Again does nothing.
    pub fn close(&self) {
        self.0.stop();
        self.shared().close();
    }

    /// Reads everything that is in a directory and says what is wrong. No process may have it open.
    pub fn verify(dir: &Path, keyring: &Keyring) -> Result<VerifyReport, OpenError> {
        verify::verify(dir, keyring)
    }

    /// What the log in a directory says about itself, and which it is. No process may have it open; nothing in
    /// it changes.
    pub fn inspect(dir: &Path, keyring: &Keyring) -> Result<(LogStats, Epoch), OpenError> {
        verify::inspect(dir, keyring)
    }

    /// What each key is needed for in a directory, whether it is known or not. As above.
    pub fn key_uses(dir: &Path) -> Result<Vec<KeyUse>, OpenError> {
        verify::key_uses(dir)
    }

    /// The same while a process may have it open: parts that come and go meanwhile may be missing.
    pub fn key_uses_now(dir: &Path) -> io::Result<Vec<KeyUse>> {
        keys::in_use(dir, &directory::names(dir)?)
    }

    /// How many packed parts need a key.
    pub fn packed_with(&self, key: KeyId) -> usize {
        self.shared().packed_with(key)
    }

    /// Hands every kept event to `each`, in order, and says how many there were. No process may have the log
    /// open; nothing in it changes.
    pub fn export(
        dir: &Path,
        keyring: &Keyring,
        each: &mut dyn FnMut(Cursor, &Event) -> io::Result<()>,
    ) -> Result<u64, ExportError> {
        verify::export(dir, keyring, each)
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

impl Handle {
    fn stop(&self) {
        lock(&self.shared.work).stop = true;
        self.shared.work_changed.notify_all();
        if let Some(keeper) = lock(&self.keeper).take() {
            // A panic in it was caught and told of.
            let _ = keeper.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Not a clean close: whoever wants one calls `close`. A test drops the log to play a crash.
        lock(&self.shared.writer).closed = true;
        self.stop();
    }
}
