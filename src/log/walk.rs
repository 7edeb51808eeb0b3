//! Walking the log in either direction, stretch by stretch, keeping only what is wanted and still alive.

use super::generation::Trouble;
use super::liveness::Liveness;
use super::pack::Directory;
use super::packed::{Blocks, PackedFold};
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
        self.time(event.time) && self.filter.passes(event)
    }

    /// Whether events of a time are wanted.
    pub(super) fn time(&self, time: UnixMs) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }
}

impl Here {
    /// Whether a block may hold something wanted.
    fn may_hold(&self, number: usize, wanted: &Wanted<'_>) -> bool {
        let about = &self.directory.blocks[number];
        self.candidates.as_ref().is_none_or(|blocks| blocks.contains(number))
            && wanted.since.is_none_or(|since| about.max_time >= since)
            && wanted.until.is_none_or(|until| about.min_time < until)
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
    shared: &'a Shared,
    view: Arc<View>,
    wanted: Wanted<'a>,
    alive: Liveness<'a>,
    /// What is known of the fold that the walk is in.
    here: Option<Here>,
}

struct Here {
    packed: Arc<PackedFold>,
    directory: Arc<Directory>,
    /// The blocks that may hold something wanted; none means all.
    candidates: Option<Blocks>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(shared: &'a Shared, wanted: Wanted<'a>) -> Self {
        let view = shared.view();
        Self { shared, wanted, alive: Liveness::now(shared, view.clone()), view, here: None }
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
            Some(Source::Packed(packed)) => {
                let reached = packed.fold.last.min(up_to);
                match self.packed_forward(&packed, after, up_to) {
                    Ok(step) => step,
                    Err(trouble) => self.pass_over(&packed, trouble, after, reached)?,
                }
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
            Some(Source::Packed(packed)) => {
                let reached = packed.fold.first.max(down_to);
                match self.packed_backward(&packed, before, down_to) {
                    Ok(step) => step,
                    Err(trouble) => self.pass_over(&packed, trouble, before, reached)?,
                }
            }
        };
        Ok(Some(step))
    }

    fn packed_forward(
        &mut self,
        packed: &Arc<PackedFold>,
        after: Position,
        up_to: Position,
    ) -> Result<Step, Trouble> {
        let end = packed.fold.last.min(up_to);
        let wanted = self.wanted;
        let Some(here) = self.enter(packed)? else {
            return Ok(Step { events: Vec::new(), reached: end, lost: true });
        };
        let blocks = &here.directory.blocks;
        let start = blocks.partition_point(|block| block.last <= after);
        let next = (start..blocks.len()).find(|&number| here.may_hold(number, &wanted));
        match next.filter(|&number| blocks[number].first <= up_to) {
            None => Ok(Step { events: Vec::new(), reached: end, lost: false }),
            Some(number) => {
                let reached = blocks[number].last.min(up_to);
                self.look_into(packed, number, after.next(), up_to, reached, false)
            }
        }
    }

    fn packed_backward(
        &mut self,
        packed: &Arc<PackedFold>,
        before: Position,
        down_to: Position,
    ) -> Result<Step, Trouble> {
        let end = packed.fold.first.max(down_to);
        let wanted = self.wanted;
        let Some(here) = self.enter(packed)? else {
            return Ok(Step { events: Vec::new(), reached: end, lost: true });
        };
        let blocks = &here.directory.blocks;
        let stop = blocks.partition_point(|block| block.first < before);
        let next = (0..stop).rev().find(|&number| here.may_hold(number, &wanted));
        match next.filter(|&number| blocks[number].last >= down_to) {
            None => Ok(Step { events: Vec::new(), reached: end, lost: false }),
            Some(number) => {
                let reached = blocks[number].first.max(down_to);
                self.look_into(packed, number, down_to, before.previous(), reached, true)
            }
        }
    }

    /// Learns what there is in a fold. None if that is damaged.
    fn enter(&mut self, packed: &Arc<PackedFold>) -> Result<Option<&Here>, Trouble> {
        if self.here.as_ref().is_none_or(|here| !Arc::ptr_eq(&here.packed, packed)) {
            self.here = None;
            let Some(directory) = self.shared.directory_of(packed)? else { return Ok(None) };
            let candidates = self.shared.candidates(packed, &directory, &self.wanted)?;
            self.here = Some(Here { packed: packed.clone(), directory, candidates });
        }
        Ok(self.here.as_ref())
    }

    /// Picks what is wanted of a block, from `first` to `last`.
    fn look_into(
        &mut self,
        packed: &Arc<PackedFold>,
        number: usize,
        first: Position,
        last: Position,
        reached: Position,
        newest_first: bool,
    ) -> Result<Step, Trouble> {
        let Some(here) = &self.here else { return Err(Trouble::Unavailable) };
        let Some(block) = self.shared.block_of(packed, &here.directory, number)? else {
            return Ok(Step { events: Vec::new(), reached, lost: true });
        };
        let channels: Vec<bool> = block.channels.iter().map(|channel| self.wanted.channel(channel)).collect();
        let names = &self.wanted.filter.events;
        let names: Vec<bool> =
            block.names.iter().map(|name| names.is_empty() || names.contains(name)).collect();
        let mut lost = false;
        let mut events = Vec::new();
        for entry in &block.entries {
            let position = entry.position();
            if position < first || position > last || !channels[entry.channel as usize] {
                continue;
            }
            if entry.head.is_stub() {
                lost = true;
            } else if names[entry.name as usize] && self.wanted.time(entry.time()) {
                match block.event(entry) {
                    Ok(event) => events.push(Arc::new(event)),
                    Err(_) => lost = true,
                }
            }
        }
        if newest_first {
            events.reverse();
        }
        let mut step = self.keep(events, reached);
        step.lost |= lost;
        Ok(step)
    }

    /// A fold that cannot be read: passed over if it is gone for good.
    fn pass_over(
        &mut self,
        packed: &PackedFold,
        trouble: Trouble,
        from: Position,
        reached: Position,
    ) -> Result<Step, ReadError> {
        match trouble {
            Trouble::Unavailable | Trouble::Full => return Err(ReadError::Unavailable),
            Trouble::Broken => self.shared.put_aside(&packed.generation),
            Trouble::Gone => {}
        }
        let view = self.shared.view();
        if Arc::ptr_eq(&view, &self.view) {
            return Ok(Step { events: Vec::new(), reached, lost: true });
        }
        // It was removed, or rewritten without its dead events: what is there now decides.
        self.view = view;
        self.here = None;
        Ok(Step { events: Vec::new(), reached: from, lost: false })
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
