//! What of a run of events is worth keeping: the living, and of each channel a stub of the newest dead one, so
//! that a reader who passes it learns that something is gone.

use super::Shared;
use super::block::Item;
use super::liveness::Liveness;
use crate::event::{Channel, Event, Position};
use std::collections::HashMap;
use std::sync::Arc;

/// The living events and the stubs of a run.
pub(super) struct Remains {
    kept: Vec<Arc<Event>>,
    stubs: Vec<(Position, Channel)>,
}

impl Remains {
    /// Sorts out events in order, and stubs that were there already.
    pub(super) fn of(shared: &Shared, events: &[Arc<Event>], stubs: &[(Position, Channel)]) -> Self {
        let mut alive = Liveness::now(shared, shared.view());
        let mut newest: HashMap<Channel, Position, foldhash::fast::RandomState> = HashMap::default();
        let mut note = |channel: &Channel, position: Position| match newest.get_mut(channel) {
            Some(known) => *known = position.max(*known),
            None => drop(newest.insert(channel.clone(), position)),
        };
        stubs.iter().for_each(|(position, channel)| note(channel, *position));
        let mut kept = Vec::with_capacity(events.len());
        for event in events {
            if alive.is_alive(event) {
                kept.push(event.clone());
            } else {
                note(&event.channel, event.position);
            }
        }
        let mut stubs: Vec<_> = newest.into_iter().map(|(channel, position)| (position, channel)).collect();
        stubs.sort_unstable_by_key(|(position, _)| *position);
        Self { kept, stubs }
    }

    /// Everything in order.
    pub(super) fn items(&self) -> Vec<Item<'_>> {
        let mut items = Vec::with_capacity(self.kept.len() + self.stubs.len());
        items.extend(self.kept.iter().map(|event| Item::Kept(event)));
        items.extend(self.stubs.iter().map(|(position, channel)| Item::Stub(*position, channel)));
        items.sort_by_key(Item::position);
        items
    }
}
