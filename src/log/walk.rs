//! Walking the log in either direction, stretch by stretch, keeping only what is wanted and still alive.

use super::liveness::Liveness;
use super::view::{Source, View};
use super::{ReadError, Shared};
use crate::event::{Channel, Event, Filter, Interest, Position, UnixMs};
use std::sync::Arc;

/// Events of a journal that are looked at in one step: few enough not to hold up the writer.
const STRETCH: usize = 1024;

/// What a reader is after.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The channels; none means all.
    pub(super) interest: Option<&'a Interest>,
    pub(super) filter: &'a Filter,
    /// Accepted at this time or later.
    pub(super) since: Option<UnixMs>,
    /// Accepted before this time.
    pub(super) until: Option<UnixMs>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(interest: Option<&'a Interest>, filter: &'a Filter) -> Self {
        Self { interest, filter, since: None, until: None }
    }

    /// Whether events of a channel are wanted.
    pub(super) fn channel(&self, channel: &Channel) -> bool {
        self.interest.is_none_or(|interest| interest.matches(channel))
    }

    /// Whether an event of a wanted channel is wanted.
    pub(super) fn passes(&self, event: &Event) -> bool {
        self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time < until)
            && self.filter.passes(event)
    }
}

/// One stretch of the log.
pub(super) struct Step {
    /// What is wanted and alive in it, in the direction of the walk.
    pub(super) events: Vec<Arc<Event>>,
    /// Everything between the step before and here, this position included, was looked at.
    pub(super) reached: Position,
    /// Something wanted in it is no longer kept.
    pub(super) lost: bool,
}

/// A walk over a view of the log.
pub(super) struct Walk<'a> {
    pub(super) view: Arc<View>,
    wanted: Wanted<'a>,
    alive: Liveness<'a>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(shared: &'a Shared, wanted: Wanted<'a>) -> Self {
        Self { view: shared.view(), wanted, alive: Liveness::now(shared) }
    }

    /// Looks at the next stretch in `(after, up_to]`; none if that is empty.
    pub(super) fn forward(&mut self, after: Position, up_to: Position) -> Result<Option<Step>, ReadError> {
        if after >= up_to {
            return Ok(None);
        }
        let mut step = match self.view.source_after(after).filter(|source| source.first() <= up_to).cloned() {
            None => Step { events: Vec::new(), reached: up_to, lost: false },
            Some(Source::Memory(table)) => {
                let chunk = table.forward(&self.wanted, after, up_to, STRETCH);
                self.keep(chunk.events, chunk.reached)
            }
        };
        step.lost |= self.view.lost_between(after, step.reached);
        Ok(Some(step))
    }

    /// Looks at the next stretch in `(after, before)`, newest first; none if that is empty.
    pub(super) fn backward(&mut self, before: Position, after: Position) -> Result<Option<Step>, ReadError> {
        let down_to = after.next();
        if before <= down_to {
            return Ok(None);
        }
        let step = match self.view.source_before(before).filter(|source| source.last() > after).cloned() {
            None => Step { events: Vec::new(), reached: down_to, lost: false },
            Some(Source::Memory(table)) => {
                let chunk = table.backward(&self.wanted, before, down_to, STRETCH);
                self.keep(chunk.events, chunk.reached)
            }
        };
        Ok(Some(step))
    }

    fn keep(&mut self, mut events: Vec<Arc<Event>>, reached: Position) -> Step {
        let mut lost = false;
        events.retain(|event| {
            let kept = self.wanted.passes(event);
            let alive = kept && self.alive.is_alive(event);
            lost |= kept && !alive;
            alive
        });
        Step { events, reached, lost }
    }
}
