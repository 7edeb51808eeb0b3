//! The file that events are appended to before anything else happens to them. Each group is one `write()` at
//! a known offset, so that what was shown survives a `kill -9`, and one `fdatasync` makes all of it durable.
//!
//! `journal-<first position>`: a header, then groups: magic, length, CRC, records.

use super::directory::{self, UNFINISHED};
use super::record::{self, Previous};
use super::wire::{Damaged, Reader};
use crate::event::{Epoch, Event, Position};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How the names of journals begin.
pub(super) const PREFIX: &str = "journal-";
const MAGIC: &[u8; 8] = b"swjrnl\x00\x01";
const GROUP_MAGIC: u32 = 0x7077_6a67;
const HEADER_BYTES: usize = 8 + 8 + 8 + 8 + 4;
const GROUP_HEADER_BYTES: usize = 12;

/// What a journal begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) epoch: Epoch,
    /// The first position in it.
    pub(super) first: Position,
    /// The last stored position before it: a link of the chain that shows when a part of the log is missing.
    pub(super) previous_stored: Position,
}

/// A journal that is written to.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Where the next group goes. Only the writer moves it.
    end: AtomicU64,
    /// Up to where a sync has made it durable.
    synced: AtomicU64,
    /// A write or sync failed in a way that leaves it unknown what is on the disk.
    broken: AtomicBool,
}

impl Journal {
    /// Creates one. Nothing of it is durable before the first sync: an fsync here would hold up every
    /// publisher of the group that begins it.
    pub(super) fn create(dir: &Path, header: Header) -> io::Result<Self> {
        // One that repeats the end of a broken journal may meet an earlier attempt.
        let name = format!("{PREFIX}{:020}", header.first.0);
        let path = directory::free_name(dir, &name);
        let unfinished = dir.join(format!("{UNFINISHED}{name}"));
        let file = directory::create(&unfinished)?;
        let bytes = header.encode();
        let made = file.write_all_at(&bytes, 0).and_then(|()| fs::rename(&unfinished, &path));
        if let Err(error) = made {
            // A disk that is full must not stay fuller for our attempt.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        Ok(Self {
            path,
            file,
            end: AtomicU64::new(bytes.len() as u64),
            synced: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in it.
    pub(super) fn bytes(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Plays a sync that failed.
    #[cfg(test)]
    pub(super) fn break_it(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Appends one encoded group. After an error nothing of it remains, or the journal is broken and takes
    /// no more.
    pub(super) fn append(&self, group: &[u8]) -> io::Result<()> {
        let end = self.bytes();
        if let Err(error) = self.file.write_all_at(group, end) {
            if let Err(second) = self.file.set_len(end) {
                tracing::error!(path = %self.path.display(), error = %second, "a journal cannot be cut back: it is closed");
                self.broken.store(true, Ordering::Release);
            }
            return Err(error);
        }
        self.end.store(end + group.len() as u64, Ordering::Release);
        Ok(())
    }

    /// Makes durable what was appended before the call; false if there was nothing to do.
    pub(super) fn sync(&self) -> io::Result<bool> {
        let end = self.bytes();
        if self.synced.load(Ordering::Acquire) >= end {
            return Ok(false);
        }
        if self.is_broken() {
            return Err(io::Error::other("an earlier sync of this journal failed"));
        }
        let is_first = self.synced.load(Ordering::Acquire) == 0;
        let named = || match self.path.parent() {
            Some(dir) if is_first => directory::sync_directory(dir),
            _ => Ok(()),
        };
        if let Err(error) = self.file.sync_data().and_then(|()| named()) {
            // The kernel may have dropped the dirty pages and marked them clean: a later success of the same
            // file would say nothing about them (F11).
            self.broken.store(true, Ordering::Release);
            return Err(error);
        }
        self.synced.fetch_max(end, Ordering::AcqRel);
        Ok(true)
    }
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&self.first.0.to_le_bytes());
        bytes.extend_from_slice(&self.previous_stored.0.to_le_bytes());
        super::meta::sealed(bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(super::meta::unsealed(bytes.get(..HEADER_BYTES).ok_or(Damaged)?)?);
        if reader.take(8)? != MAGIC {
            return Err(Damaged);
        }
        Ok(Self {
            epoch: Epoch(reader.u64()?),
            first: Position(reader.u64()?),
            previous_stored: Position(reader.u64()?),
        })
    }
}

/// Encodes the stored events of a group into `out`, which is emptied first.
pub(super) fn encode_group<'a>(out: &mut Vec<u8>, events: impl Iterator<Item = &'a Arc<Event>>) {
    out.clear();
    out.resize(GROUP_HEADER_BYTES, 0);
    let mut previous = Previous::default();
    for event in events {
        record::put_record(out, event, &mut previous);
    }
    let length = (out.len() - GROUP_HEADER_BYTES) as u32;
    let crc = crc32fast::hash(&out[GROUP_HEADER_BYTES..]);
    out[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
    out[4..8].copy_from_slice(&length.to_le_bytes());
    out[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// What was found in a journal.
pub(super) struct Recovered {
    pub(super) header: Header,
    pub(super) events: Vec<Arc<Event>>,
    /// Stretches that are damaged: after which position, and the first good one behind it.
    pub(super) holes: Vec<(Position, Position)>,
    /// Bytes at the end that are no whole group: what a crash leaves of the last write.
    pub(super) torn_bytes: u64,
}

/// Reads a journal. Damage in the middle is passed over, a torn end is left out.
pub(super) fn recover(path: &Path) -> io::Result<Result<Recovered, Damaged>> {
    let bytes = fs::read(path)?;
    let Ok(header) = Header::parse(&bytes) else { return Ok(Err(Damaged)) };
    let mut found = Recovered { header, events: Vec::new(), holes: Vec::new(), torn_bytes: 0 };
    let mut last = header.previous_stored;
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        if let Some((events, next)) = group_at(&bytes, at) {
            for event in events {
                // A journal that was begun anew after a failed sync repeats events of the one before.
                if event.position > last {
                    last = event.position;
                    found.events.push(Arc::new(event));
                }
            }
            at = next;
            continue;
        }
        let Some(next) = (at + 1..bytes.len()).find(|&next| group_at(&bytes, next).is_some()) else {
            found.torn_bytes = (bytes.len() - at) as u64;
            break;
        };
        if let Some(first) = group_at(&bytes, next).and_then(|(events, _)| events.first().map(|e| e.position))
        {
            found.holes.push((last, first));
        }
        at = next;
    }
    Ok(Ok(found))
}

/// Whether a journal without a header never had one: what a power cut leaves of a file that was not synced.
pub(super) fn is_blank(path: &Path) -> io::Result<bool> {
    Ok(fs::read(path)?.iter().all(|&byte| byte == 0))
}

/// The whole and undamaged group at an offset, and where the next begins.
fn group_at(bytes: &[u8], at: usize) -> Option<(Vec<Event>, usize)> {
    let mut reader = Reader::new(bytes.get(at..)?);
    if reader.u32().ok()? != GROUP_MAGIC {
        return None;
    }
    let length = reader.u32().ok()? as usize;
    let crc = reader.u32().ok()?;
    let payload = reader.take(length).ok()?;
    if crc32fast::hash(payload) != crc {
        return None;
    }
    let mut records = Reader::new(payload);
    let mut previous = Previous::default();
    let mut events = Vec::new();
    while !records.is_at_end() {
        events.push(record::read_record(&mut records, &mut previous).ok()?);
    }
    Some((events, at + GROUP_HEADER_BYTES + length))
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn header() -> Header {
        Header { epoch: Epoch(1), first: Position(1), previous_stored: Position(0) }
    }

    fn written(dir: &Path) -> (PathBuf, Vec<usize>) {
        let journal = Journal::create(dir, header()).unwrap();
        let mut group = Vec::new();
        let mut ends = vec![HEADER_BYTES];
        for n in 0..10 {
            let events: Vec<_> = (1..=3).map(|k| Arc::new(testing::event(n * 3 + k).build())).collect();
            encode_group(&mut group, events.iter());
            journal.append(&group).unwrap();
            ends.push(journal.bytes() as usize);
        }
        assert!(journal.sync().unwrap());
        assert!(!journal.sync().unwrap());
        (journal.path().to_owned(), ends)
    }

    #[test]
    fn a_torn_end_is_cut_at_every_length() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ends) = written(dir.path());
        let whole = fs::read(&path).unwrap();
        for length in (0..=whole.len()).rev().step_by(7) {
            fs::write(&path, &whole[..length]).unwrap();
            let Ok(found) = recover(&path).unwrap() else {
                assert!(length < HEADER_BYTES);
                continue;
            };
            let groups = ends.iter().filter(|&&end| end <= length).count() - 1;
            assert_eq!(found.events.len(), groups * 3);
            assert_eq!(found.torn_bytes as usize, length - ends[groups]);
            assert!(found.holes.is_empty());
        }
    }

    #[test]
    fn damage_in_the_middle_costs_one_group() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ends) = written(dir.path());
        let whole = fs::read(&path).unwrap();
        for at in (ends[4]..ends[5]).step_by(5) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            let Ok(found) = recover(&path).unwrap() else { panic!("the header is whole") };
            assert_eq!(found.events.len(), 27);
            assert_eq!(found.holes, [(Position(12), Position(16))]);
        }
    }
}
