//! Rules that keep the newest N events of a channel: where the N-th newest stands.

use super::Shared;
use super::generation::Trouble;
use super::packed::PackedFold;
use super::view::{Source, View};
use crate::event::{Channel, Position};
use std::collections::HashMap;
use std::sync::Mutex;

/// The floors of more channels than this are not remembered.
const MOST: usize = 10_000;

/// Floors that were found before.
#[derive(Default)]
pub(super) struct Floors(Mutex<HashMap<Channel, Known, foldhash::fast::RandomState>>);

#[derive(Clone, Copy)]
struct Known {
    floor: Position,
    /// The newest event that was counted.
    newest: Position,
}

impl Shared {
    /// The position of the N-th newest event of a channel: what is before it is no longer kept. Read from
    /// counts in the index; at most one block is unpacked.
    pub(super) fn floor_of(&self, view: &View, channel: &Channel, most: u64) -> Position {
        let newest = view.tables().filter_map(|table| table.newest_of(channel, 1).pop()).max();
        let oldest_table = view.tables().next().map_or(self.head().next(), |table| table.header.first);
        let known = super::lock(&self.floors.0).get(channel).copied();
        if let Some(known) = known {
            // What was counted then and is packed now tells nothing of events between the two.
            let nothing_new =
                newest.map_or(known.newest.next() >= oldest_table, |newest| newest == known.newest);
            if nothing_new {
                return known.floor;
            }
        }
        let floor = self.count_back(view, channel, most);
        let floor = floor.max(known.map_or(Position::ZERO, |known| known.floor));
        if let Some(newest) = newest {
            let mut floors = super::lock(&self.floors.0);
            if floors.len() >= MOST {
                floors.clear();
            }
            floors.insert(channel.clone(), Known { floor, newest });
        }
        floor
    }

    fn count_back(&self, view: &View, channel: &Channel, most: u64) -> Position {
        let mut left = most;
        if left == 0 {
            return Position::MAX;
        }
        for source in view.sources.iter().rev() {
            match source {
                Source::Memory(table) => {
                    let positions = table.newest_of(channel, usize::try_from(left).unwrap_or(usize::MAX));
                    left -= positions.len() as u64;
                    if let (0, Some(floor)) = (left, positions.last()) {
                        return *floor;
                    }
                }
                // What cannot be read is not trimmed now.
                Source::Packed(packed) => match self.count_back_in(packed, channel, &mut left) {
                    Ok(Some(floor)) => return floor,
                    Ok(None) => {}
                    Err(_) => return Position::ZERO,
                },
            }
        }
        Position::ZERO
    }

    fn count_back_in(
        &self,
        packed: &PackedFold,
        channel: &Channel,
        left: &mut u64,
    ) -> Result<Option<Position>, Trouble> {
        let Some(directory) = self.directory_of(packed)? else { return Ok(None) };
        let Some(postings) = self.postings_of(packed, &directory, channel)? else { return Ok(None) };
        for posting in postings.iter().rev() {
            if u64::from(posting.count) < *left {
                *left -= u64::from(posting.count);
                continue;
            }
            let Some(block) = self.block_of(packed, &directory, posting.block as usize)? else {
                return Ok(None);
            };
            let own =
                block.entries.iter().rev().filter(|entry| block.channels[entry.channel as usize] == *channel);
            return Ok(own.map(|entry| entry.position()).nth((*left - 1) as usize));
        }
        Ok(None)
    }
}
