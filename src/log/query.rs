//! Looking things up: history by channel, name, tag and time, the newest events, one event.

use super::walk::{Walk, Wanted};
use super::{ReadError, Shared};
use crate::event::{Channel, Event, Filter, Interest, Position, UnixMs};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A query with sparse results works no longer than this and then returns what it has.
const LONGEST: Duration = Duration::from_millis(200);
/// A page has no more bytes of events than this, unless its only event is larger.
const PAGE_BYTES: usize = 16 << 20;
/// The newest events of a pattern are looked for no longer than this.
const LONGEST_NEWEST: Duration = Duration::from_millis(1000);

/// In which order events come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// What to look for.
#[derive(Clone, Debug)]
pub struct Query {
    /// The channels; empty means all.
    pub interest: Interest,
    /// Names and tags.
    pub filter: Filter,
    /// Accepted at this time or later.
    pub since: Option<UnixMs>,
    /// Accepted before this time.
    pub until: Option<UnixMs>,
    /// Only after this position.
    pub after: Position,
    /// Only before this position.
    pub before: Option<Position>,
    /// How many events at most.
    pub limit: usize,
    /// How many matching events to pass over first.
    pub offset: usize,
    /// In which order.
    pub order: Order,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            interest: Interest::default(),
            filter: Filter::default(),
            since: None,
            until: None,
            after: Position::ZERO,
            before: None,
            limit: 100,
            offset: 0,
            order: Order::Ascending,
        }
    }
}

/// What a query found.
#[derive(Clone, Debug)]
pub struct QueryPage {
    /// The events, in the order asked for.
    pub events: Vec<Arc<Event>>,
    /// The cursor for the next page: `after` when ascending, `before` when descending.
    pub reached: Position,
    /// Whether there may be more.
    pub more: bool,
    /// Matching events that were passed over: less than the offset asked for only if the work ran out first.
    pub skipped: usize,
}

impl Shared {
    /// See [`super::Log::query`].
    pub(super) fn query(&self, query: &Query) -> Result<QueryPage, ReadError> {
        let interest = (!query.interest.is_empty()).then_some(&query.interest);
        let wanted = Wanted { interest, filter: &query.filter, since: query.since, until: query.until };
        let last = query.before.map_or(self.head(), |before| before.previous().min(self.head()));
        let ascending = query.order == Order::Ascending;
        let deadline = Instant::now() + LONGEST;
        let mut walk = Walk::new(self, wanted);
        let mut at = if ascending { query.after } else { last.next() };
        let mut page = QueryPage { events: Vec::new(), reached: at, more: false, skipped: 0 };
        let mut bytes = 0;
        loop {
            let step = if ascending { walk.forward(at, last)? } else { walk.backward(at, query.after)? };
            let Some(step) = step else { break };
            for event in step.events {
                if page.skipped < query.offset {
                    page.skipped += 1;
                    page.reached = event.position;
                } else if page.events.len() < query.limit
                    && (page.events.is_empty() || bytes + event.footprint() <= PAGE_BYTES)
                {
                    bytes += event.footprint();
                    page.reached = event.position;
                    page.events.push(event);
                } else {
                    page.more = true;
                    return Ok(page);
                }
            }
            at = step.reached;
            page.reached = at;
            if Instant::now() >= deadline {
                page.more = if ascending { at < last } else { at > query.after.next() };
                break;
            }
        }
        Ok(page)
    }

    /// See [`super::Log::newest`].
    pub(super) fn newest(
        &self,
        interest: &Interest,
        filter: &Filter,
        count: usize,
    ) -> Result<Vec<Arc<Event>>, ReadError> {
        let deadline = Instant::now() + LONGEST_NEWEST;
        let mut walk = Walk::new(self, Wanted::new(Some(interest), filter));
        let mut events = Vec::new();
        let mut at = self.head().next();
        while events.len() < count && Instant::now() < deadline {
            let Some(step) = walk.backward(at, Position::ZERO)? else { break };
            events.extend(step.events);
            at = step.reached;
        }
        events.truncate(count);
        events.reverse();
        Ok(events)
    }

    /// See [`super::Log::last`].
    pub(super) fn last(&self, channel: &Channel) -> Result<Option<Arc<Event>>, ReadError> {
        let interest = Interest::new([crate::event::Pattern::Exact(channel.clone())]);
        Ok(self.newest(&interest, &Filter::default(), 1)?.pop())
    }

    /// See [`super::Log::last_of_each`].
    pub(super) fn last_of_each(
        &self,
        interest: &Interest,
        filter: &Filter,
        most: usize,
    ) -> Result<Vec<Arc<Event>>, ReadError> {
        let deadline = Instant::now() + LONGEST_NEWEST;
        // Every pattern with a wildcard may have one more channel further back; named channels are done when
        // each was seen.
        let named = interest.patterns().is_empty().then(|| interest.channels().len());
        let mut walk = Walk::new(self, Wanted::new(Some(interest), filter));
        let mut seen: HashSet<Channel, foldhash::fast::RandomState> = HashSet::default();
        let mut events = Vec::new();
        let mut at = self.head().next();
        while events.len() < most && named != Some(seen.len()) && Instant::now() < deadline {
            let Some(step) = walk.backward(at, Position::ZERO)? else { break };
            for event in step.events {
                if !seen.contains(&event.channel) {
                    seen.insert(event.channel.clone());
                    events.push(event);
                }
            }
            at = step.reached;
        }
        events.truncate(most);
        events.reverse();
        Ok(events)
    }

    /// See [`super::Log::find`].
    pub(super) fn find(&self, position: Position) -> Result<Option<Arc<Event>>, ReadError> {
        if position > self.head() || position == Position::ZERO {
            return Ok(None);
        }
        let filter = Filter::default();
        let mut walk = Walk::new(self, Wanted::new(None, &filter));
        let step = walk.forward(position.previous(), position)?;
        Ok(step.and_then(|step| step.events.into_iter().next()))
    }
}
