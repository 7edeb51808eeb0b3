//! The text form of cursors: unpadded URL-safe Base64 of one of two forms. Numbers are big-endian.
//!
//! | bytes | first form: a position and nothing else |
//! | --- | --- |
//! | 1 | 1 |
//! | 8 | epoch |
//! | 8 | position |
//!
//! | bytes | second form: whatever else a cursor says |
//! | --- | --- |
//! | 1 | 2 |
//! | 8 | epoch |
//! | 1 | number of positions, `n` |
//! | 8 | the highest position |
//! | `n`/2, rounded up | only if there are several: for each, half a byte that says in how many bytes its distance to the highest follows; 15 for position 0 |
//! | 0 to 8 `n` | these distances |
//! | rest | early ranges: origin (8), `from`, length (LEB128 each) |
//!
//! Each cursor has one text: what would not be written is not read.

use super::{Cursor, EarlyRange, Epoch, Place, Position};
use crate::event::{MAX_SHARDS, Marks, Origin};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use smallvec::SmallVec;
use std::fmt;

/// A position alone.
const PLAIN: u8 = 1;
const PLAIN_BYTES: usize = 17;
/// Everything else.
const FULL: u8 = 2;
/// Largest second form.
const MOST_BYTES: usize = Cursor::MAX_TEXT_BYTES / 4 * 3;
/// Instead of a length: position 0, of a shard in which nothing has been read.
const ZERO: u8 = 15;

impl Cursor {
    /// Length of the text of a position and nothing else.
    pub const TEXT_BYTES: usize = 23;
    /// Length of the longest text.
    pub const MAX_TEXT_BYTES: usize = 200;

    /// The text form. Where it has no room for all that the client has got besides, the oldest of it is left
    /// out: the client may then get that again.
    pub fn encode(&self) -> CursorText {
        let mut text = SmallVec::new();
        match &self.place {
            Place::At(position) if self.early.is_empty() => {
                let mut raw = [PLAIN; PLAIN_BYTES];
                raw[1..9].copy_from_slice(&self.epoch.0.to_be_bytes());
                raw[9..].copy_from_slice(&position.0.to_be_bytes());
                text.resize(Self::TEXT_BYTES, 0);
                URL_SAFE_NO_PAD.encode_slice(raw, &mut text).expect("17 bytes are 23 characters");
            }
            _ => {
                let raw = self.full();
                text.resize((raw.len() * 4).div_ceil(3), 0);
                URL_SAFE_NO_PAD.encode_slice(&raw, &mut text).expect("three bytes are four characters");
            }
        }
        CursorText(text)
    }

    fn full(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(MOST_BYTES);
        raw.push(FULL);
        raw.extend_from_slice(&self.epoch.0.to_be_bytes());
        match &self.place {
            Place::At(position) => {
                raw.push(1);
                raw.extend_from_slice(&position.0.to_be_bytes());
            }
            Place::Marks(marks) => put_marks(&mut raw, marks),
        }
        // From the newest back as far as there is room, then in order.
        let mut ranges: SmallVec<[SmallVec<[u8; 32]>; 4]> = SmallVec::new();
        let mut room = MOST_BYTES - raw.len();
        for range in self.early.iter().rev() {
            let mut bytes: SmallVec<[u8; 32]> = SmallVec::new();
            bytes.extend_from_slice(&range.origin.0.to_be_bytes());
            put_varint(&mut bytes, range.from);
            put_varint(&mut bytes, range.to.saturating_sub(range.from));
            if bytes.len() > room {
                break;
            }
            room -= bytes.len();
            ranges.push(bytes);
        }
        for bytes in ranges.iter().rev() {
            raw.extend_from_slice(bytes);
        }
        raw
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        if text.len() > Self::MAX_TEXT_BYTES {
            return Err(CursorError);
        }
        // The decoder wants room for its estimate, which is a little above the true length.
        let mut raw = [0; MOST_BYTES + 3];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut raw).map_err(|_| CursorError)?;
        let mut reader = Reader(&raw[..length]);
        let cursor = match reader.byte()? {
            PLAIN if length == PLAIN_BYTES => Self::at(Epoch(reader.word()?), Position(reader.word()?)),
            FULL => read_full(&mut reader)?,
            _ => return Err(CursorError),
        };
        if cursor.encode().as_str() == text { Ok(cursor) } else { Err(CursorError) }
    }
}

fn put_marks(raw: &mut Vec<u8>, marks: &Marks) {
    let positions = marks.positions();
    let highest = positions.iter().max().copied().unwrap_or_default();
    raw.push(positions.len() as u8);
    raw.extend_from_slice(&highest.0.to_be_bytes());
    let length = |position: &Position| match position.0 {
        0 => ZERO,
        position => (64 - (highest.0 - position).leading_zeros()).div_ceil(8) as u8,
    };
    for pair in positions.chunks(2) {
        raw.push(length(&pair[0]) << 4 | pair.get(1).map_or(0, length));
    }
    for position in positions.iter().filter(|position| position.0 > 0) {
        let distance = (highest.0 - position.0).to_be_bytes();
        raw.extend_from_slice(&distance[distance.len() - usize::from(length(position))..]);
    }
}

fn read_full(reader: &mut Reader<'_>) -> Result<Cursor, CursorError> {
    let epoch = Epoch(reader.word()?);
    let count = usize::from(reader.byte()?);
    let highest = reader.word()?;
    let place = match count {
        1 => Place::At(Position(highest)),
        2..=MAX_SHARDS => Place::Marks(read_marks(reader, count, highest)?),
        _ => return Err(CursorError),
    };
    let mut cursor = Cursor { epoch, place, early: SmallVec::new() };
    while !reader.0.is_empty() {
        let (origin, from) = (Origin(reader.word()?), reader.varint()?);
        let to = from.checked_add(reader.varint()?).filter(|to| *to > from).ok_or(CursorError)?;
        cursor.early.push(EarlyRange { origin, from, to });
    }
    Ok(cursor)
}

fn read_marks(reader: &mut Reader<'_>, count: usize, highest: u64) -> Result<Marks, CursorError> {
    let lengths = reader.take(count.div_ceil(2))?;
    let mut positions = Vec::with_capacity(count);
    for shard in 0..count {
        let pair = lengths[shard / 2];
        let length = if shard % 2 == 0 { pair >> 4 } else { pair & 0xf };
        let position = match length {
            ZERO => 0,
            0..=8 => {
                let bytes = reader.take(usize::from(length))?;
                let distance = bytes.iter().fold(0, |distance, byte| distance << 8 | u64::from(*byte));
                highest.checked_sub(distance).ok_or(CursorError)?
            }
            _ => return Err(CursorError),
        };
        positions.push(Position(position));
    }
    Marks::new(positions).ok_or(CursorError)
}

fn put_varint(out: &mut SmallVec<[u8; 32]>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], CursorError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(CursorError)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, CursorError> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn word(&mut self) -> Result<u64, CursorError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_be_bytes(bytes))
    }

    fn varint(&mut self) -> Result<u64, CursorError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CursorError)
    }
}

/// The text of a cursor. On the heap only where it is more than a position.
#[derive(Clone, PartialEq, Eq)]
pub struct CursorText(SmallVec<[u8; 24]>);

impl CursorText {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

impl fmt::Display for CursorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CursorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl serde::Serialize for CursorText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The text is no cursor of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CursorError;

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor: send one exactly as Sidewire gave it, or none to start from now")
    }
}

impl std::error::Error for CursorError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges() -> impl Strategy<Value = Vec<EarlyRange>> {
        let range = (any::<u64>(), any::<u64>(), 1..u64::MAX).prop_filter_map(
            "no room above",
            |(origin, from, length)| {
                Some(EarlyRange { origin: Origin(origin), from, to: from.checked_add(length)? })
            },
        );
        proptest::collection::vec(range, 0..12)
    }

    fn cursors() -> impl Strategy<Value = Cursor> {
        let near = (any::<u64>(), 0_u32..64)
            .prop_map(|(base, bits)| u64::MAX.checked_shr(bits).map_or(base, |mask| base & mask));
        let positions = proptest::collection::vec(near, 1..=MAX_SHARDS);
        (any::<u64>(), positions, ranges()).prop_map(|(epoch, positions, early)| {
            let positions: Vec<_> = positions.into_iter().map(Position).collect();
            let place = Place::At(positions[0]);
            let place = Marks::new(positions).map_or(place, Place::Marks);
            Cursor { epoch: Epoch(epoch), place, early: early.into() }
        })
    }

    proptest! {
        #[test]
        fn every_cursor_survives_its_text_form(cursor in cursors()) {
            let text = cursor.encode();
            prop_assert!(text.as_str().len() <= Cursor::MAX_TEXT_BYTES);
            let read = Cursor::parse(text.as_str()).unwrap();
            prop_assert_eq!((read.epoch, &read.place), (cursor.epoch, &cursor.place));
            // The newest of what it has besides is there.
            prop_assert!(cursor.early.ends_with(&read.early));
            prop_assert!(read.early.len() == cursor.early.len() || cursor.early.len() > 1 || cursor.position().is_none());
            prop_assert_eq!(read.encode(), text);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[A-Za-z0-9_-]{0,210}|\\PC{0,40}|A[gQ][A-Za-z0-9_-]{0,60}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                let again = cursor.encode();
                prop_assert_eq!(again.as_str(), text.as_str());
            }
        }

        #[test]
        fn any_change_of_a_text_is_refused_or_another_cursor(cursor in cursors(), at: usize, byte: u8) {
            let text = cursor.encode();
            let mut changed = text.as_str().as_bytes().to_vec();
            let at = at % changed.len();
            changed[at] = byte;
            if let Some(changed) = std::str::from_utf8(&changed).ok().filter(|changed| *changed != text.as_str())
                && let Ok(read) = Cursor::parse(changed)
            {
                prop_assert_ne!(read, Cursor::parse(text.as_str()).unwrap());
            }
        }
    }

    #[test]
    fn a_position_alone_keeps_its_short_form() {
        let cursor = Cursor::at(Epoch(0x4e48_8108_eebb_5b13), Position(1));
        assert_eq!(cursor.encode().as_str(), "AU5IgQjuu1sTAAAAAAAAAAE");
        assert_eq!(Cursor::parse("AU5IgQjuu1sTAAAAAAAAAAE"), Ok(cursor));
    }

    #[test]
    fn the_second_form_stays_as_it_is() {
        let early = [EarlyRange { origin: Origin(0xabc), from: 3, to: 7 }].into_iter().collect();
        let cursor = Cursor { early, ..Cursor::at(Epoch(7), Position(5)) };
        assert_eq!(cursor.encode().as_str(), "AgAAAAAAAAAHAQAAAAAAAAAFAAAAAAAACrwDBA");
        let place = Place::Marks(Marks::new([1000, 0, 700].map(Position)).unwrap());
        let cursor = Cursor { place, ..Cursor::at(Epoch(7), Position(5)) };
        assert_eq!(cursor.encode().as_str(), "AgAAAAAAAAAHAwAAAAAAAAPoDyABLA");
    }

    #[test]
    fn sixteen_shards_and_two_ranges_fit() {
        // Shards that were quiet for up to an hour, milliseconds times 2^20 each.
        let now = 1_795_257_036_139 << 20;
        let positions: Vec<_> = (0..16).map(|shard| Position(now - ((shard * 240_000) << 20))).collect();
        let range = |origin, from| EarlyRange { origin: Origin(origin), from, to: from + 60_000 };
        let cursor = Cursor {
            epoch: Epoch(u64::MAX),
            place: Place::Marks(Marks::new(positions).unwrap()),
            early: smallvec::smallvec![range(u64::MAX, 1 << 20), range(1, 1 << 30)],
        };
        assert_eq!(Cursor::parse(cursor.encode().as_str()), Ok(cursor));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let empty = EarlyRange { origin: Origin(1), from: 5, to: 5 };
        let empty = Cursor { early: [empty].into(), ..Cursor::at(Epoch(1), Position(1)) }.encode();
        for text in [
            "",
            "-1",
            "18446744073709551616",
            "AQ",
            "Ag",
            &"A".repeat(1 << 20),
            &"Ag".repeat(100),
            empty.as_str(),
        ] {
            assert_eq!(Cursor::parse(text), Err(CursorError));
        }
    }
}
