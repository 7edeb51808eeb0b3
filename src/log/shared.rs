//! What all threads of a log share, and the thread that keeps it in order waits for.

use super::cache::Cache;
use super::deletions::Deletions;
use super::directory::Directory;
use super::eras::Eras;
use super::floors::Floors;
use super::ids::Ids;
use super::meta::{Meta, Watermark};
use super::reserve::Reserve;
use super::starts::Starts;
use super::stats::Counters;
use super::trail::Trail;
use super::view::View;
use super::writer::{Active, Writer};
use super::{LogOptions, OpenError, block, pack, recovery};
use crate::event::Position;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// Unpacked blocks that are kept for the next reader.
const BLOCK_CACHE_BYTES: usize = 12 << 20;
/// The same for pages of the index.
const PAGE_CACHE_BYTES: usize = 12 << 20;
/// The same for directories of folds, about 50 kB each.
const DIRECTORY_CACHE_BYTES: usize = 12 << 20;

/// What opening a log may change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything: damaged parts are put aside, the start is noted.
    Full,
    /// Nothing.
    ReadOnly,
}

/// What all threads of a log share.
pub(super) struct Shared {
    pub(super) options: LogOptions,
    pub(super) directory: Directory,
    pub(super) reserve: Reserve,
    pub(super) meta: Meta,
    /// The newest position; readers never see beyond it.
    pub(super) head: AtomicU64,
    /// Where numbering goes on, at least.
    pub(super) next: AtomicU64,
    pub(super) view: RwLock<Arc<View>>,
    /// Whose positions these are.
    pub(super) eras: RwLock<Arc<Eras>>,
    /// How far the shards of the bus had been read at the newest positions.
    pub(super) trail: Mutex<Trail>,
    pub(super) writer: Mutex<Writer>,
    /// Journals that may hold events that are not durable yet.
    pub(super) unsynced: Mutex<Vec<Active>>,
    pub(super) syncing: Mutex<()>,
    pub(super) ids: Mutex<Ids>,
    pub(super) deletions: RwLock<Arc<Deletions>>,
    /// Held while deletions change.
    pub(super) deleting: Mutex<()>,
    pub(super) floors: Floors,
    pub(super) blocks: Cache<block::Block>,
    pub(super) pages: Cache<Vec<u8>>,
    pub(super) directories: Cache<pack::Directory>,
    /// The newest stored position that is known to be durable.
    pub(super) durable: AtomicU64,
    pub(super) starts: Starts,
    /// Whether this start is noted in the directory.
    pub(super) start_noted: AtomicBool,
    /// Dead events may have become many: the keeper should look.
    pub(super) sweep_asked: AtomicBool,
    pub(super) work: Mutex<Work>,
    pub(super) work_changed: Condvar,
    pub(super) counters: Counters,
}

/// What the keeper waits for.
#[derive(Default)]
pub(super) struct Work {
    pub(super) waiting: bool,
    pub(super) stop: bool,
}

impl Shared {
    pub(super) fn open(options: LogOptions, access: Access) -> Result<Self, OpenError> {
        let directory = Directory::open(&options.dir)?;
        let reserve = Reserve::find(directory.path(), options.reserve_bytes());
        let found = recovery::recover(&directory, &options, access, &reserve)?;
        if access == Access::Full {
            reserve.prepare();
        }
        let deletions = Deletions::read(directory.path(), &options.keyring);
        let counters = Counters {
            damaged: AtomicU64::new(found.damaged),
            quarantined: AtomicU64::new(found.quarantined),
            ..Counters::default()
        };
        Ok(Self {
            options,
            directory,
            reserve,
            meta: found.meta,
            head: AtomicU64::new(found.head.0),
            next: AtomicU64::new(found.next.0),
            view: RwLock::new(Arc::new(found.view)),
            eras: RwLock::new(Arc::new(found.eras)),
            trail: Mutex::default(),
            writer: Mutex::new(Writer::new(found.last_stored)),
            unsynced: Mutex::default(),
            syncing: Mutex::default(),
            ids: Mutex::new(found.ids),
            deletions: RwLock::new(Arc::new(deletions)),
            deleting: Mutex::default(),
            floors: Floors::default(),
            blocks: Cache::new(BLOCK_CACHE_BYTES),
            pages: Cache::new(PAGE_CACHE_BYTES),
            directories: Cache::new(DIRECTORY_CACHE_BYTES),
            durable: AtomicU64::new(found.durable.0),
            starts: found.starts,
            start_noted: AtomicBool::new(found.start_noted),
            sweep_asked: AtomicBool::new(true),
            work: Mutex::new(Work { waiting: true, stop: false }),
            work_changed: Condvar::new(),
            counters,
        })
    }

    pub(super) fn head(&self) -> Position {
        Position(self.head.load(Ordering::Acquire))
    }

    pub(super) fn next_position(&self) -> Position {
        Position(self.next.load(Ordering::Acquire)).max(self.head().next())
    }

    pub(super) fn eras(&self) -> Arc<Eras> {
        read_lock(&self.eras).clone()
    }

    /// Notes durably what this start passed over, if that did not succeed before.
    pub(super) fn note_start(&self) -> io::Result<()> {
        if !self.start_noted.load(Ordering::Acquire) {
            self.reserve.with_room(|| self.starts.write(self.directory.path()))?;
            self.start_noted.store(true, Ordering::Release);
        }
        Ok(())
    }

    pub(super) fn change_view(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = View::clone(&view);
        change(&mut changed);
        *view = Arc::new(changed);
    }

    /// Journals in memory, the active one included.
    pub(super) fn waiting(&self) -> usize {
        self.view().tables().count()
    }

    pub(super) fn wake_keeper(&self) {
        lock(&self.work).waiting = true;
        self.work_changed.notify_one();
    }

    /// Waits for work, but no longer than `tick`; false when the thread is to end.
    pub(super) fn wait_for_work(&self, tick: Duration) -> bool {
        let work = lock(&self.work);
        let (mut work, _) = self
            .work_changed
            .wait_timeout_while(work, tick, |work| !work.waiting && !work.stop)
            .unwrap_or_else(PoisonError::into_inner);
        work.waiting = false;
        !work.stop
    }

    pub(super) fn is_closing(&self) -> bool {
        lock(&self.work).stop
    }

    pub(super) fn close(&self) {
        let stored = {
            let mut writer = lock(&self.writer);
            if std::mem::replace(&mut writer.closed, true) {
                return;
            }
            writer.last_stored
        };
        for generation in &self.view().generations {
            generation.close();
        }
        let synced = self.sync();
        let mark = Watermark { head: self.head(), stored, floor: self.view().floor, clean: true };
        let closed = synced
            .map_err(|error| error.to_string())
            .and_then(|_| self.note_start().map_err(|error| error.to_string()))
            .and_then(|()| self.write_mark(&mark).map_err(|error| error.to_string()));
        if let Err(error) = closed {
            tracing::error!(
                error,
                "the log could not be closed in order: its next start takes it for a crash"
            );
        }
    }
}

/// A lock whose holder panicked still guards consistent data here: every change is one assignment at its end.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn read_lock<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
