//! Disk space that is kept back for a full disk. Opening a packed part to read it writes a little, and so do
//! deleting and giving space back: none of it may fail because appends took the last byte. A file holds the
//! space. Whoever meets the full disk gives it up; from then on nothing is appended or packed until there is
//! room for the file again, and some more.

use super::directory;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The file's name.
pub(super) const FILE: &str = "reserve";
/// sled writes half a MiB at a time: with less than this free its failures are taken for a full disk.
const SHORT_BYTES: u64 = 1 << 20;

/// The space that is kept back.
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    /// It was given up: the disk is full.
    released: AtomicBool,
    state: Mutex<State>,
    /// Held while much is written: that must not get what is given up.
    packing: Mutex<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Held,
    Released,
    /// It cannot be made here, for another reason than a full disk: the log goes on without.
    Unusable,
}

impl Reserve {
    /// What an earlier process left of it. Nothing is made yet, so that a log may be looked at only.
    pub(super) fn find(dir: &Path, bytes: u64) -> Self {
        let path = dir.join(FILE);
        let is_whole = fs::symlink_metadata(&path)
            .is_ok_and(|meta| meta.is_file() && meta.len() == bytes && meta.blocks() * 512 >= bytes);
        // Until it was tried nobody is told that there is no room.
        let state = if is_whole { State::Held } else { State::Unusable };
        Self {
            path,
            bytes,
            released: AtomicBool::new(false),
            state: Mutex::new(state),
            packing: Mutex::default(),
        }
    }

    /// Makes it at the start, if it is not there.
    pub(super) fn prepare(&self) {
        let mut state = super::lock(&self.state);
        if *state == State::Unusable && !self.released.load(Ordering::Acquire) {
            self.make(&mut state);
        }
    }

    /// Whether the disk is full, as far as is known: then nothing may be appended or packed.
    pub(super) fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// Takes the space back if there is room again. Says whether appends and packing may go on.
    pub(super) fn take_back(&self) -> bool {
        if !self.is_released() {
            return true;
        }
        let mut state = super::lock(&self.state);
        if *state == State::Released {
            self.make(&mut state);
        }
        !self.is_released()
    }

    /// Does something that writes much, unless the disk is full. Until it is done nothing is given up: what
    /// it would take of that stays taken.
    pub(super) fn pack<T, E: From<io::Error>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let _packing = super::lock(&self.packing);
        if self.is_released() {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        work()
    }

    /// Gives the space up; false if there was none to give.
    pub(super) fn release(&self) -> bool {
        let _no_packing = super::lock(&self.packing);
        let mut state = super::lock(&self.state);
        if *state != State::Held {
            return false;
        }
        if let Err(error) = directory::remove(&self.path) {
            tracing::error!(path = %self.path.display(), %error, "the space kept back for a full disk cannot be given up");
            return false;
        }
        self.set(&mut state, State::Released);
        tracing::warn!(
            path = %self.path.display(),
            "the disk of the log is full: nothing is appended until there is room; what is kept stays readable"
        );
        true
    }

    /// Gives the space up if there is hardly any other; false if it was not given up now.
    pub(super) fn release_if_short(&self) -> bool {
        !self.is_released() && self.is_short() && self.release()
    }

    /// Whether a failure may be due to a full disk, and says nothing of what is on it.
    pub(super) fn is_short(&self) -> bool {
        self.is_released() || self.free_bytes().is_ok_and(|free| free < SHORT_BYTES)
    }

    /// Does what may meet a full disk, then once more with the space given up.
    pub(super) fn with_room<T>(&self, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if is_full(&error) && self.release() => work(),
            outcome => outcome,
        }
    }

    fn make(&self, state: &mut State) {
        let was_released = *state == State::Released;
        match self.try_make() {
            Ok(()) => {
                self.set(state, State::Held);
                if was_released {
                    tracing::info!("the disk of the log has room again: appends go on");
                }
            }
            Err(error) if is_full(&error) => {
                self.set(state, State::Released);
                if !was_released {
                    tracing::warn!(
                        path = %self.path.display(),
                        needed = 2 * self.bytes,
                        "the disk of the log is full: nothing is appended until there is room"
                    );
                }
            }
            Err(error) => {
                self.set(state, State::Unusable);
                tracing::warn!(
                    path = %self.path.display(),
                    %error,
                    "no space can be kept back: with a full disk, older events may not be readable"
                );
            }
        }
    }

    /// Takes the space only if as much again stays free: appends would meet the full disk at once otherwise.
    fn try_make(&self) -> io::Result<()> {
        if self.free_bytes().is_ok_and(|free| free < 2 * self.bytes) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let made = allocate(&self.path, self.bytes);
        if made.is_err() {
            // Half of it would only take room.
            let _ = directory::remove(&self.path);
        }
        made
    }

    fn set(&self, state: &mut State, new: State) {
        *state = new;
        self.released.store(new == State::Released, Ordering::Release);
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = statvfs(self.path.parent().unwrap_or(Path::new(".")))?;
        // A file system without a size has no end.
        Ok(if found.f_blocks == 0 { u64::MAX } else { found.f_bavail.saturating_mul(found.f_frsize) })
    }
}

/// Whether it was a full disk that an operation met. A file-size limit is none: nothing given up helps there.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes a file that really takes so many bytes.
fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let file = directory::create(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    // No zeros: a file system may store these as nothing.
    let noise: Vec<u8> = (0..64 << 10).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 16) as u8).collect();
    let mut at = 0;
    while at < bytes {
        let length = (bytes - at).min(noise.len() as u64);
        file.write_all_at(&noise[..length as usize], at)?;
        at += length;
    }
    // Only then is it known that there was room.
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{AppendError, Position};
    use super::*;

    #[test]
    fn the_space_is_really_taken_given_up_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::find(dir.path(), 1 << 20);
        reserve.prepare();
        assert!(directory::disk_use(&dir.path().join(FILE)) >= 1 << 20);
        assert!(!reserve.is_released() && reserve.take_back());
        // The next process finds it.
        let reserve = Reserve::find(dir.path(), 1 << 20);
        assert!(reserve.release() && !reserve.release() && reserve.is_released());
        assert!(!dir.path().join(FILE).exists());
        assert!(reserve.take_back() && dir.path().join(FILE).exists());
        // Another size is made anew.
        let reserve = Reserve::find(dir.path(), 2 << 20);
        reserve.prepare();
        assert!(directory::disk_use(&dir.path().join(FILE)) >= 2 << 20);
    }

    #[test]
    fn a_full_disk_is_met_once_and_the_second_attempt_has_room() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::find(dir.path(), 1 << 20);
        reserve.prepare();
        let work = || match dir.path().join(FILE).exists() {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(7),
        };
        assert_eq!(reserve.with_room(work).unwrap(), 7);
        let full = || -> io::Result<()> { Err(io::ErrorKind::StorageFull.into()) };
        assert!(reserve.with_room(full).is_err());
    }

    #[test]
    fn nothing_is_appended_while_the_space_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        log.append(&[event(log.next_position().0).shared()]).unwrap();
        let reserve = &log.0.shared.reserve;
        wait_for("the keeper's start", || dir.path().join("log").join(FILE).exists());
        let mut refused = false;
        // The keeper takes it back whenever it likes.
        wait_for("an append that is refused", || {
            reserve.release();
            refused = matches!(log.append(&[event(log.next_position().0).shared()]), Err(AppendError::Full));
            refused
        });
        assert!(log.find(log.head()).unwrap().is_some() && log.head() > Position::ZERO);
        wait_for("an append that is taken again", || {
            log.append(&[event(log.next_position().0).shared()]).is_ok()
        });
    }
}
