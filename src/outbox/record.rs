//! One waiting event on disk: a head of fixed length, the fields of the bus's envelope by name, the payload.
//!
//! | bytes | head |
//! | --- | --- |
//! | 4 | magic |
//! | 4 | seed of the segment |
//! | 4 | length of what follows the head |
//! | 4 | CRC-32 of everything but the magic and itself |
//! | 8 | number |
//! | 8 | when the event was accepted, Unix ms |
//!
//! All numbers are little-endian. The seed is random: without it, a payload that was made to look like a
//! record could be taken for one when the record around it is damaged.

use super::Entry;
use crate::bus::backend::{Content, Parcel};
use crate::bus::envelope;
use crate::event::UnixMs;
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a head.
pub(super) const HEAD_BYTES: usize = 32;
const MAGIC: u32 = 0x626f_7773;

/// What a record begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) seed: u32,
    /// Bytes after the head.
    length: u32,
    crc: u32,
    pub(super) number: u64,
    pub(super) time: UnixMs,
}

impl Head {
    /// Reads a head; whether what follows fits it is not known yet.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        if word(bytes, 0) != MAGIC {
            return None;
        }
        Some(Self {
            seed: word(bytes, 4),
            length: word(bytes, 8),
            crc: word(bytes, 12),
            number: double(bytes, 16),
            time: double(bytes, 24),
        })
    }

    /// Bytes of the whole record.
    pub(super) fn record_bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.length)
    }

    /// Whether this is the whole and undamaged record of this head.
    pub(super) fn fits(&self, record: &[u8]) -> bool {
        record.len() as u64 == self.record_bytes() && checksum(record) == self.crc
    }
}

fn word(bytes: &[u8; HEAD_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn double(bytes: &[u8; HEAD_BYTES], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

/// The checksum of a record that has at least a head.
fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[4..12]);
    hasher.update(&record[16..]);
    hasher.finalize()
}

/// The whole and undamaged record at an offset, and where it lies.
pub(super) fn at(bytes: &[u8], offset: usize) -> Option<(Head, Range<usize>)> {
    let rest = bytes.get(offset..)?;
    let head = Head::parse(rest)?;
    let length = usize::try_from(head.record_bytes()).ok()?;
    head.fits(rest.get(..length)?).then_some((head, offset..offset + length))
}

/// Appends the record of an entry.
pub(super) fn put(out: &mut Vec<u8>, seed: u32, number: u64, entry: &Entry) -> io::Result<Head> {
    let begin = out.len();
    out.resize(begin + HEAD_BYTES, 0);
    let parcel = Parcel::Event { event: entry.event.clone(), origin: entry.origin, sequence: entry.sequence };
    let (fields, payload) = envelope::fields(&parcel);
    out.push(fields.len() as u8);
    for (name, text) in &fields {
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&length(text.len())?.to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(payload.unwrap_or_default());
    let record = &mut out[begin..];
    let length = length(record.len() - HEAD_BYTES)?;
    record[..4].copy_from_slice(&MAGIC.to_le_bytes());
    record[4..8].copy_from_slice(&seed.to_le_bytes());
    record[8..12].copy_from_slice(&length.to_le_bytes());
    record[16..24].copy_from_slice(&number.to_le_bytes());
    record[24..32].copy_from_slice(&entry.event.time.to_le_bytes());
    let crc = checksum(record);
    record[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(Head { seed, length, crc, number, time: entry.event.time })
}

fn length(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an event of 4 GiB or more fits no record"))
}

/// Reads the entry of a whole and undamaged record.
pub(super) fn entry(record: &[u8]) -> Result<Entry, &'static str> {
    const CUT: &str = "its fields are cut off";
    let (fields, payload) = record.get(HEAD_BYTES..).and_then(split_fields).ok_or(CUT)?;
    let find = |name: &str| fields.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    match envelope::content(find, Some(Bytes::copy_from_slice(payload))) {
        Content::Event { event, sender: Some((origin, sequence)) } => {
            Ok(Entry { origin, sequence, event: Arc::from(event) })
        }
        Content::Malformed(why) => Err(why),
        _ => Err("it is no event of a node"),
    }
}

/// The fields of a record, by name, and its payload.
type Split<'a> = (Vec<(&'a str, &'a str)>, &'a [u8]);

/// The fields of a record and its payload, from what follows the head.
pub(super) fn split_fields(body: &[u8]) -> Option<Split<'_>> {
    let (&count, mut rest) = body.split_first()?;
    let mut fields = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (&length, after) = rest.split_first()?;
        let (name, after) = after.split_at_checked(usize::from(length))?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        fields.push((std::str::from_utf8(name).ok()?, std::str::from_utf8(text).ok()?));
        rest = after;
    }
    Some((fields, rest))
}
