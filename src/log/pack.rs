//! Packing a run of events into a fold: blocks, their directory and their index, ready to be stored.

use super::block::{self, Item};
use super::codec;
use super::folds::Fold;
use super::generation::Kind;
use super::terms::TermsBuilder;
use super::wire::{Damaged, Reader, put_bytes, put_varint};
use crate::cipher::{Cipher, Keyring, Part};
use crate::event::{Expiry, Position, UnixMs};
use std::io;
use zstd::zstd_safe::{CDict, DDict};

/// A fold smaller than this gets no dictionary: that would be a large part of it.
const WORTH_A_DICTIONARY: usize = 128 << 10;
/// How much of the fold's own text helps to compress its blocks.
const DICTIONARY_BYTES: usize = 16 << 10;

/// A fold and the values that make it.
pub(super) struct Packed {
    pub(super) fold: Fold,
    pub(super) values: Vec<(Kind, u32, Vec<u8>)>,
}

/// A fold as it goes to the disk.
pub(super) struct Sealed {
    pub(super) fold: Fold,
    pub(super) values: Vec<(Kind, u32, Vec<u8>)>,
    /// What it was encrypted with.
    pub(super) cipher: Option<Cipher>,
}

impl Packed {
    /// Encrypts the values, if that is asked for: under a key of their own each time, so that a fold may be packed
    /// again under the same name.
    pub(super) fn seal(mut self, keyring: &Keyring) -> io::Result<Sealed> {
        let cipher = keyring.begin(Part::Fold)?;
        if let Some(cipher) = &cipher {
            self.fold.lock = Some(cipher.lock());
            let about = self.fold.encode();
            for (kind, number, bytes) in &mut self.values {
                cipher.seal(place(*kind, *number), &about, bytes, 0)?;
            }
        }
        Ok(Sealed { fold: self.fold, values: self.values, cipher })
    }
}

/// The number under which a value of a fold is encrypted: each has its own.
pub(super) fn place(kind: Kind, number: u32) -> u64 {
    let kind = match kind {
        Kind::Block => 1,
        Kind::Directory => 2,
        Kind::Terms => 3,
    };
    kind << 32 | u64::from(number)
}

/// The number under which the ids of a fold are encrypted.
const IDS: u64 = 4 << 32;

/// The contents of the file of a fold's ids, which is in memory before it is encrypted.
pub(super) fn seal_ids(cipher: Option<&Cipher>, fold: &Fold, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    if let Some(cipher) = cipher {
        cipher.seal(IDS, &fold.encode(), &mut bytes, 0)?;
    }
    Ok(bytes)
}

/// Undoes [`seal_ids`].
pub(super) fn open_ids(cipher: Option<&Cipher>, fold: &Fold, bytes: Vec<u8>) -> Result<Vec<u8>, Damaged> {
    match cipher {
        None => Ok(bytes),
        Some(cipher) => cipher.open(IDS, &fold.encode(), &bytes).ok_or(Damaged),
    }
}

/// Packs events and stubs, which come in order. `cover` says what the fold stands for; counts and times are
/// filled in.
pub(super) fn pack(items: &[Item<'_>], cover: Fold, compress: bool) -> Packed {
    let total: usize = items.iter().map(block::weight).sum();
    let sample = if compress && total >= WORTH_A_DICTIONARY { sample(items, total) } else { Vec::new() };
    let dictionary = (!sample.is_empty()).then(|| CDict::create(&sample, codec::LEVEL));

    let mut fold = cover;
    let mut values = Vec::new();
    let mut terms = TermsBuilder::default();
    let mut directory = Vec::new();
    let blocks = cut(items);
    put_varint(&mut directory, blocks.len() as u64);
    let mut before = fold.first.0;
    for (number, items) in blocks.iter().enumerate() {
        items.iter().for_each(|item| terms.add(number as u32, item));
        let about = BlockAbout::of(items);
        put_varint(&mut directory, about.first.0 - before);
        put_varint(&mut directory, about.last.0 - about.first.0);
        put_varint(&mut directory, about.min_time);
        put_varint(&mut directory, about.max_time - about.min_time);
        before = about.first.0;
        values.push((Kind::Block, number as u32, block::pack(items, compress, dictionary.as_ref())));
    }
    let pages = terms.pages();
    put_varint(&mut directory, pages.len() as u64);
    for (number, (first, page)) in pages.into_iter().enumerate() {
        put_bytes(&mut directory, &first);
        values.push((Kind::Terms, number as u32, page));
    }
    put_bytes(&mut directory, &sample);
    values.push((Kind::Directory, 0, squeeze(&directory)));

    fold.blocks = blocks.len() as u32;
    fold.raw_bytes = total as u64;
    fold.packed_bytes = values.iter().map(|(_, _, bytes)| bytes.len() as u64).sum();
    count(&mut fold, items);
    Packed { fold, values }
}

fn count(fold: &mut Fold, items: &[Item<'_>]) {
    let mut expiries = Vec::new();
    (fold.events, fold.min_time, fold.max_time) = (0, UnixMs::MAX, 0);
    for item in items {
        let Item::Kept(event) = item else { continue };
        fold.events += 1;
        fold.min_time = fold.min_time.min(event.time);
        fold.max_time = fold.max_time.max(event.time);
        if let Expiry::At(expiry) = event.expiry {
            expiries.push(expiry);
        }
    }
    fold.set_expiries(expiries);
}

/// Cuts events into blocks of about equal size.
fn cut<'a, 'b>(items: &'b [Item<'a>]) -> Vec<&'b [Item<'a>]> {
    let mut blocks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, item) in items.iter().enumerate() {
        let more = block::weight(item);
        if at > start && bytes + more > block::TARGET_BYTES {
            blocks.push(&items[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += more;
    }
    if start < items.len() {
        blocks.push(&items[start..]);
    }
    blocks
}

/// Events from all over the fold: what is typical of it.
fn sample(items: &[Item<'_>], total: usize) -> Vec<u8> {
    let step = (total / DICTIONARY_BYTES).max(1);
    let mut bytes = 0;
    let mut chosen = Vec::new();
    for item in items.iter().step_by(step) {
        let more = block::weight(item);
        // One huge event would leave no room for the others.
        if more <= DICTIONARY_BYTES / 8 && bytes + more <= DICTIONARY_BYTES {
            bytes += more;
            chosen.push(*item);
        }
    }
    block::sample(&chosen)
}

fn squeeze(raw: &[u8]) -> Vec<u8> {
    let packed = codec::compress(raw, None);
    let mut out = vec![u8::from(packed.is_some())];
    put_varint(&mut out, raw.len() as u64);
    out.extend_from_slice(packed.as_deref().unwrap_or(raw));
    out
}

/// Where a block lies, and in which time.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockAbout {
    pub(super) first: Position,
    pub(super) last: Position,
    pub(super) min_time: UnixMs,
    pub(super) max_time: UnixMs,
}

impl BlockAbout {
    fn of(items: &[Item<'_>]) -> Self {
        let times = items.iter().filter_map(|item| match item {
            Item::Kept(event) => Some(event.time),
            Item::Stub(..) => None,
        });
        let position = |item: Option<&Item<'_>>| item.map_or(Position::ZERO, Item::position);
        Self {
            first: position(items.first()),
            last: position(items.last()),
            min_time: times.clone().min().unwrap_or(0),
            max_time: times.max().unwrap_or(0),
        }
    }
}

/// What there is in a fold, unpacked.
pub(super) struct Directory {
    pub(super) blocks: Vec<BlockAbout>,
    /// The first term of each page.
    pub(super) pages: Vec<Box<[u8]>>,
    pub(super) dictionary: Option<DDict<'static>>,
    /// About how many bytes it takes in memory.
    pub(super) footprint: usize,
}

impl Directory {
    pub(super) fn parse(bytes: &[u8], first: Position) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        let is_packed = reader.byte()? != 0;
        let raw_bytes = reader.size()?;
        let raw = match is_packed {
            true => codec::decompress(reader.rest(), raw_bytes, None)?,
            false => reader.rest().to_vec(),
        };
        let mut reader = Reader::new(&raw);
        let mut blocks = Vec::new();
        let mut before = first.0;
        for _ in 0..reader.size()? {
            let first = before.checked_add(reader.varint()?).ok_or(Damaged)?;
            let last = first.checked_add(reader.varint()?).ok_or(Damaged)?;
            let min_time = reader.varint()?;
            let max_time = min_time.checked_add(reader.varint()?).ok_or(Damaged)?;
            blocks.push(BlockAbout { first: Position(first), last: Position(last), min_time, max_time });
            before = first;
        }
        let mut pages: Vec<Box<[u8]>> = Vec::new();
        for _ in 0..reader.size()? {
            pages.push(reader.bytes()?.into());
        }
        let sample = reader.bytes()?;
        let dictionary = (!sample.is_empty()).then(|| DDict::create(sample));
        let terms: usize = pages.iter().map(|page| page.len() + 16).sum();
        // zstd's own tables of a dictionary take about 27 kB.
        let dictionary_bytes = dictionary.as_ref().map_or(0, |_| sample.len() + (27 << 10));
        let footprint = blocks.len() * size_of::<BlockAbout>() + terms + dictionary_bytes;
        Ok(Self { blocks, pages, dictionary, footprint })
    }
}
