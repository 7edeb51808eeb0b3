//! A block: consecutive events packed as one. Channels and names are told once, small fields stand beside
//! each other, then the data; ids come last and uncompressed, because they are random.

use super::codec;
use super::record::{self, Head, Previous};
use super::wire::{Damaged, Reader, put_bytes, put_varint};
use crate::event::{Channel, Event, EventName, Position, UnixMs};
use std::collections::HashMap;
use zstd::zstd_safe::{CDict, DDict};

/// A block is closed when it has this many bytes. Compressed it then mostly fits in one value of 6 kB; larger
/// ones cost every reader of a single event more.
pub(super) const TARGET_BYTES: usize = 16 << 10;

const STORED: u8 = 0;
const COMPRESSED: u8 = 1;
const WITH_DICTIONARY: u8 = 2;

/// What goes into a block.
#[derive(Clone, Copy)]
pub(super) enum Item<'a> {
    /// An event.
    Kept(&'a Event),
    /// What is left of the newest removed event of a channel.
    Stub(Position, &'a Channel),
}

impl Item<'_> {
    pub(super) fn position(&self) -> Position {
        match self {
            Item::Kept(event) => event.position,
            Item::Stub(position, _) => *position,
        }
    }

    pub(super) fn channel(&self) -> &Channel {
        match self {
            Item::Kept(event) => &event.channel,
            Item::Stub(_, channel) => channel,
        }
    }
}

/// About how many bytes an event adds to a block.
pub(super) fn weight(item: &Item<'_>) -> usize {
    match item {
        Item::Kept(event) => {
            24 + event.data.len() + event.tags.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>()
        }
        Item::Stub(..) => 12,
    }
}

/// Packs events into a block.
pub(super) fn pack(items: &[Item<'_>], compress: bool, dictionary: Option<&CDict<'_>>) -> Vec<u8> {
    let (raw, ids) = lay_out(items);
    let packed = if compress { codec::compress(&raw, dictionary) } else { None };
    let mode = match (&packed, dictionary) {
        (None, _) => STORED,
        (Some(_), None) => COMPRESSED,
        (Some(_), Some(_)) => WITH_DICTIONARY,
    };
    let mut out = vec![mode];
    put_varint(&mut out, raw.len() as u64);
    put_bytes(&mut out, packed.as_ref().unwrap_or(&raw));
    out.extend_from_slice(&ids);
    out
}

/// Bytes that blocks of such events begin like: what a dictionary is made of.
pub(super) fn sample(items: &[Item<'_>]) -> Vec<u8> {
    lay_out(items).0
}

/// The bytes of a block before compression, and the ids.
fn lay_out(items: &[Item<'_>]) -> (Vec<u8>, Vec<u8>) {
    let (mut channels, mut names) = (Words::default(), Words::default());
    let (mut heads, mut bodies, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    let mut previous = Previous::default();
    for item in items {
        let channel = channels.number(item.channel().as_str());
        match item {
            Item::Stub(position, _) => {
                record::put_stub_head(&mut heads, *position, &mut previous);
                put_varint(&mut heads, channel);
            }
            Item::Kept(event) => {
                record::put_head(&mut heads, event, &mut previous);
                put_varint(&mut heads, channel);
                put_varint(&mut heads, names.number(event.name.as_str()));
                let start = bodies.len();
                record::put_extras(&mut bodies, event);
                bodies.extend_from_slice(record::data_bytes(event));
                put_varint(&mut heads, (bodies.len() - start) as u64);
                record::put_id(&mut ids, event);
            }
        }
    }
    let mut raw = Vec::new();
    put_varint(&mut raw, items.len() as u64);
    channels.put(&mut raw);
    names.put(&mut raw);
    raw.append(&mut heads);
    raw.append(&mut bodies);
    (raw, ids)
}

/// Texts that are told once and then by number.
#[derive(Default)]
struct Words<'a> {
    numbers: HashMap<&'a str, u64, foldhash::fast::RandomState>,
    list: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn number(&mut self, text: &'a str) -> u64 {
        let next = self.list.len() as u64;
        let number = *self.numbers.entry(text).or_insert(next);
        if number == next {
            self.list.push(text);
        }
        number
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.list.len() as u64);
        for text in &self.list {
            put_bytes(out, text.as_bytes());
        }
    }
}

/// An unpacked block. Its events are made whole one by one, when somebody wants them.
pub(super) struct Block {
    raw: Vec<u8>,
    ids: Vec<u8>,
    pub(super) channels: Vec<Channel>,
    pub(super) names: Vec<EventName>,
    pub(super) entries: Vec<Entry>,
    /// The marks of all entries that have any, one after the other.
    marks: Vec<u64>,
}

/// What selection needs of one event.
pub(super) struct Entry {
    pub(super) head: Head,
    /// Index into the block's channels.
    pub(super) channel: u32,
    /// Index into the block's names; nothing for a stub.
    pub(super) name: u32,
    body: std::ops::Range<u32>,
    id: u32,
    /// Where its marks stand.
    marks: std::ops::Range<u32>,
}

impl Entry {
    pub(super) fn position(&self) -> Position {
        self.head.position
    }

    pub(super) fn time(&self) -> UnixMs {
        self.head.time
    }
}

impl Block {
    /// Unpacks a block.
    pub(super) fn unpack(bytes: &[u8], dictionary: Option<&DDict<'_>>) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        let mode = reader.byte()?;
        let raw_bytes = reader.size()?;
        let packed = reader.bytes()?;
        let raw = match mode {
            STORED => packed.to_vec(),
            COMPRESSED => codec::decompress(packed, raw_bytes, None)?,
            WITH_DICTIONARY => codec::decompress(packed, raw_bytes, Some(dictionary.ok_or(Damaged)?))?,
            _ => return Err(Damaged),
        };
        Self::parse(raw, reader.rest().to_vec())
    }

    fn parse(raw: Vec<u8>, ids: Vec<u8>) -> Result<Self, Damaged> {
        let mut reader = Reader::new(&raw);
        let count = reader.size()?;
        let mut channels = Vec::new();
        for _ in 0..reader.size()? {
            channels.push(Channel::parse(reader.text()?).map_err(|_| Damaged)?);
        }
        let mut names = Vec::new();
        for _ in 0..reader.size()? {
            names.push(EventName::parse(reader.text()?).map_err(|_| Damaged)?);
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut all_marks = Vec::new();
        let mut previous = Previous::default();
        let mut body = 0u32;
        let mut id_reader = Reader::new(&ids);
        for _ in 0..count {
            let head = record::read_head(&mut reader, &mut previous)?;
            let marks = all_marks.len() as u32;
            all_marks.extend_from_slice(previous.marks(&head));
            let marks = marks..all_marks.len() as u32;
            let channel = reader.varint()? as u32;
            let id = (ids.len() - id_reader.rest().len()) as u32;
            let mut name = 0;
            let start = body;
            if !head.is_stub() {
                name = reader.varint()? as u32;
                body = body.checked_add(reader.varint()? as u32).ok_or(Damaged)?;
                record::skip_id(&mut id_reader, &head)?;
                names.get(name as usize).ok_or(Damaged)?;
            }
            channels.get(channel as usize).ok_or(Damaged)?;
            entries.push(Entry { head, channel, name, body: start..body, id, marks });
        }
        if reader.rest().len() != body as usize {
            return Err(Damaged);
        }
        let heads_end = (raw.len() - body as usize) as u32;
        for entry in &mut entries {
            entry.body = entry.body.start + heads_end..entry.body.end + heads_end;
        }
        Ok(Self { raw, ids, channels, names, entries, marks: all_marks })
    }

    /// Makes one event whole.
    pub(super) fn event(&self, entry: &Entry) -> Result<Event, Damaged> {
        let body = self.raw.get(entry.body.start as usize..entry.body.end as usize).ok_or(Damaged)?;
        let id = record::read_id(
            &mut Reader::new(self.ids.get(entry.id as usize..).ok_or(Damaged)?),
            &entry.head,
        )?;
        let mut reader = Reader::new(body);
        let extras = record::read_extras(&mut reader, &entry.head)?;
        let channel = self.channels.get(entry.channel as usize).ok_or(Damaged)?.clone();
        let name = self.names.get(entry.name as usize).ok_or(Damaged)?.clone();
        let way = entry.head.way(self.marks_of(entry));
        record::whole(&entry.head, id, channel, name, extras, way, reader.rest())
    }

    /// How far each shard of the bus had been read with an event; empty on a bus of one.
    pub(super) fn marks_of(&self, entry: &Entry) -> &[u64] {
        &self.marks[entry.marks.start as usize..entry.marks.end as usize]
    }

    /// About how many bytes it takes in memory.
    pub(super) fn footprint(&self) -> usize {
        self.raw.len()
            + self.ids.len()
            + self.entries.len() * size_of::<Entry>()
            + size_of_val(&*self.marks)
            + (self.channels.len() + self.names.len()) * 48
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::event;
    use super::*;

    #[test]
    fn events_come_back_packed_any_way() {
        let events: Vec<_> = (1..100)
            .map(|n| match n % 4 {
                0 => event(n * 7).channel("a").bytes(vec![n as u8; 100]).build(),
                1 => event(n * 7).id(&format!("order-{n}")).name("order").tag("k", "v").build(),
                2 => event(n * 7).id("550e8400-e29b-41d4-a716-446655440000").exclude("c").build(),
                _ if n % 3 == 0 => event(n * 7).way(Some((n % 5, n)), &[n, n + 9, 3]).build(),
                _ => event(n * 7).build(),
            })
            .collect();
        let gone = Channel::parse("gone").unwrap();
        let mut items: Vec<_> = events.iter().map(Item::Kept).collect();
        items.push(Item::Stub(Position(1000), &gone));
        let content = b"{\"n\":1}{\"n\":2}";
        let (compressor, expander) = (CDict::create(content, codec::LEVEL), DDict::create(content));
        for (compress, dictionary) in [(false, false), (true, false), (true, true)] {
            let bytes = pack(&items, compress, dictionary.then_some(&compressor));
            let block = Block::unpack(&bytes, Some(&expander)).unwrap();
            let (stub, kept) = block.entries.split_last().unwrap();
            let unpacked: Vec<_> = kept.iter().map(|entry| block.event(entry).unwrap()).collect();
            assert_eq!(unpacked, events);
            assert!(stub.head.is_stub() && stub.position() == Position(1000));
            assert_eq!(block.channels[stub.channel as usize], gone);
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 4;
                if let Ok(block) = Block::unpack(&flipped, Some(&expander)) {
                    block.entries.iter().for_each(|entry| drop(block.event(entry)));
                }
            }
        }
    }
}
