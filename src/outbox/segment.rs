//! A segment: a file of records that is written once from begin to end, and what is remembered of it.
//!
//! | bytes | header |
//! | --- | --- |
//! | 8 | magic |
//! | 4 | version of the format |
//! | 4 | the same, inverted: a flipped bit must not look like a newer version |
//! | 4 | seed of the records |
//! | 8 | the last number that was accepted before this segment |
//! | 4 | CRC-32 of all before |
//!
//! The last number tells what is left of a write that failed: records of earlier segments with a higher number were
//! never accepted, whatever the disk kept of them.

use super::record::{self, HEAD_BYTES, Head};
use crate::bus::envelope;
use crate::event::UnixMs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 32;
const MAGIC: &[u8; 8] = b"swoutbox";
/// Version of the format. A new version of the envelope is a new version of this one.
pub(super) const VERSION: u32 = 1;
const _: () = assert!(envelope::VERSION == 1, "a new envelope needs a new version of segments");
const PREFIX: &str = "outbox-";
const SUFFIX: &str = ".seg";
/// After so many records one is remembered with its offset.
const MARK_EVERY: u64 = 64;
/// Bytes that are read at once while going from record to record.
const READ_AHEAD_BYTES: u64 = 64 << 10;

/// What a segment begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) seed: u32,
    /// The last number that was accepted before.
    pub(super) follows: u64,
}

/// What the begin of a file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begin {
    Ours(Header),
    Newer(u32),
    Damaged,
}

impl Header {
    pub(super) fn put(self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(!VERSION).to_le_bytes());
        out.extend_from_slice(&self.seed.to_le_bytes());
        out.extend_from_slice(&self.follows.to_le_bytes());
        let crc = crc32fast::hash(&out[begin..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    pub(super) fn parse(bytes: &[u8]) -> Begin {
        let word = |at: usize| -> Option<u32> {
            bytes.get(at..)?.first_chunk::<4>().map(|word| u32::from_le_bytes(*word))
        };
        let (Some(version), Some(inverted)) = (word(8), word(12)) else { return Begin::Damaged };
        if !bytes.starts_with(MAGIC) || version != !inverted {
            return Begin::Damaged;
        }
        if version > VERSION {
            return Begin::Newer(version);
        }
        match (word(16), word(20), word(24), word(28)) {
            (Some(seed), Some(low), Some(high), Some(crc)) if crc32fast::hash(&bytes[..28]) == crc => {
                Begin::Ours(Header { seed, follows: u64::from(low) | u64::from(high) << 32 })
            }
            _ => Begin::Damaged,
        }
    }
}

/// The name of the segment that begins with a number.
pub(super) fn file_name(first: u64) -> String {
    format!("{PREFIX}{first:020}{SUFFIX}")
}

/// The number in the name of a segment.
pub(super) fn number_in(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// A record whose place is remembered.
#[derive(Clone, Copy, Debug)]
struct Mark {
    number: u64,
    place: Place,
}

/// The place of a record in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) offset: u64,
    /// How many records come before it.
    pub(super) ordinal: u64,
}

/// What is remembered of a segment. The file is opened when it is read: there may be many.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: Option<Header>,
    /// Bytes of it, without a torn end.
    pub(super) bytes: u64,
    pub(super) records: u64,
    /// The last number in it; 0 if there is no record.
    pub(super) last: u64,
    /// Numbers of records that are whole, and yet make no event.
    pub(super) left_out: Vec<u64>,
    marks: Vec<Mark>,
    /// Stretches that are no record to be read, by where they begin and end.
    holes: Vec<(u64, u64)>,
}

impl Segment {
    /// A segment without records.
    pub(super) fn new(path: PathBuf, header: Option<Header>) -> Self {
        let (left_out, marks, holes) = (Vec::new(), Vec::new(), Vec::new());
        Self { path, header, bytes: HEADER_BYTES as u64, records: 0, last: 0, left_out, marks, holes }
    }

    /// Adds the record that begins where the segment ended.
    pub(super) fn push(&mut self, head: &Head) {
        if self.records.is_multiple_of(MARK_EVERY) {
            let place = Place { offset: self.bytes, ordinal: self.records };
            self.marks.push(Mark { number: head.number, place });
        }
        self.bytes += head.record_bytes();
        self.records += 1;
        self.last = head.number;
    }

    /// Finds what a file holds: records that are whole, not damaged and wanted, also behind some that are not.
    pub(super) fn scan(path: PathBuf, bytes: &[u8], wanted: impl Fn(&Head) -> bool) -> Self {
        let header = match Header::parse(bytes) {
            Begin::Ours(header) => Some(header),
            Begin::Newer(_) | Begin::Damaged => None,
        };
        let mut found = Self::new(path, header);
        let mut seed = header.map(|header| header.seed);
        let mut at = HEADER_BYTES;
        while at < bytes.len() {
            let Some((head, place)) =
                record::at(bytes, at).filter(|(head, _)| seed.is_none_or(|seed| seed == head.seed))
            else {
                at += 1;
                continue;
            };
            at = place.end;
            seed = Some(head.seed);
            if head.number <= found.last || !wanted(&head) {
                continue;
            }
            let begin = place.start as u64;
            if begin > found.bytes {
                found.holes.push((found.bytes, begin));
                found.bytes = begin;
            }
            found.push(&head);
        }
        found
    }

    /// Bytes between records that are none.
    pub(super) fn damaged_bytes(&self) -> u64 {
        self.holes.iter().map(|(begin, end)| end - begin).sum()
    }

    /// The place of the first record after a number; at the end if there is none.
    pub(super) fn place_after(&self, window: &mut Window, number: u64) -> Result<Place, Fault> {
        let marks_before = self.marks.partition_point(|mark| mark.number <= number);
        let mut place = match marks_before.checked_sub(1) {
            Some(mark) => self.marks[mark].place,
            None => Place { offset: self.skip_hole(HEADER_BYTES as u64), ordinal: 0 },
        };
        while place.offset < self.bytes {
            let head = window.head(place.offset, self.bytes)?;
            if head.number > number {
                break;
            }
            place = self.next(place, &head);
        }
        Ok(place)
    }

    /// The place after the record at a place.
    pub(super) fn next(&self, place: Place, head: &Head) -> Place {
        let offset = self.skip_hole(place.offset + head.record_bytes());
        Place { offset, ordinal: place.ordinal + 1 }
    }

    /// Moves the end behind bytes that are no record.
    pub(super) fn close_at(&mut self, end: u64) {
        if self.bytes < end {
            self.holes.push((self.bytes, end));
            self.bytes = end;
        }
    }

    fn skip_hole(&self, offset: u64) -> u64 {
        let hole = self.holes.binary_search_by_key(&offset, |(begin, _)| *begin);
        hole.map_or(offset, |hole| self.holes[hole].1)
    }
}

/// Why a record could not be read.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    /// It is no longer what was written.
    Damaged,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Somebody cut the file.
            io::ErrorKind::UnexpectedEof => Self::Damaged,
            _ => Self::Io(error),
        }
    }
}

/// Reads a file piece by piece.
pub(super) struct Window {
    file: File,
    begin: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, begin: 0, bytes: Vec::new() })
    }

    /// The head of the record at an offset, which ends at `end` at the latest.
    pub(super) fn head(&mut self, offset: u64, end: u64) -> Result<Head, Fault> {
        let head = Head::parse(self.slice(offset, HEAD_BYTES as u64, end)?).ok_or(Fault::Damaged)?;
        if offset + head.record_bytes() > end { Err(Fault::Damaged) } else { Ok(head) }
    }

    /// The record with this head.
    pub(super) fn record(&mut self, offset: u64, head: &Head, end: u64) -> Result<&[u8], Fault> {
        let record = self.slice(offset, head.record_bytes(), end)?;
        if head.fits(record) { Ok(record) } else { Err(Fault::Damaged) }
    }

    fn slice(&mut self, offset: u64, length: u64, end: u64) -> Result<&[u8], Fault> {
        let room = end.checked_sub(offset).filter(|room| *room >= length).ok_or(Fault::Damaged)?;
        let held = self.begin..self.begin + self.bytes.len() as u64;
        if offset < held.start || offset + length > held.end {
            self.bytes.clear();
            self.bytes.resize(length.max(READ_AHEAD_BYTES).min(room) as usize, 0);
            self.begin = offset;
            if let Err(error) = self.file.read_exact_at(&mut self.bytes, offset) {
                self.bytes.clear();
                return Err(error.into());
            }
        }
        let at = (offset - self.begin) as usize;
        Ok(&self.bytes[at..at + length as usize])
    }
}

/// The time of the record at a place, if there is one.
pub(super) fn time_at(window: &mut Window, place: Place, end: u64) -> Result<Option<UnixMs>, Fault> {
    if place.offset >= end { Ok(None) } else { window.head(place.offset, end).map(|head| Some(head.time)) }
}
