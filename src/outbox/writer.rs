//! Appending: one write and one `fdatasync` for each group.

use super::directory::{self, UNFINISHED};
use super::index::Index;
use super::record::{self, Head};
use super::segment::{self, HEADER_BYTES, Header, Segment};
use super::{AppendError, Entry};
use crate::cipher::{Cipher, Keyring, Part};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A buffer above this is not kept for the next group.
const MOST_KEPT_BUFFER_BYTES: usize = 4 << 20;

/// Writes segments.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    keyring: Keyring,
    segment_bytes: u64,
    /// The number of the next event.
    next: u64,
    /// The last number that is safely on the disk.
    accepted: u64,
    /// The newest segment, if it takes more.
    active: Option<Active>,
    buffer: Vec<u8>,
    /// Plays a sync that fails.
    #[cfg(test)]
    pub(super) fail_next_sync: bool,
}

#[derive(Debug)]
struct Active {
    file: File,
    seal: Seal,
}

/// What makes the records of a segment its own. A number is never written twice within a segment, so it is good to
/// encrypt by.
#[derive(Debug)]
struct Seal {
    seed: u32,
    cipher: Option<Cipher>,
}

impl Writer {
    /// Goes on after a number. What earlier runs wrote is not touched: the first group begins a segment.
    pub(super) fn new(dir: &Path, keyring: &Keyring, segment_bytes: u64, last: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            keyring: keyring.clone(),
            segment_bytes,
            next: last + 1,
            accepted: last,
            active: None,
            buffer: Vec::new(),
            #[cfg(test)]
            fail_next_sync: false,
        }
    }

    /// Begins a new segment with the next group.
    pub(super) fn seal(&mut self) {
        self.active = None;
    }

    /// Appends a group, unless that makes more than `most_bytes` on the disk.
    pub(super) fn append(
        &mut self,
        index: &Mutex<Index>,
        entries: &[Entry],
        most_bytes: u64,
    ) -> Result<(), AppendError> {
        let (total, end) = {
            let index = super::lock(index);
            (index.bytes(), index.segments.back().map_or(0, |newest| newest.bytes))
        };
        let key = |active: &Active| active.seal.cipher.as_ref().map(|cipher| cipher.lock().key);
        let is_current = |active: &Active| key(active) == self.keyring.current();
        if end >= self.segment_bytes || !self.active.as_ref().is_some_and(is_current) {
            self.seal();
        }
        let begun = match &self.active {
            Some(_) => None,
            None => {
                let seal = Seal { seed: random(), cipher: self.keyring.begin(Part::Segment)? };
                Some((Header { seed: seal.seed, follows: self.accepted }, seal))
            }
        };
        let heads = self.encode(entries, begun.as_ref())?;
        if total + self.buffer.len() as u64 > most_bytes {
            return Err(AppendError::Full);
        }
        let written = match begun {
            Some((header, seal)) => self.write_first(header, seal).map(Some),
            None => self.write_more(end).map(|()| None),
        };
        self.next += entries.len() as u64;
        if self.buffer.capacity() > MOST_KEPT_BUFFER_BYTES {
            self.buffer = Vec::new();
        }
        let segment = written.inspect_err(|_| {
            // After a failed sync the kernel may call pages clean that never reached the disk, and a later
            // success of the same file would say nothing about them. So nothing more is written to it, and the
            // next segment says that these numbers were not accepted.
            self.seal();
        })?;
        self.accepted = self.next - 1;
        let mut index = super::lock(index);
        index.segments.extend(segment);
        if let Some(newest) = index.segments.back_mut() {
            heads.iter().for_each(|head| newest.push(head));
        }
        index.oldest_ms = index.oldest_ms.or(heads.first().map(|head| head.time));
        Ok(())
    }

    /// Encodes a group into the buffer, behind the header of the segment that it begins, if it does.
    fn encode(&mut self, entries: &[Entry], begun: Option<&(Header, Seal)>) -> io::Result<Vec<Head>> {
        self.buffer.clear();
        let seal = match (begun, &self.active) {
            (Some((header, seal)), _) => {
                header.put(&mut self.buffer);
                seal
            }
            (None, Some(active)) => &active.seal,
            (None, None) => return Err(io::Error::other("there is no segment to write to")),
        };
        let numbers = self.next..;
        numbers
            .zip(entries)
            .map(|(number, entry)| {
                record::put(&mut self.buffer, seal.seed, number, entry, seal.cipher.as_ref())
            })
            .collect()
    }

    /// Makes a segment of the buffer. It gets its name once it is whole, so nothing remains of a failure.
    fn write_first(&mut self, header: Header, seal: Seal) -> io::Result<Segment> {
        let name = segment::file_name(self.next);
        let path = self.dir.join(&name);
        let unfinished = self.dir.join(format!("{UNFINISHED}{name}"));
        let made = directory::open_file(&unfinished).and_then(|file| {
            file.set_len(0)?;
            file.write_all_at(&self.buffer, 0)?;
            self.sync(&file)?;
            fs::rename(&unfinished, &path)?;
            directory::sync(&self.dir)?;
            Ok(file)
        });
        match made {
            Ok(file) => {
                self.active = Some(Active { file, seal });
                Ok(Segment::new(path, Some(header)))
            }
            Err(error) => {
                let _ = fs::remove_file(&unfinished);
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Writes the buffer to the end of the newest segment.
    fn write_more(&mut self, end: u64) -> io::Result<()> {
        debug_assert!(end >= HEADER_BYTES as u64);
        let Some(Active { file, seal }) = self.active.take() else {
            return Err(io::Error::other("there is no segment to write to"));
        };
        let written = file.write_all_at(&self.buffer, end).and_then(|()| self.sync(&file));
        match written {
            Ok(()) => self.active = Some(Active { file, seal }),
            Err(_) => {
                if let Err(second) = file.set_len(end) {
                    tracing::error!(error = %second, "a part of the outbox cannot be cut back: it is closed");
                }
            }
        }
        written
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if std::mem::take(&mut self.fail_next_sync) {
            return Err(io::Error::other("a sync that fails"));
        }
        file.sync_data()
    }
}

fn random() -> u32 {
    RandomState::new().hash_one(0u8) as u32
}
