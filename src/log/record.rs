//! An event as bytes, field by field. Journals write the fields of an event together, blocks write like
//! beside like, because that compresses better.

use super::way::{self, WaysBefore};
use super::wire::{Damaged, Reader, put_bytes, put_signed, put_varint};
use crate::event::{
    Author, Channel, ConnectionId, Data, Event, EventId, EventName, Expiry, Json, Position, Sender, Tags,
    UnixMs, Way,
};
use bytes::Bytes;

const ID_GIVEN: u8 = 1;
const DATA_JSON: u8 = 2;
const HAS_TAGS: u8 = 4;
const HAS_EXCLUDE: u8 = 8;
/// The id is a lower-case hyphenated UUID, kept as 16 bytes.
const ID_UUID: u8 = 16;
/// The id is a UUIDv7: its time is kept as the distance to the event's, and the rest as 10 bytes.
const ID_UUID_7: u8 = 32;
/// Not an event any more: it only tells a reader that one was here.
const STUB: u8 = 64;
/// A second byte of flags follows: those of the way over the bus, and the one below.
const HAS_MORE: u8 = 128;
const HAS_AUTHOR: u8 = 128;
const _: () = assert!(HAS_AUTHOR & way::BITS == 0, "each has its own bits");

/// What the next record is told relative to: positions and times are near each other.
#[derive(Clone, Copy, Default)]
pub(super) struct Previous {
    pub(super) position: u64,
    pub(super) time: UnixMs,
    /// How long the event before was to be kept.
    keep: i64,
    ways: WaysBefore,
}

impl Previous {
    /// The marks of the event whose head was read last; empty if it has none.
    pub(super) fn marks(&self, head: &Head) -> &[u64] {
        self.ways.marks(head.more)
    }
}

/// The fields that selection needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    flags: u8,
    more: u8,
    sender: Option<Sender>,
    pub(super) position: Position,
    pub(super) time: UnixMs,
    pub(super) expiry: UnixMs,
}

/// Appends the head of a stored event; `previous` moves on.
pub(super) fn put_head(out: &mut Vec<u8>, event: &Event, previous: &mut Previous) {
    let Expiry::At(expiry) = event.expiry else { unreachable!("live-only events are never stored") };
    let mut more = event.way.as_ref().map_or(0, |way| previous.ways.bits(way));
    if event.from.is_some() {
        more |= HAS_AUTHOR;
    }
    if more == 0 {
        out.push(flags(event));
    } else {
        out.extend_from_slice(&[flags(event) | HAS_MORE, more]);
    }
    put_varint(out, event.position.0 - previous.position);
    put_signed(out, event.time.wrapping_sub(previous.time) as i64);
    let keep = expiry.wrapping_sub(event.time) as i64;
    put_signed(out, keep.wrapping_sub(previous.keep));
    if let Some(way) = &event.way {
        previous.ways.put(out, way);
    }
    (previous.position, previous.time, previous.keep) = (event.position.0, event.time, keep);
}

/// Reads a head; `previous` moves on.
pub(super) fn read_head(reader: &mut Reader<'_>, previous: &mut Previous) -> Result<Head, Damaged> {
    let flags = reader.byte()?;
    let more = if flags & HAS_MORE != 0 { reader.byte()? } else { 0 };
    let position = previous.position.checked_add(reader.varint()?).ok_or(Damaged)?;
    let time = previous.time.wrapping_add(reader.signed()? as u64);
    let keep = previous.keep.wrapping_add(reader.signed()?);
    let sender = previous.ways.read(reader, more)?;
    (previous.position, previous.time, previous.keep) = (position, time, keep);
    let (position, expiry) = (Position(position), time.wrapping_add(keep as u64));
    Ok(Head { flags, more, sender, position, time, expiry })
}

/// Appends the head of a stub: what is left of the newest removed event of a channel.
pub(super) fn put_stub_head(out: &mut Vec<u8>, position: Position, previous: &mut Previous) {
    out.push(STUB);
    put_varint(out, position.0 - previous.position);
    put_signed(out, 0);
    put_signed(out, 0);
    previous.position = position.0;
}

impl Head {
    /// Whether this is all that is left of a removed event.
    pub(super) fn is_stub(&self) -> bool {
        self.flags & STUB != 0
    }
}

/// Appends the id. Kept apart from the body in blocks: random bytes spoil the compression of text beside them.
pub(super) fn put_id(out: &mut Vec<u8>, event: &Event) {
    match uuid_of(&event.id) {
        Some(uuid) if uuid.get_version_num() == 7 => {
            let raw = uuid.as_bytes();
            put_signed(out, uuid_7_time(raw).wrapping_sub(event.time) as i64);
            out.extend_from_slice(&raw[6..]);
        }
        Some(uuid) => out.extend_from_slice(uuid.as_bytes()),
        None => put_bytes(out, event.id.key().as_bytes()),
    }
}

/// Reads an id.
pub(super) fn read_id(reader: &mut Reader<'_>, head: &Head) -> Result<EventId, Damaged> {
    let mut raw = [0; 16];
    if head.flags & ID_UUID_7 != 0 {
        let time = head.time.wrapping_add(reader.signed()? as u64);
        raw[..6].copy_from_slice(&time.to_be_bytes()[2..]);
        raw[6..].copy_from_slice(reader.take(10)?);
    } else if head.flags & ID_UUID != 0 {
        raw.copy_from_slice(reader.take(16)?);
    } else {
        return EventId::from_key(reader.text()?).ok_or(Damaged);
    }
    let mut buffer = uuid::Uuid::encode_buffer();
    let text = uuid::Uuid::from_bytes(raw).hyphenated().encode_lower(&mut buffer);
    EventId::parse(text).map_err(|_| Damaged)
}

/// Passes over an id.
pub(super) fn skip_id(reader: &mut Reader<'_>, head: &Head) -> Result<(), Damaged> {
    if head.flags & ID_UUID_7 != 0 {
        reader.signed()?;
        reader.take(10)?;
    } else if head.flags & ID_UUID != 0 {
        reader.take(16)?;
    } else {
        reader.bytes()?;
    }
    Ok(())
}

/// Appends tags, exclusion and author.
pub(super) fn put_extras(out: &mut Vec<u8>, event: &Event) {
    if !event.tags.is_empty() {
        put_varint(out, event.tags.iter().len() as u64);
        for (name, value) in event.tags.iter() {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value.as_bytes());
        }
    }
    if let Some(exclude) = &event.exclude {
        put_bytes(out, exclude.as_str().as_bytes());
    }
    if let Some(author) = &event.from {
        // A user is never empty.
        put_bytes(out, author.user.as_deref().unwrap_or_default().as_bytes());
        put_bytes(out, author.connection.as_str().as_bytes());
    }
}

/// Tags, exclusion and author.
pub(super) struct Extras {
    tags: Tags,
    exclude: Option<ConnectionId>,
    from: Option<Box<Author>>,
}

/// Reads tags, exclusion and author.
pub(super) fn read_extras(reader: &mut Reader<'_>, head: &Head) -> Result<Extras, Damaged> {
    let mut tags = Tags::default();
    if head.flags & HAS_TAGS != 0 {
        let mut pairs = Vec::new();
        for _ in 0..reader.size()? {
            pairs.push((reader.text()?.to_owned(), reader.text()?.to_owned()));
        }
        tags = Tags::from_pairs(pairs).map_err(|_| Damaged)?;
    }
    let exclude = match head.flags & HAS_EXCLUDE != 0 {
        true => Some(ConnectionId::parse(reader.text()?).map_err(|_| Damaged)?),
        false => None,
    };
    let from = match head.more & HAS_AUTHOR != 0 {
        true => {
            let user = Some(reader.text()?).filter(|user| !user.is_empty());
            let connection = ConnectionId::parse(reader.text()?).map_err(|_| Damaged)?;
            Some(Box::new(Author::new(user, connection).map_err(|_| Damaged)?))
        }
        false => None,
    };
    Ok(Extras { tags, exclude, from })
}

/// The bytes of the data.
pub(super) fn data_bytes(event: &Event) -> &[u8] {
    match &event.data {
        Data::Json(json) => json.as_str().as_bytes(),
        Data::Bytes(bytes) => bytes,
    }
}

impl Head {
    /// How the event came over a bus, whose marks are these.
    pub(super) fn way(&self, marks: &[u64]) -> Option<Box<Way>> {
        way::whole(self.sender, marks)
    }
}

/// Makes an event whole again.
pub(super) fn whole(
    head: &Head,
    id: EventId,
    channel: Channel,
    name: EventName,
    extras: Extras,
    way: Option<Box<Way>>,
    data: &[u8],
) -> Result<Event, Damaged> {
    let data = match head.flags & DATA_JSON != 0 {
        true => Data::Json(Json::trusted(std::str::from_utf8(data).map_err(|_| Damaged)?.into())),
        false => Data::Bytes(Bytes::copy_from_slice(data)),
    };
    Ok(Event {
        position: head.position,
        id,
        id_given: head.flags & ID_GIVEN != 0,
        channel,
        name,
        data,
        time: head.time,
        tags: extras.tags,
        expiry: Expiry::At(head.expiry),
        exclude: extras.exclude,
        from: extras.from,
        way,
    })
}

/// Appends a whole event, as journals keep it.
pub(super) fn put_record(out: &mut Vec<u8>, event: &Event, previous: &mut Previous) {
    put_head(out, event, previous);
    put_bytes(out, event.channel.as_str().as_bytes());
    put_bytes(out, event.name.as_str().as_bytes());
    put_id(out, event);
    put_extras(out, event);
    put_bytes(out, data_bytes(event));
}

/// Reads a whole event.
pub(super) fn read_record(reader: &mut Reader<'_>, previous: &mut Previous) -> Result<Event, Damaged> {
    let head = read_head(reader, previous)?;
    let way = head.way(previous.marks(&head));
    let channel = Channel::parse(reader.text()?).map_err(|_| Damaged)?;
    let name = EventName::parse(reader.text()?).map_err(|_| Damaged)?;
    let id = read_id(reader, &head)?;
    let extras = read_extras(reader, &head)?;
    whole(&head, id, channel, name, extras, way, reader.bytes()?)
}

fn flags(event: &Event) -> u8 {
    let mut flags = match uuid_of(&event.id) {
        Some(uuid) if uuid.get_version_num() == 7 => ID_UUID_7,
        Some(_) => ID_UUID,
        None => 0,
    };
    if event.id_given {
        flags |= ID_GIVEN;
    }
    if matches!(event.data, Data::Json(_)) {
        flags |= DATA_JSON;
    }
    if !event.tags.is_empty() {
        flags |= HAS_TAGS;
    }
    if event.exclude.is_some() {
        flags |= HAS_EXCLUDE;
    }
    flags
}

/// The UUID that the id is the usual text of, so that the text can be made again from 16 bytes.
fn uuid_of(id: &EventId) -> Option<uuid::Uuid> {
    let text = id.key().as_bytes();
    let usual = text.len() == 36
        && [8, 13, 18, 23].iter().all(|&dash| text[dash] == b'-')
        && !text.iter().any(u8::is_ascii_uppercase);
    if usual { uuid::Uuid::try_parse_ascii(text).ok() } else { None }
}

fn uuid_7_time(raw: &[u8; 16]) -> u64 {
    raw[..6].iter().fold(0, |time, &byte| time << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_every_shape_come_back() {
        for id in [
            "a",
            "0192d3a4-7b1c-7def-8123-456789abcdef",
            "0192D3A4-7b1c-7def-8123-456789abcdef",
            "550e8400-e29b-41d4-a716-446655440000",
            "550e8400e29b41d4a716446655440000xxxx",
            "order-\u{e4}-17",
        ] {
            let event = super::super::testing::event(7).id(id).build();
            let mut out = Vec::new();
            put_record(&mut out, &event, &mut Previous::default());
            let mut reader = Reader::new(&out);
            assert_eq!(read_record(&mut reader, &mut Previous::default()), Ok(event));
            assert!(reader.is_at_end());
        }
    }

    #[test]
    fn authors_come_back() {
        for user in [None, Some("ann")] {
            let event = super::super::testing::event(7).exclude("n-2").from(user).build();
            let mut out = Vec::new();
            put_record(&mut out, &event, &mut Previous::default());
            assert_eq!(read_record(&mut Reader::new(&out), &mut Previous::default()), Ok(event));
        }
    }

    #[test]
    fn the_ways_of_several_events_come_back_in_few_bytes() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut marks = [9_u64 << 40, 0, 7 << 40];
        let events: Vec<_> = (1..400_u64)
            .map(|n| {
                let event = super::super::testing::event(n).from((n % 50 == 0).then_some("ann"));
                marks[random.usize(0..3)] += random.u64(0..1 << 20);
                let origin = match n % 100 {
                    0 => n,
                    _ => random.u64(1..4),
                };
                event.way((n % 7 != 0).then_some((origin, n)), if n % 90 < 80 { &marks } else { &[] }).build()
            })
            .collect();
        let (mut out, mut plain) = (Vec::new(), Vec::new());
        let (mut previous, mut bare) = (Previous::default(), Previous::default());
        for event in &events {
            put_record(&mut out, event, &mut previous);
            put_record(&mut plain, &Event { way: None, ..event.clone() }, &mut bare);
        }
        assert!(out.len() - plain.len() < 9 * events.len(), "{} of {}", out.len() - plain.len(), plain.len());
        let (mut reader, mut previous) = (Reader::new(&out), Previous::default());
        for event in &events {
            assert_eq!(read_record(&mut reader, &mut previous).as_ref(), Ok(event));
        }
        assert!(reader.is_at_end());
    }

    #[test]
    fn any_cut_or_flip_is_damage_or_another_event_but_no_panic() {
        let event = super::super::testing::event(7).tag("a", "b").from(Some("ann"));
        let event = event.way(Some((9, 300)), &[1, 2 << 50]).build();
        let mut out = Vec::new();
        put_record(&mut out, &event, &mut Previous::default());
        for at in 0..out.len() {
            let _ = read_record(&mut Reader::new(&out[..at]), &mut Previous::default()).unwrap_err();
            for bit in 0..8 {
                let mut flipped = out.clone();
                flipped[at] ^= 1 << bit;
                let _ = read_record(&mut Reader::new(&flipped), &mut Previous::default());
            }
        }
    }
}
