//! Reading forward from a cursor: resume and replay.

use super::eras::Place;
use super::view::View;
use super::walk::{Walk, Wanted};
use super::{ReadError, Shared};
use crate::event::{Cursor, Event, Filter, Interest, Position};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One call reads no longer than this; the next goes on from there.
const LONGEST: Duration = Duration::from_millis(50);

/// How much one call of [`super::Log::read_after`] returns at most.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Events.
    pub events: usize,
    /// Their bytes in memory; at least one event is returned all the same.
    pub bytes: usize,
}

/// What [`super::Log::read_after`] found.
#[derive(Clone, Debug)]
pub struct Page {
    /// Every kept matching event up to `reached`, in order.
    pub events: Vec<Arc<Event>>,
    /// Where to go on.
    pub reached: Position,
    /// Something wanted in the range is no longer kept.
    pub lost: bool,
}

/// Whether a client that comes back gets everything that it missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResumeStatus {
    /// Everything after the cursor is there.
    Ok,
    /// Some of it is no longer kept.
    Expired,
    /// The cursor is of another log, or of a future that never was.
    Reset,
    /// The cursor is of the log of the bus, further than this node has come: another node was faster, or nobody
    /// was ever there.
    Ahead,
    /// The log cannot be read now.
    Unavailable,
}

/// Where a client that comes back begins to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// What to tell it.
    pub status: ResumeStatus,
    /// Read after this position.
    pub start: Position,
}

impl Shared {
    /// See [`super::Log::resume`].
    pub(super) fn resume(&self, interest: &Interest, cursor: &Cursor) -> Resume {
        let head = self.head();
        let reset = Resume { status: ResumeStatus::Reset, start: head };
        let eras = self.eras();
        let on_bus = eras.bus().is_some();
        let Ok(place) = self.place_of(cursor) else {
            return Resume { status: ResumeStatus::Unavailable, start: head };
        };
        let position = match place {
            Place::Current(position) => position,
            // What was on the bus before this node came.
            Place::BeforeCurrent(begin) => {
                return Resume {
                    status: ResumeStatus::Expired,
                    start: begin.max(self.view().floor).min(head),
                };
            }
            Place::Past(_) | Place::Elsewhere => return reset,
        };
        if on_bus && (position > head || self.is_beyond(cursor)) {
            return Resume { status: ResumeStatus::Ahead, start: position };
        }
        if position > head {
            // Between the last event found at the start and where numbering goes on: of an event that a power
            // cut took, or that the backup which was put in place does not have.
            let skipped = position < self.next_position();
            return if skipped { Resume { status: ResumeStatus::Expired, start: head } } else { reset };
        }
        let view = self.view();
        // Where the era begins is no event's position, though the start before it passed over it.
        let is_begin = position == eras.begin_of_current();
        let broken = !on_bus && !is_begin && self.starts.passed_over(position)
            || view.is_broken_after(position)
            || self.is_lost_soon(interest, position, head);
        Resume {
            status: if broken { ResumeStatus::Expired } else { ResumeStatus::Ok },
            start: position.max(view.floor).min(head),
        }
    }

    /// Looks at the first page after a cursor for wanted events that are gone.
    fn is_lost_soon(&self, interest: &Interest, after: Position, head: Position) -> bool {
        let budget = Budget { events: 256, bytes: 256 << 10 };
        match self.read_after(interest, &Filter::default(), after, head, budget) {
            Ok(page) => page.lost,
            // The reader will meet the same and say so.
            Err(ReadError::Unavailable) => false,
        }
    }

    /// See [`super::Log::read_after`].
    pub(super) fn read_after(
        &self,
        interest: &Interest,
        filter: &Filter,
        after: Position,
        up_to: Position,
        budget: Budget,
    ) -> Result<Page, ReadError> {
        let up_to = up_to.min(self.head());
        let deadline = Instant::now() + LONGEST;
        let mut page = Page { events: Vec::new(), reached: after.max(up_to), lost: false };
        let mut at = after;
        let mut bytes = 0;
        let mut walk = Walk::new(self, Wanted::new(Some(interest), filter));
        while let Some(step) = walk.forward(at, up_to)? {
            page.lost |= step.lost;
            for event in step.events {
                bytes += event.footprint();
                let first = page.events.is_empty();
                if !first && (bytes > budget.bytes || page.events.len() >= budget.events) {
                    page.reached = page.events.last().map_or(at, |last| last.position);
                    return Ok(page);
                }
                page.events.push(event);
            }
            at = step.reached;
            page.reached = at;
            if Instant::now() >= deadline {
                break;
            }
        }
        Ok(page)
    }

    pub(super) fn view(&self) -> Arc<View> {
        super::read_lock(&self.view).clone()
    }
}
