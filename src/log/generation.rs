//! A generation: one sled database in a directory of its own, that is removed whole. The only file that knows
//! sled, and what is known of its faults:
//!
//! - its `flush` does not reach the disk: our own `fdatasync` follows;
//! - a kill while it opens or is created may brick it: left-over snapshots are removed, creation is renamed in;
//! - damage makes it panic: every call is caught, and a generation that does it twice is put aside;
//! - values above 8 kB become files that leak: nothing larger than [`PART_BYTES`] goes in;
//! - its cache counts too little: few are open at a time, and closing frees the memory.

use super::{directory, reserve};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How the names of generations begin.
pub(super) const PREFIX: &str = "generation-";
/// The largest value.
const PART_BYTES: usize = 6000;
/// What the first part begins with: a checksum and the number of further parts.
const FIRST_HEADER: usize = 4 + 2;
/// sled's own cache; blocks that are read again come from ours.
const CACHE_BYTES: u64 = 2 << 20;
/// After a close, threads of sled may hold the file's lock a little longer.
const LONGEST_OPEN: Duration = Duration::from_secs(2);

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Kind {
    /// A block of events.
    Block,
    /// What there is in a fold, and where.
    Directory,
    /// A page of terms.
    Terms,
}

/// How new it is that a place is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Damage {
    /// It was met before.
    Known,
    /// Another place of the same fold was.
    NewPlace,
    /// It is the first of its fold.
    NewFold,
}

/// Why a generation cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// Not now: no memory, no file descriptors.
    Unavailable,
    /// Not while the disk is full.
    Full,
    /// It was removed meanwhile.
    Gone,
    /// It is damaged as a whole.
    Broken,
}

/// One generation, open or not.
pub(super) struct Generation {
    /// Names it in caches: a rewritten generation has the same directory, but is another.
    pub(super) number: u64,
    path: PathBuf,
    slot: RwLock<Option<sled::Db>>,
    /// When it was last read, in milliseconds since `start`.
    used: AtomicU64,
    start: Instant,
    gone: AtomicBool,
    disk_bytes: AtomicU64,
    /// The number of the first deletion that is not carried out in it.
    pub(super) swept: AtomicU64,
    /// Where damage was met: fold, kind, number. No more than what is stored in it.
    damaged: Mutex<HashSet<(u64, Kind, u32)>>,
    /// Bytes that went through sled since it was opened: about what it holds in memory.
    passed: AtomicU64,
    /// When its dead events were counted last.
    examined: Mutex<Option<Instant>>,
}

impl Generation {
    /// One that is on the disk.
    pub(super) fn new(path: PathBuf, swept: u64) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let disk_bytes = AtomicU64::new(directory::disk_use(&path));
        Self {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            path,
            slot: RwLock::new(None),
            used: AtomicU64::new(0),
            start: Instant::now(),
            gone: AtomicBool::new(false),
            disk_bytes,
            swept: AtomicU64::new(swept),
            damaged: Mutex::default(),
            passed: AtomicU64::new(0),
            examined: Mutex::default(),
        }
    }

    /// Whether it may be read in whole again to count its dead events; that is costly.
    pub(super) fn may_examine(&self, again_after: Duration) -> bool {
        let mut examined = super::lock(&self.examined);
        let may = examined.is_none_or(|last| last.elapsed() >= again_after);
        if may {
            *examined = Some(Instant::now());
        }
        may
    }

    /// Notes a damaged place in a fold, which may be read again and again.
    pub(super) fn note_damage(&self, fold: u64, kind: Kind, number: u32) -> Damage {
        let mut damaged = super::lock(&self.damaged);
        let place = (fold, kind, number);
        if damaged.contains(&place) {
            return Damage::Known;
        }
        let is_known_fold = damaged.iter().any(|(known, ..)| *known == fold);
        damaged.insert(place);
        if is_known_fold { Damage::NewPlace } else { Damage::NewFold }
    }

    /// Makes the database of a new generation in a directory that has another name still, and closes it.
    pub(super) fn create(unfinished: &Path) -> io::Result<()> {
        fs::create_dir(unfinished)?;
        let made = catch_unwind(|| -> sled::Result<()> {
            let db = open_db(unfinished)?;
            db.flush()?;
            Ok(())
        });
        match made {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(into_io(error)),
            Err(_) => return Err(io::Error::other("sled panicked while it made a database")),
        }
        for name in ["db", "conf"] {
            File::open(unfinished.join(name))?.sync_all()?;
        }
        directory::sync_directory(unfinished)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that it takes on the disk, as last measured.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    /// Measures what it takes on the disk.
    pub(super) fn measure(&self) -> u64 {
        let bytes = directory::disk_use(&self.path);
        self.disk_bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    /// Reads a value.
    pub(super) fn get(&self, fold: u64, kind: Kind, number: u32) -> Result<Option<Vec<u8>>, Trouble> {
        let value = self.with(|db| read_object(db, fold, kind, number))?;
        self.passed.fetch_add(value.as_ref().map_or(0, Vec::len) as u64, Ordering::Relaxed);
        Ok(value)
    }

    /// Writes values and makes them durable.
    pub(super) fn put<'a>(
        &self,
        fold: u64,
        values: impl Iterator<Item = (Kind, u32, &'a [u8])> + Clone,
    ) -> Result<(), Trouble> {
        let bytes: usize = values.clone().map(|(_, _, bytes)| bytes.len()).sum();
        self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
        self.with(|db| {
            // sled writes all values of a node again whenever it splits. Split by keys without values first,
            // the values are then written once: the file is half as large.
            for (kind, number, bytes) in values.clone() {
                for part in 0..parts_of(bytes.len()) {
                    db.insert(key(fold, kind, number, part), &[])?;
                }
            }
            for (kind, number, bytes) in values.clone() {
                write_object(db, fold, kind, number, bytes)?;
            }
            db.flush()?;
            Ok(())
        })?;
        // What `flush` leaves in the page cache, a power cut takes.
        File::open(self.path.join("db")).and_then(|file| file.sync_data()).map_err(|error| {
            tracing::error!(path = %self.path.display(), %error, "a generation cannot be synced");
            self.close();
            Trouble::Unavailable
        })
    }

    /// About how many bytes sled holds of it: its own cache keeps what it once read.
    pub(super) fn held_bytes(&self) -> u64 {
        self.passed.load(Ordering::Relaxed).min(self.disk_bytes())
    }

    /// Whether sled has it open.
    pub(super) fn is_open(&self) -> bool {
        self.slot.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// For how long nobody read it.
    pub(super) fn idle(&self) -> Duration {
        let used = Duration::from_millis(self.used.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(used)
    }

    /// Closes it, which frees its memory; the next read opens it again.
    pub(super) fn close(&self) {
        let db = self.slot.write().unwrap_or_else(PoisonError::into_inner).take();
        self.passed.store(0, Ordering::Relaxed);
        // sled flushes when it is dropped, and panics if that fails.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }

    /// Its directory is removed or about to be: nobody opens it again.
    pub(super) fn mark_gone(&self) {
        self.gone.store(true, Ordering::Release);
        self.close();
    }

    /// Runs something on the database, opened if need be. What fails is tried once more on a fresh handle.
    fn with<T>(&self, work: impl Fn(&sled::Db) -> sled::Result<T>) -> Result<T, Trouble> {
        let mut trouble = Trouble::Unavailable;
        for attempt in 0..2 {
            match self.attempt(&work) {
                Ok(value) => return Ok(value),
                Err(Trouble::Gone) => return Err(Trouble::Gone),
                Err(other) => trouble = other,
            }
            tracing::debug!(path = %self.path.display(), attempt, ?trouble, "a generation failed");
            self.close();
        }
        Err(trouble)
    }

    fn attempt<T>(&self, work: impl Fn(&sled::Db) -> sled::Result<T>) -> Result<T, Trouble> {
        loop {
            let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(db) = slot.as_ref() {
                self.used.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
                return caught(|| work(db));
            }
            drop(slot);
            self.open()?;
        }
    }

    fn open(&self) -> Result<(), Trouble> {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            return Ok(());
        }
        if self.gone.load(Ordering::Acquire) {
            return Err(Trouble::Gone);
        }
        remove_snapshot_leftovers(&self.path).map_err(|error| of_io(&error))?;
        if !self.path.join("db").exists() {
            return Err(Trouble::Broken);
        }
        let deadline = Instant::now() + LONGEST_OPEN;
        loop {
            match catch_unwind(|| open_db(&self.path)) {
                Ok(Ok(db)) => {
                    self.used.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
                    *slot = Some(db);
                    return Ok(());
                }
                Ok(Err(sled::Error::Io(error))) if is_locked(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(Err(error)) => return Err(of_sled(&error)),
                Err(_) => return Err(Trouble::Broken),
            }
        }
    }
}

fn open_db(path: &Path) -> sled::Result<sled::Db> {
    sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(None)
        .open()
}

fn caught<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, Trouble> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(of_sled(&error)),
        Err(_) => Err(Trouble::Broken),
    }
}

fn of_sled(error: &sled::Error) -> Trouble {
    match error {
        sled::Error::Io(error) => of_io(error),
        _ => Trouble::Broken,
    }
}

fn of_io(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => {
            Trouble::Broken
        }
        _ if reserve::is_full(error) => Trouble::Full,
        _ => Trouble::Unavailable,
    }
}

fn into_io(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// sled wraps what the lock says in an error of its own.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("lock")
}

/// A kill while sled opens may leave a half-written snapshot that keeps it from ever opening again.
fn remove_snapshot_leftovers(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            directory::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// A value larger than [`PART_BYTES`] is kept in parts; the first tells how many, and the checksum of all.
fn write_object(db: &sled::Db, fold: u64, kind: Kind, number: u32, bytes: &[u8]) -> sled::Result<()> {
    let first = bytes.len().min(PART_BYTES - FIRST_HEADER);
    let (first, rest) = bytes.split_at(first);
    let parts = parts_of(bytes.len()) - 1;
    if rest.len() > usize::from(parts) * PART_BYTES {
        return Err(sled::Error::Unsupported("a value of more than 393 MB".to_owned()));
    }
    let mut value = crc32fast::hash(bytes).to_le_bytes().to_vec();
    value.extend_from_slice(&parts.to_le_bytes());
    value.extend_from_slice(first);
    db.insert(key(fold, kind, number, 0), value)?;
    for (part, bytes) in rest.chunks(PART_BYTES).enumerate() {
        db.insert(key(fold, kind, number, part as u16 + 1), bytes)?;
    }
    Ok(())
}

/// In how many parts a value is kept.
fn parts_of(bytes: usize) -> u16 {
    let rest = bytes.saturating_sub(PART_BYTES - FIRST_HEADER);
    u16::try_from(1 + rest.div_ceil(PART_BYTES)).unwrap_or(u16::MAX)
}

/// None if it is missing or damaged.
fn read_object(db: &sled::Db, fold: u64, kind: Kind, number: u32) -> sled::Result<Option<Vec<u8>>> {
    let Some(value) = db.get(key(fold, kind, number, 0))? else { return Ok(None) };
    let Some((crc, value)) = value.split_first_chunk::<4>() else { return Ok(None) };
    let Some((parts, first)) = value.split_first_chunk::<2>() else { return Ok(None) };
    let mut bytes = first.to_vec();
    for part in 1..=u16::from_le_bytes(*parts) {
        let Some(value) = db.get(key(fold, kind, number, part))? else { return Ok(None) };
        bytes.extend_from_slice(&value);
    }
    Ok((crc32fast::hash(&bytes).to_le_bytes() == *crc).then_some(bytes))
}

/// Ordered so that the values of a fold are neighbours, in the order of their numbers.
fn key(fold: u64, kind: Kind, number: u32, part: u16) -> [u8; 15] {
    let mut key = [0; 15];
    key[..8].copy_from_slice(&fold.to_be_bytes());
    key[8] = match kind {
        Kind::Block => b'b',
        Kind::Directory => b'd',
        Kind::Terms => b't',
    };
    key[9..13].copy_from_slice(&number.to_be_bytes());
    key[13..].copy_from_slice(&part.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(dir: &Path) -> Generation {
        let path = dir.join("generation-1");
        Generation::create(&path).unwrap();
        Generation::new(path, 0)
    }

    #[test]
    fn values_of_any_size_come_back_and_never_become_files() {
        let dir = tempfile::tempdir().unwrap();
        let generation = generation(dir.path());
        let values: Vec<Vec<u8>> = [0, 1, 5993, 5994, 5995, 11_994, 11_995, 1 << 20, 3 << 20]
            .iter()
            .map(|&size| (0..size).map(|n: usize| (n * 7 + size) as u8).collect())
            .collect();
        let all = values.iter().enumerate().map(|(n, value)| (Kind::Block, n as u32, &value[..]));
        generation.put(9, all).unwrap();
        for _ in 0..2 {
            for (n, value) in values.iter().enumerate() {
                assert_eq!(generation.get(9, Kind::Block, n as u32).unwrap().as_ref(), Some(value));
            }
            assert_eq!(generation.get(9, Kind::Terms, 0), Ok(None));
            generation.close();
            assert!(!generation.is_open());
        }
        assert_eq!(fs::read_dir(generation.path().join("blobs")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_kill_leaves_of_a_snapshot_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let generation = generation(dir.path());
        generation.put(1, std::iter::once((Kind::Block, 0, &b"x"[..]))).unwrap();
        generation.close();
        fs::write(generation.path().join("snap.00000000000000ff.generating"), "half").unwrap();
        assert_eq!(generation.get(1, Kind::Block, 0), Ok(Some(b"x".to_vec())));
    }

    #[test]
    fn a_ruined_database_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let generation = generation(dir.path());
        let value = vec![7; 5000];
        generation.put(1, (0..400).map(|n| (Kind::Block, n, &value[..]))).unwrap();
        generation.close();
        let file = generation.path().join("db");
        let size = fs::metadata(&file).unwrap().len() as usize;
        fs::write(&file, vec![0x5a; size]).unwrap();
        assert!(!matches!(generation.get(1, Kind::Block, 3), Ok(Some(_))));
    }
}
