//! How events came over a bus, as bytes: next to nothing where the events before came the same way.

use super::wire::{Damaged, Reader, put_signed, put_varint};
use crate::event::{MAX_SHARDS, Marks, Origin, Position, Sender, Way};

/// Its sender is one of the last few: which of them stands in two bits above.
const SENDER_AGAIN: u8 = 1;
const SENDER_NEW: u8 = 2;
const MARKS: u8 = 4;
const WHICH: u32 = 4;
/// The bits of the above. The others are free for whoever keeps the byte.
pub(super) const BITS: u8 = SENDER_AGAIN | SENDER_NEW | MARKS | 3 << WHICH;

/// Senders that need not be named again. As a rule a bus has a few nodes.
const RECENT: usize = 4;

/// The ways of the events before.
#[derive(Clone, Copy, Default)]
pub(super) struct WaysBefore {
    senders: [(u64, u64); RECENT],
    /// Whose place the next new sender takes.
    oldest: usize,
    shards: usize,
    marks: [u64; MAX_SHARDS],
}

impl WaysBefore {
    /// The bits that [`WaysBefore::put`] will want of a byte before; none if there is nothing to put.
    pub(super) fn bits(&self, way: &Way) -> u8 {
        let sender = match way.sender {
            None => 0,
            Some(sender) => match self.place_of(sender) {
                Some(place) => SENDER_AGAIN | (place as u8) << WHICH,
                None => SENDER_NEW,
            },
        };
        sender | if way.marks.is_some() { MARKS } else { 0 }
    }

    fn place_of(&self, sender: Sender) -> Option<usize> {
        self.senders.iter().position(|(origin, number)| *origin == sender.origin.0 && *number > 0)
    }

    /// Appends what the bits do not say.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, way: &Way) {
        if let Some(sender) = way.sender {
            match self.place_of(sender) {
                Some(place) => {
                    let last = &mut self.senders[place].1;
                    put_signed(out, sender.number.wrapping_sub(*last) as i64);
                    *last = sender.number;
                }
                None => {
                    out.extend_from_slice(&sender.origin.0.to_le_bytes());
                    put_varint(out, sender.number);
                    self.note_new(sender);
                }
            }
        }
        if let Some(marks) = &way.marks {
            let positions = marks.positions();
            self.begin_marks(positions.len());
            let mut changed = 0_u64;
            for (shard, position) in positions.iter().enumerate() {
                changed |= u64::from(position.0 != self.marks[shard]) << shard;
            }
            // As a rule one: that of the event's channel.
            out.push(positions.len() as u8);
            put_varint(out, changed);
            for (before, position) in self.marks.iter_mut().zip(positions) {
                if *before != position.0 {
                    put_signed(out, position.0.wrapping_sub(*before) as i64);
                    *before = position.0;
                }
            }
        }
    }

    /// Reads it; the marks are then [`WaysBefore::marks`].
    pub(super) fn read(&mut self, reader: &mut Reader<'_>, bits: u8) -> Result<Option<Sender>, Damaged> {
        let sender = match bits & (SENDER_AGAIN | SENDER_NEW) {
            0 => None,
            SENDER_AGAIN => {
                let (origin, last) = &mut self.senders[usize::from(bits >> WHICH & 3)];
                *last = last.wrapping_add(reader.signed()? as u64);
                Some(Sender { origin: Origin(*origin), number: *last })
            }
            SENDER_NEW => {
                let sender = Sender { origin: Origin(reader.u64()?), number: reader.varint()? };
                self.note_new(sender);
                Some(sender)
            }
            _ => return Err(Damaged),
        };
        if bits & MARKS != 0 {
            let shards = usize::from(reader.byte()?);
            if !(2..=MAX_SHARDS).contains(&shards) {
                return Err(Damaged);
            }
            self.begin_marks(shards);
            let changed = reader.varint()?;
            for (shard, before) in self.marks.iter_mut().enumerate().take(shards) {
                if changed >> shard & 1 != 0 {
                    *before = before.wrapping_add(reader.signed()? as u64);
                }
            }
        }
        Ok(sender)
    }

    /// The marks of the event that was read last, if it has any.
    pub(super) fn marks(&self, bits: u8) -> &[u64] {
        if bits & MARKS == 0 { &[] } else { &self.marks[..self.shards] }
    }

    fn note_new(&mut self, sender: Sender) {
        self.senders[self.oldest] = (sender.origin.0, sender.number);
        self.oldest = (self.oldest + 1) % RECENT;
    }

    fn begin_marks(&mut self, shards: usize) {
        if self.shards != shards {
            (self.shards, self.marks) = (shards, [0; MAX_SHARDS]);
        }
    }
}

/// Makes a way whole again.
pub(super) fn whole(sender: Option<Sender>, marks: &[u64]) -> Option<Box<Way>> {
    let marks = Marks::new(marks.iter().copied().map(Position).collect::<Vec<_>>());
    (sender.is_some() || marks.is_some()).then(|| Box::new(Way { sender, marks }))
}
