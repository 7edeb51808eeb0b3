//! The file that events are appended to before anything else happens to them. Each group is one `write()` at
//! a known offset, so that what was shown survives a `kill -9`, and one `fdatasync` makes all of it durable.
//!
//! `journal-<first position>`: a header, then groups: magic, length, CRC, records. If it is encrypted, the header has
//! the lock as well, and a tag that only who has the key can make. The records of a group then stand behind a number
//! that no other attempt to write a group of this journal has, and are bound to where they stand.

use super::directory::{self, UNFINISHED};
use super::record::{self, Previous};
use super::wire::{Damaged, Reader};
use crate::cipher::{Cipher, KeyId, Keyring, LOCK_BYTES, Lock, Part, TAG_BYTES};
use crate::event::{Epoch, Event, Position};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How the names of journals begin.
pub(super) const PREFIX: &str = "journal-";
const MAGIC: &[u8; 8] = b"swjrnl\x00\x01";
const SEALED_MAGIC: &[u8; 8] = b"swjrnl\x00\x02";
const GROUP_MAGIC: u32 = 0x7077_6a67;
const HEADER_BYTES: usize = 8 + 8 + 8 + 8 + 4;
const SEALED_HEADER_BYTES: usize = HEADER_BYTES + LOCK_BYTES + TAG_BYTES;
const GROUP_HEADER_BYTES: usize = 12;
/// The number that the header's tag is made under. Groups count from 1.
const HEADER_NUMBER: u64 = 0;

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
    cipher: Option<Cipher>,
    /// The number of the last group that was encrypted, written or not.
    groups: AtomicU64,
}

impl Journal {
    /// Creates one. Nothing of it is durable before the first sync: an fsync here would hold up every
    /// publisher of the group that begins it.
    pub(super) fn create(dir: &Path, header: Header, keyring: &Keyring) -> io::Result<Self> {
        // One that repeats the end of a broken journal may meet an earlier attempt.
        let name = format!("{PREFIX}{:020}", header.first.0);
        let path = directory::free_name(dir, &name);
        let unfinished = dir.join(format!("{UNFINISHED}{name}"));
        let file = directory::create(&unfinished)?;
        let cipher = keyring.begin(Part::Journal)?;
        let bytes = header.encode(cipher.as_ref())?;
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
            cipher,
            groups: AtomicU64::new(HEADER_NUMBER),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in it.
    pub(super) fn bytes(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The key that it is encrypted with.
    pub(super) fn key(&self) -> Option<KeyId> {
        self.cipher.as_ref().map(|cipher| cipher.lock().key)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Plays a sync that failed.
    #[cfg(test)]
    pub(super) fn break_it(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Appends one group of stored events, which it encodes into `group`. After an error nothing of it remains, or
    /// the journal is broken and takes no more.
    pub(super) fn append<'a>(
        &self,
        group: &mut Vec<u8>,
        events: impl Iterator<Item = &'a Arc<Event>>,
    ) -> io::Result<()> {
        let end = self.bytes();
        self.encode(group, events, end)?;
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

    /// Encodes a group that is to stand at `at`.
    fn encode<'a>(
        &self,
        out: &mut Vec<u8>,
        events: impl Iterator<Item = &'a Arc<Event>>,
        at: u64,
    ) -> io::Result<()> {
        out.clear();
        out.resize(GROUP_HEADER_BYTES, 0);
        // Another one for a second attempt: what it holds may differ, and a disk may have kept some of the first.
        let number = self.groups.fetch_add(1, Ordering::Relaxed) + 1;
        if self.cipher.is_some() {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let begin = out.len();
        let mut previous = Previous::default();
        for event in events {
            record::put_record(out, event, &mut previous);
        }
        if let Some(cipher) = &self.cipher {
            cipher.seal(number, &at.to_le_bytes(), out, begin)?;
        }
        let length = (out.len() - GROUP_HEADER_BYTES) as u32;
        let crc = crc32fast::hash(&out[GROUP_HEADER_BYTES..]);
        out[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&length.to_le_bytes());
        out[8..12].copy_from_slice(&crc.to_le_bytes());
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
    fn encode(&self, cipher: Option<&Cipher>) -> io::Result<Vec<u8>> {
        let mut bytes = if cipher.is_some() { SEALED_MAGIC } else { MAGIC }.to_vec();
        bytes.extend_from_slice(&self.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&self.first.0.to_le_bytes());
        bytes.extend_from_slice(&self.previous_stored.0.to_le_bytes());
        if let Some(cipher) = cipher {
            bytes.extend_from_slice(&cipher.lock().to_bytes());
            let mut tag = Vec::new();
            cipher.seal(HEADER_NUMBER, &bytes, &mut tag, 0)?;
            bytes.append(&mut tag);
        }
        Ok(super::meta::sealed(bytes))
    }
}

/// The begin of a journal as it was read.
struct Begin<'a> {
    header: Header,
    sealed: Option<Sealed<'a>>,
    /// Where the first group stands.
    length: usize,
}

/// What makes the header of an encrypted journal believable.
struct Sealed<'a> {
    lock: Lock,
    about: &'a [u8],
    tag: &'a [u8],
}

impl<'a> Begin<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let is_sealed = bytes.starts_with(SEALED_MAGIC);
        let length = if is_sealed { SEALED_HEADER_BYTES } else { HEADER_BYTES };
        let whole = super::meta::unsealed(bytes.get(..length).ok_or(Damaged)?)?;
        let mut reader = Reader::new(whole);
        let magic = reader.take(8)?;
        if !is_sealed && magic != MAGIC {
            return Err(Damaged);
        }
        let header = Header {
            epoch: Epoch(reader.u64()?),
            first: Position(reader.u64()?),
            previous_stored: Position(reader.u64()?),
        };
        let mut sealed = None;
        if is_sealed {
            let lock = reader.take(LOCK_BYTES)?.try_into().map_err(|_| Damaged)?;
            let (about, tag) = whole.split_at(whole.len() - TAG_BYTES);
            sealed = Some(Sealed { lock: Lock::from_bytes(lock), about, tag });
        }
        Ok(Self { header, sealed, length })
    }

    /// What its groups are decrypted with; a header that was not made with the key is damaged.
    fn cipher(&self, keyring: &Keyring) -> io::Result<Result<Option<Cipher>, Damaged>> {
        let Some(Sealed { lock, about, tag }) = &self.sealed else { return Ok(Ok(None)) };
        let cipher = keyring.cipher(*lock, Part::Journal).map_err(io::Error::other)?;
        let is_ours = cipher.open(HEADER_NUMBER, about, tag).is_some();
        Ok(if is_ours { Ok(Some(cipher)) } else { Err(Damaged) })
    }
}

/// The key that a journal is encrypted with, as far as its header can be read.
pub(super) fn key_of(path: &Path) -> io::Result<Option<KeyId>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SEALED_HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(Begin::parse(&bytes).ok().and_then(|begin| begin.sealed).map(|sealed| sealed.lock.key))
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
pub(super) fn recover(path: &Path, keyring: &Keyring) -> io::Result<Result<Recovered, Damaged>> {
    let bytes = fs::read(path)?;
    let Ok(begin) = Begin::parse(&bytes) else { return Ok(Err(Damaged)) };
    let Ok(cipher) = begin.cipher(keyring)? else { return Ok(Err(Damaged)) };
    let Begin { header, length, .. } = begin;
    let group_at = |at| group_at(&bytes, at, cipher.as_ref());
    let mut found = Recovered { header, events: Vec::new(), holes: Vec::new(), torn_bytes: 0 };
    let mut last = header.previous_stored;
    let mut at = length;
    while at < bytes.len() {
        if let Some((events, next)) = group_at(at) {
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
        let Some(next) = (at + 1..bytes.len()).find(|&next| group_at(next).is_some()) else {
            found.torn_bytes = (bytes.len() - at) as u64;
            break;
        };
        if let Some(first) = group_at(next).and_then(|(events, _)| events.first().map(|e| e.position)) {
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
fn group_at(bytes: &[u8], at: usize, cipher: Option<&Cipher>) -> Option<(Vec<Event>, usize)> {
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
    let opened = match cipher {
        None => None,
        Some(cipher) => {
            let (number, sealed) = payload.split_first_chunk::<8>()?;
            Some(cipher.open(u64::from_le_bytes(*number), &(at as u64).to_le_bytes(), sealed)?)
        }
    };
    let mut records = Reader::new(opened.as_deref().unwrap_or(payload));
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

    fn keyrings() -> [Keyring; 2] {
        [Keyring::none(), Keyring::for_tests(&[1])]
    }

    fn header_bytes(keyring: &Keyring) -> usize {
        if keyring.current().is_some() { SEALED_HEADER_BYTES } else { HEADER_BYTES }
    }

    fn written(dir: &Path, keyring: &Keyring) -> (PathBuf, Vec<usize>) {
        let journal = Journal::create(dir, header(), keyring).unwrap();
        let mut group = Vec::new();
        let mut ends = vec![header_bytes(keyring)];
        for n in 0..10 {
            let events: Vec<_> = (1..=3).map(|k| Arc::new(testing::event(n * 3 + k).build())).collect();
            journal.append(&mut group, events.iter()).unwrap();
            ends.push(journal.bytes() as usize);
        }
        assert!(journal.sync().unwrap());
        assert!(!journal.sync().unwrap());
        assert_eq!(key_of(journal.path()).unwrap(), keyring.current());
        (journal.path().to_owned(), ends)
    }

    #[test]
    fn a_torn_end_is_cut_at_every_length() {
        for keyring in keyrings() {
            let dir = tempfile::tempdir().unwrap();
            let (path, ends) = written(dir.path(), &keyring);
            let whole = fs::read(&path).unwrap();
            for length in (0..=whole.len()).rev().step_by(7) {
                fs::write(&path, &whole[..length]).unwrap();
                let Ok(found) = recover(&path, &keyring).unwrap() else {
                    assert!(length < header_bytes(&keyring));
                    continue;
                };
                let groups = ends.iter().filter(|&&end| end <= length).count() - 1;
                assert_eq!(found.events.len(), groups * 3);
                assert_eq!(found.torn_bytes as usize, length - ends[groups]);
                assert!(found.holes.is_empty());
            }
        }
    }

    #[test]
    fn damage_in_the_middle_costs_one_group() {
        for keyring in keyrings() {
            let dir = tempfile::tempdir().unwrap();
            let (path, ends) = written(dir.path(), &keyring);
            let whole = fs::read(&path).unwrap();
            for at in (ends[4]..ends[5]).step_by(5) {
                let mut flipped = whole.clone();
                flipped[at] ^= 0x10;
                fs::write(&path, &flipped).unwrap();
                let Ok(found) = recover(&path, &keyring).unwrap() else { panic!("the header is whole") };
                assert_eq!(found.events.len(), 27);
                assert_eq!(found.holes, [(Position(12), Position(16))]);
            }
        }
    }

    #[test]
    fn an_encrypted_journal_shows_nothing_and_believes_no_forgery() {
        let keyring = Keyring::for_tests(&[1]);
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path(), header(), &keyring).unwrap();
        let event =
            |n| Arc::new(testing::event(n).channel("geheim").name("geheim").json("\"geheim\"").build());
        let (mut group, mut ends) = (Vec::new(), vec![SEALED_HEADER_BYTES]);
        for n in 1..=3 {
            journal.append(&mut group, [event(n)].iter()).unwrap();
            ends.push(journal.bytes() as usize);
        }
        let whole = fs::read(journal.path()).unwrap();
        assert!(!whole.windows(6).any(|bytes| bytes == b"geheim"));
        let positions = |bytes: &[u8]| {
            fs::write(journal.path(), bytes).unwrap();
            let found = recover(journal.path(), &keyring).unwrap().ok()?;
            Some(found.events.iter().map(|event| event.position.0).collect::<Vec<_>>())
        };
        assert_eq!(positions(&whole), Some(vec![1, 2, 3]));
        // Two groups that have changed places, with their checksums.
        let mut swapped = whole[..ends[0]].to_vec();
        swapped.extend_from_slice(&whole[ends[1]..ends[2]]);
        swapped.extend_from_slice(&whole[ends[0]..ends[1]]);
        swapped.extend_from_slice(&whole[ends[2]..]);
        let found = positions(&swapped).unwrap();
        assert!(!found.contains(&1) && !found.contains(&2), "{found:?}");
        // Another header under the same lock, and one under another lock.
        let mut forged = whole.clone();
        forged[16] ^= 4;
        let crc = crc32fast::hash(&forged[..SEALED_HEADER_BYTES - 4]);
        forged[SEALED_HEADER_BYTES - 4..SEALED_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(positions(&forged), None);
        assert!(recover(journal.path(), &Keyring::for_tests(&[2])).is_err(), "the key is missing");
        fs::write(journal.path(), &whole).unwrap();
        assert!(recover(journal.path(), &Keyring::none()).is_err());
    }

    #[test]
    fn no_number_is_used_twice_although_a_write_fails() {
        let keyring = Keyring::for_tests(&[1]);
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path(), header(), &keyring).unwrap();
        let event = Arc::new(testing::event(1).build());
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let at = journal.bytes();
        journal.encode(&mut first, [&event].into_iter(), at).unwrap();
        journal.encode(&mut second, [&event].into_iter(), at).unwrap();
        assert_ne!(first[GROUP_HEADER_BYTES..][..8], second[GROUP_HEADER_BYTES..][..8]);
    }
}
