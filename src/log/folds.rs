//! The list of what was packed into a generation. Adding a record to it, durably, is what commits a fold: only
//! then is the journal removed. A start reads these lists and never opens sled.

use super::view::Hole;
use super::wire::{Damaged, Reader, put_varint};
use crate::cipher::{KeyId, LOCK_BYTES, Lock};
use crate::event::{Position, UnixMs};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The file's name in a generation.
pub(super) const FILE: &str = "folds";
const MAGIC: &[u8; 8] = b"swfolds\x01";
/// In how many steps the expiry of a fold's events is told.
const STEPS: usize = 8;

/// One packed journal.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Fold {
    /// The first position it covers; its key in sled.
    pub(super) first: Position,
    /// The last.
    pub(super) last: Position,
    /// The last stored position before it.
    pub(super) previous_stored: Position,
    /// Events kept in it.
    pub(super) events: u64,
    pub(super) blocks: u32,
    /// Bytes of its events unpacked.
    pub(super) raw_bytes: u64,
    /// Bytes that it takes packed, index included.
    pub(super) packed_bytes: u64,
    pub(super) min_time: UnixMs,
    pub(super) max_time: UnixMs,
    /// When the last of its events ceases to be kept.
    pub(super) max_expiry: UnixMs,
    /// At each of these times another eighth of the events has ceased to be kept.
    pub(super) expiry_steps: Vec<UnixMs>,
    /// Stretches within or before it that have nothing.
    pub(super) holes: Vec<Hole>,
    /// What its values are encrypted with; none if they are not.
    pub(super) lock: Option<Lock>,
}

impl Fold {
    /// The key that it is encrypted with.
    pub(super) fn key(&self) -> Option<KeyId> {
        self.lock.map(|lock| lock.key)
    }

    /// Sets what is told about expiry from the times of all events.
    pub(super) fn set_expiries(&mut self, mut expiries: Vec<UnixMs>) {
        expiries.sort_unstable();
        self.max_expiry = expiries.last().copied().unwrap_or(0);
        self.expiry_steps = (1..=STEPS)
            .filter_map(|step| expiries.get((expiries.len() * step / STEPS).saturating_sub(1)).copied())
            .collect();
    }

    /// About which part of its events has ceased to be kept, in percent.
    pub(super) fn expired_percent(&self, now: UnixMs) -> u64 {
        let passed = self.expiry_steps.iter().filter(|&&step| step <= now).count();
        (passed * 100 / self.expiry_steps.len().max(1)) as u64
    }

    /// Its record in the list. Every value of an encrypted fold is bound to it.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for value in [
            self.first.0,
            self.last.0,
            self.previous_stored.0,
            self.events,
            u64::from(self.blocks),
            self.raw_bytes,
            self.packed_bytes,
            self.min_time,
            self.max_time,
            self.max_expiry,
            self.expiry_steps.len() as u64,
        ] {
            put_varint(&mut out, value);
        }
        self.expiry_steps.iter().for_each(|&step| put_varint(&mut out, step));
        put_varint(&mut out, self.holes.len() as u64);
        for hole in &self.holes {
            put_varint(&mut out, hole.after.0);
            put_varint(&mut out, hole.up_to.0);
        }
        if let Some(lock) = &self.lock {
            out.extend_from_slice(&lock.to_bytes());
        }
        out
    }

    fn parse(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        let mut fold = Self {
            first: Position(reader.varint()?),
            last: Position(reader.varint()?),
            previous_stored: Position(reader.varint()?),
            events: reader.varint()?,
            blocks: reader.varint()? as u32,
            raw_bytes: reader.varint()?,
            packed_bytes: reader.varint()?,
            min_time: reader.varint()?,
            max_time: reader.varint()?,
            max_expiry: reader.varint()?,
            ..Self::default()
        };
        for _ in 0..reader.size()? {
            fold.expiry_steps.push(reader.varint()?);
        }
        for _ in 0..reader.size()? {
            fold.holes.push(Hole { after: Position(reader.varint()?), up_to: Position(reader.varint()?) });
        }
        if !reader.is_at_end() {
            let lock = reader.take(LOCK_BYTES)?.try_into().map_err(|_| Damaged)?;
            fold.lock = Some(Lock::from_bytes(lock));
        }
        Ok(fold)
    }
}

/// The list of a generation, open for adding.
pub(super) struct FoldsFile {
    file: File,
    end: u64,
}

impl FoldsFile {
    /// Begins a list; `swept` is the number of the first deletion that is not yet carried out in it.
    pub(super) fn create(dir: &Path, swept: u64) -> io::Result<Self> {
        let file = super::directory::create(&dir.join(FILE))?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&swept.to_le_bytes());
        let header = super::meta::sealed(header);
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
        Ok(Self { file, end: header.len() as u64 })
    }

    /// Opens a list to add to it, after the part that is whole.
    pub(super) fn open(dir: &Path, whole_bytes: u64) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(dir.join(FILE))?;
        file.set_len(whole_bytes)?;
        Ok(Self { file, end: whole_bytes })
    }

    /// Adds a fold durably. After an error the list is as before, or must not be added to again.
    pub(super) fn add(&mut self, fold: &Fold) -> io::Result<()> {
        let payload = fold.encode();
        let mut record = (payload.len() as u32).to_le_bytes().to_vec();
        record.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        record.extend_from_slice(&payload);
        self.file.write_all_at(&record, self.end)?;
        self.file.sync_data()?;
        self.end += record.len() as u64;
        Ok(())
    }
}

/// What a generation's list says.
pub(super) struct FoldsList {
    pub(super) folds: Vec<Fold>,
    pub(super) swept: u64,
    /// Up to where the file is whole.
    pub(super) whole_bytes: u64,
    /// Something follows that is no whole record: torn by a crash, or damaged.
    pub(super) is_cut: bool,
}

/// Reads a list up to the first record that is not whole. A fold behind that is found missing by the chain of
/// positions, and is in its journal still unless the file was damaged later.
pub(super) fn read(dir: &Path) -> io::Result<Result<FoldsList, Damaged>> {
    let bytes = fs::read(dir.join(FILE))?;
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Result<FoldsList, Damaged> {
    const HEADER_BYTES: usize = 8 + 8 + 4;
    let header = super::meta::unsealed(bytes.get(..HEADER_BYTES).ok_or(Damaged)?)?;
    let mut reader = Reader::new(header);
    if reader.take(8)? != MAGIC {
        return Err(Damaged);
    }
    let swept = reader.u64()?;
    let mut list = FoldsList { folds: Vec::new(), swept, whole_bytes: HEADER_BYTES as u64, is_cut: false };
    let mut reader = Reader::new(&bytes[HEADER_BYTES..]);
    while !reader.is_at_end() {
        match record(&mut reader) {
            Ok(fold) => {
                // One that was packed again after a failure: the values are those of the last attempt.
                list.folds.pop_if(|before| before.first == fold.first);
                list.folds.push(fold);
                list.whole_bytes = (bytes.len() - reader.rest().len()) as u64;
            }
            Err(Damaged) => {
                list.is_cut = true;
                break;
            }
        }
    }
    Ok(list)
}

fn record(reader: &mut Reader<'_>) -> Result<Fold, Damaged> {
    let length = reader.u32()? as usize;
    let crc = reader.u32()?;
    let payload = reader.take(length)?;
    if crc32fast::hash(payload) != crc {
        return Err(Damaged);
    }
    Fold::parse(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_attempts_to_pack_the_last_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = FoldsFile::create(dir.path(), 0).unwrap();
        let keyring = crate::cipher::Keyring::for_tests(&[1]);
        let lock = || keyring.begin(crate::cipher::Part::Fold).unwrap().map(|cipher| cipher.lock());
        let attempts: Vec<_> =
            (0..2).map(|_| Fold { first: Position(7), lock: lock(), ..Fold::default() }).collect();
        attempts.iter().for_each(|fold| file.add(fold).unwrap());
        let Ok(list) = read(dir.path()).unwrap() else { panic!("it is whole") };
        assert_eq!(list.folds, attempts[1..]);
        assert!(!list.is_cut);
    }

    #[test]
    fn a_list_comes_back_up_to_any_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = FoldsFile::create(dir.path(), 3).unwrap();
        let mut folds = Vec::new();
        for n in 1..=5 {
            let mut fold = Fold { first: Position(n * 10), last: Position(n * 10 + 9), ..Fold::default() };
            fold.set_expiries((0..100 * n).collect());
            fold.holes.push(Hole { after: Position(n * 10), up_to: Position(n * 10 + 2) });
            assert_eq!(fold.expired_percent(50 * n), 50);
            file.add(&fold).unwrap();
            folds.push(fold);
        }
        let Ok(list) = read(dir.path()).unwrap() else { panic!("it is whole") };
        assert_eq!((list.folds, list.swept, list.is_cut), (folds.clone(), 3, false));
        let bytes = fs::read(dir.path().join(FILE)).unwrap();
        for length in 20..bytes.len() {
            let list = parse(&bytes[..length]).unwrap_or_else(|_| panic!("the header is whole"));
            assert_eq!(list.folds[..], folds[..list.folds.len()]);
            assert_eq!(list.is_cut, list.whole_bytes < length as u64);
        }
    }
}
