//! The background thread: packs sealed journals, gives disk space back, closes what nobody reads. What it
//! cannot do now it does later; readers and the writer go on meanwhile.

use super::Shared;
use super::directory::{self, REMOVED, UNFINISHED};
use super::folds::{self, Fold, FoldsFile};
use super::generation::{self, Generation, Kind, Trouble};
use super::memtable::Memtable;
use super::meta::Watermark;
use super::pack::{self, Sealed};
use super::packed::PackedFold;
use super::remains::Remains;
use super::reserve;
use super::view::Source;
use crate::event::Position;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often there is a look at what time alone brings about.
const TICK: Duration = Duration::from_millis(500);
/// A generation that nobody read for this long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// More are not open for longer than a tick. A log of up to 512 MiB has fewer; opening one costs a reader 5 to
/// 25 ms.
const MOST_OPEN: usize = 10;
/// sled hardly forgets what it read: beyond this much, generations are closed to free it.
const MOST_HELD_BYTES: u64 = 80 << 20;
/// After a failure the next attempt waits this long, and twice as long each time.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(15);

/// What the thread remembers from one round to the next.
#[derive(Default)]
pub(super) struct Keeper {
    /// The generation that is added to.
    current: Option<Current>,
    failures: u32,
    not_before: Option<Instant>,
    pub(super) last_sweep: Option<Instant>,
    rested: bool,
}

struct Current {
    generation: Arc<Generation>,
    list: FoldsFile,
}

/// Why a round was cut short.
#[derive(Debug)]
pub(super) enum Setback {
    Io(io::Error),
    Generation(Trouble),
}

impl Setback {
    fn is_full(&self) -> bool {
        match self {
            Self::Io(error) => reserve::is_full(error),
            Self::Generation(trouble) => *trouble == Trouble::Full,
        }
    }
}

impl std::fmt::Display for Setback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Generation(trouble) => write!(f, "a generation is {trouble:?}"),
        }
    }
}

impl From<io::Error> for Setback {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Trouble> for Setback {
    fn from(trouble: Trouble) -> Self {
        Self::Generation(trouble)
    }
}

/// The thread's life: until the log is closed.
pub(super) fn run(shared: &Arc<Shared>) {
    let mut keeper = Keeper::default();
    while shared.wait_for_work(TICK) {
        let round = catch_unwind(AssertUnwindSafe(|| keeper.round(shared)));
        if round.is_err() {
            // Half-dead is worse than late: go on with what is on the disk.
            tracing::error!("the log's keeper panicked and begins anew");
            shared.counters.fold_failures.fetch_add(1, Ordering::Relaxed);
            keeper = Keeper { not_before: Some(Instant::now() + LONGEST_RETRY), ..Keeper::default() };
        }
    }
}

impl Keeper {
    fn round(&mut self, shared: &Arc<Shared>) {
        shared.seal_if_old();
        let was_full = shared.reserve.is_released();
        let has_room = shared.reserve.take_back();
        if was_full && has_room {
            self.not_before = None;
        }
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        self.not_before = None;
        // What packing takes of a full disk, reads could not have.
        let packed = if has_room { self.fold_all(shared) } else { Ok(()) };
        let done = packed.and_then(|()| {
            shared.expire(0)?;
            self.compact(shared)
        });
        match done {
            Ok(()) if has_room => self.recovered(),
            Ok(()) => {}
            Err(setback) => self.put_off(shared, &setback),
        }
        self.rest(shared);
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!("the log packs journals again");
        }
    }

    fn put_off(&mut self, shared: &Shared, setback: &Setback) {
        if self.failures == 0 {
            tracing::warn!(%setback, "journals cannot be packed now; they wait and it is tried again");
        }
        if setback.is_full() {
            shared.reserve.release();
        } else {
            shared.reserve.release_if_short();
        }
        self.failures = self.failures.saturating_add(1);
        shared.counters.fold_failures.fetch_add(1, Ordering::Relaxed);
        let wait = FIRST_RETRY.saturating_mul(1 << self.failures.min(10)).min(LONGEST_RETRY);
        self.not_before = Some(Instant::now() + wait);
        // The handle may be poisoned by the failure, and the list may have half a record.
        self.finish_current();
    }

    /// Packs every sealed journal, oldest first.
    fn fold_all(&mut self, shared: &Arc<Shared>) -> Result<(), Setback> {
        while let Some(table) = shared.oldest_sealed() {
            if shared.is_closing() {
                break;
            }
            self.fold(shared, &table)?;
        }
        Ok(())
    }

    fn fold(&mut self, shared: &Arc<Shared>, table: &Arc<Memtable>) -> Result<(), Setback> {
        let events = table.events();
        let Some(last) = events.last().map(|event| event.position) else {
            return shared.drop_table(table).map_err(Setback::from);
        };
        // Packed it may be as large again, and sled grows by whole segments.
        let room = directory::total_size(&table.files()) + (1 << 20);
        shared.expire(room)?;
        let view = shared.view();
        let cover = Fold {
            first: table.header.first,
            last,
            previous_stored: table.header.previous_stored,
            holes: view.holes_within(table.header.previous_stored, last),
            ..Fold::default()
        };
        let remains = Remains::of(shared, &events, &[]);
        let packed = pack::pack(&remains.items(), cover, shared.options.compress);
        drop(events);
        let packed = packed.seal(&shared.options.keyring)?;
        let current = self.current(shared, &packed.fold)?;
        // First, or a crash in between would leave a fold that counts, and ids that nobody knows any more.
        write_ids(shared, &current.generation, &packed, table)?;
        let generation = current.generation.clone();
        let packed = shared.reserve.pack(|| store(&generation, &mut current.list, packed))?;
        if !shared.show_fold(table, packed) {
            // It was put aside meanwhile, with what was just stored in it: the journal stays.
            return Err(Trouble::Gone.into());
        }
        shared.forget_unsynced(table);
        shared.note_head(last)?;
        for file in table.files() {
            directory::remove(&file)?;
        }
        if generation.measure() >= shared.options.generation_bytes() {
            self.finish_current();
        }
        shared.expire(0)?;
        Ok(())
    }

    /// The generation to add to: the one in use, the last one on the disk if it has room, or a new one.
    fn current(&mut self, shared: &Arc<Shared>, fold: &Fold) -> Result<&mut Current, Setback> {
        let view = shared.view();
        // One generation, one key: so an old key is no longer needed as soon as the last of its generations goes.
        let fits = |generation: &Arc<Generation>| {
            view.folds_of(generation).all(|packed| packed.fold.key() == fold.key())
        };
        if self.current.as_ref().is_some_and(|current| !fits(&current.generation)) {
            self.finish_current();
        }
        // One that was expired or put aside meanwhile takes no more.
        let in_view = |generation: &Arc<Generation>| {
            view.generations.iter().any(|other| Arc::ptr_eq(other, generation))
        };
        if self.current.as_ref().is_some_and(|current| !in_view(&current.generation)) {
            self.current = None;
        }
        let current = match self.current.take() {
            Some(current) => current,
            None => match self.reopen_last(shared).filter(|current| fits(&current.generation)) {
                Some(current) => current,
                None => begin(shared, fold.first)?,
            },
        };
        Ok(self.current.insert(current))
    }

    fn reopen_last(&self, shared: &Shared) -> Option<Current> {
        // What failed twice running is left alone.
        let generation = shared.view().generations.last().filter(|_| self.failures < 2)?.clone();
        if generation.disk_bytes() >= shared.options.generation_bytes() {
            return None;
        }
        let list = folds::read(generation.path()).ok()?.ok()?;
        let list = FoldsFile::open(generation.path(), list.whole_bytes).ok()?;
        Some(Current { generation, list })
    }

    /// Nothing more is added to the current generation. Closing it frees what sled holds in memory; who reads
    /// it opens it again.
    pub(super) fn finish_current(&mut self) {
        if let Some(current) = self.current.take() {
            current.generation.close();
        }
    }

    pub(super) fn is_current(&self, generation: &Arc<Generation>) -> bool {
        self.current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.generation, generation))
    }

    /// Closes what nobody reads, and after a while of silence gives the memory of the caches back.
    fn rest(&mut self, shared: &Shared) {
        let view = shared.view();
        let mut open: Vec<_> = view.generations.iter().filter(|generation| generation.is_open()).collect();
        open.sort_by_key(|generation| generation.idle());
        let mut held = 0;
        for (place, generation) in open.iter().enumerate() {
            held += generation.held_bytes();
            if place >= MOST_OPEN || generation.idle() >= IDLE || held > MOST_HELD_BYTES {
                held -= generation.held_bytes();
                generation.close();
            }
        }
        let silent = open.iter().all(|generation| generation.idle() >= IDLE);
        if silent && !self.rested {
            shared.blocks.clear();
            shared.pages.clear();
            shared.directories.clear();
        }
        self.rested = silent;
    }
}

/// Begins a generation: it appears whole or not at all.
fn begin(shared: &Shared, first: Position) -> Result<Current, Setback> {
    let dir = shared.directory.path();
    let name = format!("{}{:020}", generation::PREFIX, first.0);
    let unfinished = dir.join(format!("{UNFINISHED}{name}"));
    directory::remove(&unfinished)?;
    let swept = shared.deletions().next;
    let made = Generation::create(&unfinished).and_then(|()| FoldsFile::create(&unfinished, swept));
    let list = match made {
        Ok(list) => list,
        Err(error) => {
            let _ = directory::remove(&unfinished);
            return Err(error.into());
        }
    };
    directory::sync_directory(&unfinished)?;
    let path = dir.join(name);
    if let Some(failed) = shared.view().generations.iter().find(|generation| generation.path() == path) {
        // Nothing was packed into it, or this one would begin at a later position.
        failed.mark_gone();
        shared.change_view(|view| view.generations.retain(|other| !Arc::ptr_eq(other, failed)));
    }
    directory::remove(&path)?;
    fs::rename(&unfinished, &path)?;
    directory::sync_directory(dir)?;
    let generation = Arc::new(Generation::new(path, swept));
    shared.change_view(|view| view.generations.push(generation.clone()));
    Ok(Current { generation, list })
}

/// Stores a fold: its values first, durably, then the record that makes it count.
pub(super) fn store(
    generation: &Arc<Generation>,
    list: &mut FoldsFile,
    packed: Sealed,
) -> Result<PackedFold, Setback> {
    let Sealed { fold, values, cipher } = packed;
    let all = values.iter().map(|(kind, number, bytes): &(Kind, u32, Vec<u8>)| (*kind, *number, &bytes[..]));
    generation.put(fold.first.0, all)?;
    list.add(&fold)?;
    Ok(PackedFold { fold, generation: generation.clone(), cipher })
}

/// Notes the given ids of a fold for the next start.
fn write_ids(shared: &Shared, generation: &Generation, packed: &Sealed, table: &Memtable) -> io::Result<()> {
    let ids = super::lock(&shared.ids);
    let given: Vec<_> = table
        .events()
        .iter()
        .filter(|event| event.id_given)
        .map(|event| (ids.hash(&event.id), event.position, event.time))
        .collect();
    drop(ids);
    if given.is_empty() {
        return Ok(());
    }
    let Sealed { fold, cipher, .. } = packed;
    let bytes = pack::seal_ids(cipher.as_ref(), fold, super::ids::encode(&given))?;
    directory::replace(generation.path(), &super::ids::file_name(fold.first), &bytes)
}

impl Shared {
    /// Shows a fold in place of the journal that it was made of. False if its generation is no more.
    fn show_fold(&self, table: &Arc<Memtable>, packed: PackedFold) -> bool {
        let packed = Arc::new(packed);
        let mut shown = false;
        self.change_view(|view| {
            shown = view.generations.iter().any(|other| Arc::ptr_eq(other, &packed.generation));
            if !shown {
                return;
            }
            for source in &mut view.sources {
                if matches!(source, Source::Memory(other) if Arc::ptr_eq(other, table)) {
                    *source = Source::Packed(packed.clone());
                }
            }
        });
        shown
    }

    /// A journal that holds nothing.
    fn drop_table(&self, table: &Arc<Memtable>) -> io::Result<()> {
        self.change_view(|view| {
            view.sources
                .retain(|source| !matches!(source, Source::Memory(other) if Arc::ptr_eq(other, table)));
        });
        self.forget_unsynced(table);
        table.files().iter().try_for_each(|file| directory::remove(file))
    }

    /// The oldest journal that nobody appends to.
    fn oldest_sealed(&self) -> Option<Arc<Memtable>> {
        let writer = super::lock(&self.writer);
        let active = writer.active.as_ref().map(|active| &active.table);
        let view = self.view();
        let oldest = view.tables().next()?;
        active.is_none_or(|active| !Arc::ptr_eq(active, oldest)).then(|| oldest.clone())
    }

    /// Notes durably how far the log has come: what shows, after a restore, that it is behind.
    pub(super) fn note_head(&self, stored: Position) -> io::Result<()> {
        let stored = Position(self.durable.fetch_max(stored.0, Ordering::AcqRel)).max(stored);
        let floor = self.view().floor;
        let head = self.head();
        self.write_mark(&Watermark { head, stored, floor, clean: false })
    }

    /// Writes how far the log has come, also on a full disk.
    pub(super) fn write_mark(&self, mark: &Watermark) -> io::Result<()> {
        self.reserve.with_room(|| mark.write(self.directory.path()))
    }

    /// Puts a damaged generation aside: readers are told of the hole, and the log goes on without it.
    pub(super) fn put_aside(&self, generation: &Arc<Generation>) {
        let mut found = false;
        self.change_view(|view| found = view.lose(generation));
        if !found {
            return;
        }
        generation.mark_gone();
        self.blocks.forget(generation.number);
        self.pages.forget(generation.number);
        self.directories.forget(generation.number);
        self.counters.quarantined.fetch_add(1, Ordering::Relaxed);
        let name = generation.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = directory::free_name(self.directory.path(), &format!("quarantined-{name}"));
        tracing::error!(path = %aside.display(), "a part of the log is damaged: it is put aside");
        if let Err(error) = fs::rename(generation.path(), &aside) {
            tracing::error!(path = %aside.display(), %error, "a damaged part of the log cannot be put aside");
        }
    }

    /// Removes a generation with all that is in it, at once.
    pub(super) fn remove_generation(&self, generation: &Arc<Generation>) -> io::Result<()> {
        let last = self.view().folds_of(generation).last().map(|packed| packed.fold.last);
        let bytes = generation.measure();
        self.change_view(|view| view.forget(generation, last));
        // Durable first, so that the next start does not take what is missing for damage. With a disk that is
        // full this may fail, and must not keep us from making room.
        let noted = self.note_head(last.unwrap_or_default());
        generation.mark_gone();
        self.blocks.forget(generation.number);
        self.pages.forget(generation.number);
        self.directories.forget(generation.number);
        let name = generation.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let removed = directory::free_name(self.directory.path(), &format!("{REMOVED}{name}"));
        fs::rename(generation.path(), &removed)?;
        directory::sync_directory(self.directory.path())?;
        directory::remove(&removed)?;
        self.counters.reclaimed_bytes.fetch_add(bytes, Ordering::Relaxed);
        noted
    }
}
