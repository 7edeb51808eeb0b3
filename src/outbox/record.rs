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
//!
//! An encrypted record has another magic. What follows its head is the lock of its segment, and then the same as in any
//! other, encrypted under the record's number. So each can be read for itself, whatever is damaged around it.

use super::Entry;
use crate::bus::backend::{Content, Parcel};
use crate::bus::envelope;
use crate::cipher::{Cipher, KeyId, Keyring, LOCK_BYTES, Lock, MissingKey, Part};
use crate::event::UnixMs;
use bytes::Bytes;
use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a head.
pub(super) const HEAD_BYTES: usize = 32;
const MAGIC: u32 = 0x626f_7773;
const SEALED_MAGIC: u32 = 0x656f_7773;

/// What a record begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    is_sealed: bool,
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
        let is_sealed = match word(bytes, 0) {
            MAGIC => false,
            SEALED_MAGIC => true,
            _ => return None,
        };
        Some(Self {
            is_sealed,
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

/// What an encrypted record is bound to besides its number.
fn about(seed: u32, time: UnixMs) -> [u8; 12] {
    let mut about = [0; 12];
    about[..4].copy_from_slice(&seed.to_le_bytes());
    about[4..].copy_from_slice(&time.to_le_bytes());
    about
}

/// Appends the record of an entry.
pub(super) fn put(
    out: &mut Vec<u8>,
    seed: u32,
    number: u64,
    entry: &Entry,
    cipher: Option<&Cipher>,
) -> io::Result<Head> {
    let begin = out.len();
    out.resize(begin + HEAD_BYTES, 0);
    if let Some(cipher) = cipher {
        out.extend_from_slice(&cipher.lock().to_bytes());
    }
    let body = out.len();
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
    if let Some(cipher) = cipher {
        cipher.seal(number, &about(seed, entry.event.time), out, body)?;
    }
    let is_sealed = cipher.is_some();
    let record = &mut out[begin..];
    let length = length(record.len() - HEAD_BYTES)?;
    let magic = if is_sealed { SEALED_MAGIC } else { MAGIC };
    record[..4].copy_from_slice(&magic.to_le_bytes());
    record[4..8].copy_from_slice(&seed.to_le_bytes());
    record[8..12].copy_from_slice(&length.to_le_bytes());
    record[16..24].copy_from_slice(&number.to_le_bytes());
    record[24..32].copy_from_slice(&entry.event.time.to_le_bytes());
    let crc = checksum(record);
    record[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(Head { is_sealed, seed, length, crc, number, time: entry.event.time })
}

fn length(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an event of 4 GiB or more fits no record"))
}

/// Why a whole record gives no entry.
pub(super) enum Unfit {
    /// It makes no sense.
    Senseless(&'static str),
    /// Not without a key that is missing.
    Locked(MissingKey),
}

impl From<&'static str> for Unfit {
    fn from(why: &'static str) -> Self {
        Self::Senseless(why)
    }
}

/// What follows the head of a whole record, decrypted.
pub(super) fn body<'a>(record: &'a [u8], keyring: &Keyring) -> Result<Cow<'a, [u8]>, Unfit> {
    let head = Head::parse(record).ok_or("it has no head")?;
    let body = record.get(HEAD_BYTES..).unwrap_or_default();
    if !head.is_sealed {
        return Ok(body.into());
    }
    let (lock, sealed) = body.split_first_chunk::<LOCK_BYTES>().ok_or("it is cut off")?;
    let cipher = keyring.cipher(Lock::from_bytes(lock), Part::Segment).map_err(Unfit::Locked)?;
    let opened = cipher.open(head.number, &about(head.seed, head.time), sealed);
    Ok(opened.ok_or("it is not what was encrypted, or not where it was")?.into())
}

/// The key that the record at the begin of some bytes is encrypted with, if it is.
pub(super) fn key_of(bytes: &[u8]) -> Option<KeyId> {
    let head = Head::parse(bytes).filter(|head| head.is_sealed)?;
    let lock = bytes.get(HEAD_BYTES..)?.first_chunk::<LOCK_BYTES>()?;
    (head.length as usize >= LOCK_BYTES).then(|| Lock::from_bytes(lock).key)
}

/// Reads the entry of a whole and undamaged record.
pub(super) fn entry(record: &[u8], keyring: &Keyring) -> Result<Entry, Unfit> {
    let body = body(record, keyring)?;
    let (fields, payload) = split_fields(&body).ok_or("its fields are cut off")?;
    let find = |name: &str| fields.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    match envelope::content(find, Some(Bytes::copy_from_slice(payload))) {
        Content::Event { event, sender: Some((origin, sequence)) } => {
            Ok(Entry { origin, sequence, event: Arc::from(event) })
        }
        Content::Malformed(why) => Err(why.into()),
        _ => Err("it is no event of a node".into()),
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
