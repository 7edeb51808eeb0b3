//! Events that came twice under one id, from two senders: only the first is in the log, and stands for both. Who
//! has got the one early passes over the other.

use crate::codec::Shown;
use crate::event::{Event, Position, Sender};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

/// Most that are known; beyond it the oldest is forgotten, and who is far behind may get it twice.
const MOST: usize = 4096;

/// What else the events at some positions are.
#[derive(Default)]
pub(super) struct Twins {
    /// Nearly always there are none.
    any: AtomicBool,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    senders: HashMap<Position, Sender, foldhash::fast::RandomState>,
    order: VecDeque<Position>,
}

impl Twins {
    /// The event at a position is also that of this sender.
    pub(super) fn add(&self, position: Position, sender: Sender) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.senders.insert(position, sender).is_none() {
            known.order.push_back(position);
        }
        if known.order.len() > MOST
            && let Some(oldest) = known.order.pop_front()
        {
            known.senders.remove(&oldest);
        }
        self.any.store(true, Ordering::Release);
    }

    /// Whose an event of the log is besides.
    pub(super) fn of(&self, event: &Event) -> Option<Sender> {
        if !event.id_given || !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.known.read().unwrap_or_else(PoisonError::into_inner).senders.get(&event.position).copied()
    }

    /// Those of a group.
    pub(super) fn among<'a>(
        &'a self,
        group: &'a [std::sync::Arc<Shown>],
    ) -> impl Iterator<Item = Sender> + 'a {
        group.iter().filter_map(|shown| self.of(&shown.event))
    }
}
