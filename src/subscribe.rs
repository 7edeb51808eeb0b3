//! The flow out: one client's cursor over the log. It reads the rings of its feeds while it is near the end
//! and the event log while it is behind; who reads cannot tell the difference, and nothing is skipped or
//! repeated where the two meet, because both are read by position.
//!
//! The race that matters: a feed is joined first, and its ring says from where on it is complete. What lies
//! between the client's position and that point is read from the log.

mod log_reader;
mod opening;

pub use log_reader::LogReader;
pub use opening::{MAX_HISTORY, OVERLAP, Opening, Request, open};

use crate::codec::Shown;
use crate::event::{ConnectionId, Cursor, Event, Filter, Interest, Pattern, Position};
use crate::hub::{Batch, EarlySeen, EarlyTake, Feed, Hub, Signal, Take, Ticket};
use crate::log::Log;
use slab::Slab;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, ready};

/// Most events handed over at once when they are picked one by one.
const EVENTS_AT_ONCE: usize = 256;

/// Where subscriptions read.
pub struct Source {
    /// The live end.
    pub hub: Arc<Hub>,
    /// Everything that is kept.
    pub log: Log,
    /// What the bus does for the order of events.
    pub order: Order,
}

/// What the bus does for the order of events.
#[derive(Clone, Default, Debug)]
pub struct Order {
    /// Every node numbers events by itself, by the time of their arrival: a cursor of another node holds about.
    pub approximate: bool,
    /// Whether this node has read everything that is on the bus, as far as it knows. Unset while the bus is away.
    pub is_current: Arc<AtomicBool>,
}

impl Source {
    /// The cursor of a position in this log.
    pub fn cursor(&self, position: Position) -> Cursor {
        self.log.cursors().of(position)
    }

    /// The position that a cursor names, if it is one of this log. On a bus it may be one that this node has not
    /// come to yet.
    pub fn known_position(&self, cursor: &Cursor) -> Option<Position> {
        let position = self.log.position_of(cursor)?;
        (position <= self.hub.head() || self.log.on_bus().is_some()).then_some(position)
    }

    /// Events of the log as they are shown to clients.
    pub fn shown(&self, events: Vec<Arc<Event>>) -> Vec<Arc<Shown>> {
        let cursors = self.log.cursors();
        let shown = |event: Arc<Event>| {
            let cursor = cursors.of_event(&event);
            Arc::new(Shown::new(event, &cursor))
        };
        events.into_iter().map(shown).collect()
    }
}

/// One client's position on its channels and patterns.
pub struct Subscription {
    source: Arc<Source>,
    connection: Option<ConnectionId>,
    members: Slab<Member>,
    /// There as soon as there were two members.
    signal: Option<Arc<Signal>>,
    /// Everything up to here has been handed over.
    at: Position,
    /// Look at every feed, not only at those that are marked.
    rescan: bool,
    /// Never hand over whole batches: the caller looks at every event.
    one_by_one: bool,
    /// What it has got before the bus ordered it.
    early: EarlySeen,
    /// Until here the client knows already that something is no longer kept.
    told_lost: Position,
    reading: Option<Box<LogReader>>,
    /// It has been at the end since it last read the log.
    live: bool,
    falls: u32,
}

struct Member {
    feed: Arc<Feed>,
    ticket: Ticket,
    filter: Option<Arc<Filter>>,
}

/// What comes next for a client.
pub enum Next {
    /// Whole batches: every event of them is for this client.
    Batches(SmallVec<[Arc<Batch>; 16]>),
    /// Single events, from the rings.
    Events(Vec<Arc<Shown>>),
    /// Single events, from the log.
    Replayed(Vec<Arc<Shown>>),
    /// Single events that the bus has not ordered yet, with their numbers. They do not move the position.
    Early(Vec<(u64, Arc<Shown>)>),
    /// Some events after the position are no longer kept. The client is to be told; then what is left follows.
    Lost,
    /// The log cannot be read now.
    Failed,
}

impl Subscription {
    /// A subscription to nothing yet, at the end of the log. Events that exclude `connection` are left out.
    pub fn new(source: Arc<Source>, connection: Option<ConnectionId>) -> Self {
        let at = source.hub.head();
        let early = source.hub.early().begin();
        Self {
            source,
            connection,
            members: Slab::new(),
            signal: None,
            at,
            rescan: false,
            one_by_one: false,
            early,
            told_lost: Position::ZERO,
            reading: None,
            live: false,
            falls: 0,
        }
    }

    /// Everything up to here has been handed over.
    pub fn position(&self) -> Position {
        self.at
    }

    /// How many channels and patterns it is on.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it is on none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The channels and patterns it is on.
    pub fn patterns(&self) -> Vec<Pattern> {
        self.members.iter().map(|(_, member)| member.feed.pattern().clone()).collect()
    }

    /// Whether what comes next is being read from the log.
    pub fn is_reading_log(&self) -> bool {
        self.reading.is_some()
    }

    /// How often it fell off the rings since this was last asked.
    pub fn take_falls(&mut self) -> u32 {
        std::mem::take(&mut self.falls)
    }

    /// Hand over single events only, so that the caller can look at each.
    pub fn one_by_one(&mut self) {
        self.one_by_one = true;
    }

    /// Begins at `position`. What is lost before `told_lost` has been told to the client already.
    pub fn start(&mut self, position: Position, told_lost: Position) {
        self.at = position;
        self.told_lost = told_lost;
        self.rescan = true;
        self.reading = None;
    }

    /// Joins a channel or pattern; for one it is on already, only the filter changes.
    pub fn join(&mut self, pattern: &Pattern, filter: Option<Arc<Filter>>) {
        // What is being read from the log does not know of the new member.
        self.reading = None;
        self.rescan = true;
        if let Some((_, member)) =
            self.members.iter_mut().find(|(_, member)| member.feed.pattern() == pattern)
        {
            member.filter = filter;
            return;
        }
        if self.members.len() == 1 && self.signal.is_none() {
            let signal = Arc::<Signal>::default();
            for (key, member) in &mut self.members {
                member.feed.leave(member.ticket);
                member.ticket = member.feed.join_among(signal.clone(), key as u32);
            }
            self.signal = Some(signal);
        }
        let feed = self.source.hub.feed(pattern);
        let entry = self.members.vacant_entry();
        let ticket = match &self.signal {
            Some(signal) => feed.join_among(signal.clone(), entry.key() as u32),
            None => feed.join_alone(),
        };
        entry.insert(Member { feed, ticket, filter });
    }

    /// Leaves a channel or pattern; false if it was not on it.
    pub fn leave(&mut self, pattern: &Pattern) -> bool {
        let Some(key) =
            self.members.iter().find(|(_, member)| member.feed.pattern() == pattern).map(|(key, _)| key)
        else {
            return false;
        };
        self.reading = None;
        self.rescan = true;
        let member = self.members.remove(key);
        member.feed.leave(member.ticket);
        self.source.hub.release(&member.feed);
        true
    }

    /// Goes back: everything after `position` is handed over again. For what a socket did not take.
    pub fn rewind(&mut self, position: Position) {
        debug_assert!(position <= self.at);
        self.at = position;
        self.rescan = true;
        self.reading = None;
    }

    /// The same for events that the bus has not ordered yet: everything after `number` is handed over again.
    pub fn rewind_early(&mut self, number: u64) {
        self.early.rewind(number);
    }

    /// Moves up to the head where nothing is waiting in between, so that the cursor of a quiet client does
    /// not grow old. Returns the position.
    pub fn settle(&mut self) -> Position {
        // Loaded before the rings are looked at: what is shown later is after it.
        let head = self.source.hub.head();
        if self.reading.is_none() && !self.rescan && head > self.at && self.is_quiet_up_to(head) {
            self.at = head;
        }
        self.at
    }

    /// What comes next after its position, in the order of the log.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        loop {
            if let Some(reader) = &mut self.reading {
                let page = ready!(reader.poll_page(context));
                let Some(page) = page else {
                    self.reading = None;
                    return Poll::Ready(Next::Failed);
                };
                if page.lost && page.after >= self.told_lost {
                    // The page is read again after the client has been told.
                    self.told_lost = reader.until();
                    reader.rewind(self.at);
                    return Poll::Ready(Next::Lost);
                }
                self.at = page.reached;
                if reader.is_done() {
                    self.reading = None;
                    self.rescan = true;
                }
                let events: Vec<_> = page.events.into_iter().filter(|shown| self.wants(shown)).collect();
                if !events.is_empty() {
                    return Poll::Ready(Next::Replayed(events));
                }
                continue;
            }
            // Loaded before the rings are looked at: what is early comes after all that is shown up to here.
            let shown_up_to = self.source.hub.head();
            let next = match &self.signal {
                Some(_) => self.poll_several(context),
                None => self.poll_alone(context),
            };
            match next {
                Live::Next(next) => return Poll::Ready(next),
                Live::Again => {}
                Live::Sleep => {
                    self.live = true;
                    match self.take_early(shown_up_to) {
                        EarlyTake::Events(events) if events.is_empty() => {}
                        EarlyTake::Events(events) => return Poll::Ready(Next::Early(events)),
                        EarlyTake::NotYet => {}
                        EarlyTake::Nothing => return Poll::Pending,
                    }
                }
                Live::Behind => {
                    self.falls += u32::from(std::mem::take(&mut self.live));
                    self.read_log();
                }
            }
        }
    }

    fn poll_alone(&mut self, context: &Context<'_>) -> Live {
        let Some((_, member)) = self.members.iter().next() else { return Live::Sleep };
        self.rescan = false;
        let batches = match member.feed.take(member.ticket, self.at, context) {
            Take::Batches(batches) | Take::More(batches) => batches,
            Take::Nothing => return Live::Sleep,
            Take::Behind => return Live::Behind,
        };
        let after = self.at;
        self.at = batches[batches.len() - 1].last();
        let whole = !self.one_by_one
            && member.filter.is_none()
            && self.early.is_empty()
            && batches[0].first() > after
            && (self.connection.is_none() || !batches.iter().any(|batch| batch.excludes()));
        if whole {
            return Live::Next(Next::Batches(batches));
        }
        let events: Vec<_> = batches
            .iter()
            .flat_map(|batch| batch.events())
            .filter(|shown| shown.event.position > after && self.wants_from(member, shown))
            .cloned()
            .collect();
        if events.is_empty() { Live::Again } else { Live::Next(Next::Events(events)) }
    }

    fn poll_several(&mut self, context: &Context<'_>) -> Live {
        let signal = self.signal.as_ref().expect("called only with a signal");
        // Loaded before the marks are taken: every event up to it is in its ring and marked.
        let up_to = self.source.hub.head();
        let ready = signal.take(context);
        let members: Vec<u32> = if std::mem::take(&mut self.rescan) {
            self.members.iter().map(|(key, _)| key as u32).collect()
        } else if ready.is_empty() {
            return Live::Sleep;
        } else {
            ready
        };
        let mut events: Vec<Arc<Shown>> = Vec::new();
        for key in members {
            // A mark may be older than the leaving of its feed.
            let Some(member) = self.members.get(key as usize) else { continue };
            let peek = member.feed.peek(self.at, up_to, |batch| {
                events.extend(
                    batch
                        .events()
                        .iter()
                        .filter(|shown| {
                            let position = shown.event.position;
                            position > self.at && position <= up_to && self.wants_from(member, shown)
                        })
                        .cloned(),
                );
            });
            match peek {
                None => return Live::Behind,
                Some(peek) if peek.beyond => {
                    signal.mark(key);
                }
                Some(_) => {}
            }
        }
        // An event that two patterns match stands in two rings.
        events.sort_unstable_by_key(|shown| shown.event.position);
        events.dedup_by_key(|shown| shown.event.position);
        if events.len() > EVENTS_AT_ONCE {
            events.truncate(EVENTS_AT_ONCE);
            self.at = events[EVENTS_AT_ONCE - 1].event.position;
            self.rescan = true;
        } else {
            self.at = self.at.max(up_to);
        }
        if events.is_empty() { Live::Again } else { Live::Next(Next::Events(events)) }
    }

    /// What is there before the bus has ordered it. Whoever asks is at the end of its rings, and armed.
    fn take_early(&mut self, shown_up_to: Position) -> EarlyTake {
        let lane = self.source.hub.early();
        if !self.early.is_empty() && lane.is_over(&self.early, shown_up_to) {
            self.early.forget();
        }
        let mut seen = self.early;
        let take = lane.take(&mut seen, shown_up_to, EVENTS_AT_ONCE);
        self.early = seen;
        match take {
            EarlyTake::Events(mut events) => {
                events.retain(|(_, shown)| self.wants(shown));
                EarlyTake::Events(events)
            }
            other => other,
        }
    }

    fn read_log(&mut self) {
        let interest = Interest::new(self.members.iter().map(|(_, member)| member.feed.pattern().clone()));
        let mut filters = self.members.iter().map(|(_, member)| &member.filter);
        let filter = filters.next().cloned().flatten().filter(|first| {
            // A filter that all members share is applied where the log is read.
            filters.all(|other| other.as_ref().is_some_and(|other| Arc::ptr_eq(other, first)))
        });
        let until = self.source.hub.head();
        self.reading = Some(Box::new(LogReader::new(self.source.clone(), interest, filter, self.at, until)));
    }

    /// Whether an event that came from the log passes.
    fn wants(&self, shown: &Shown) -> bool {
        self.members.iter().any(|(_, member)| {
            member.feed.pattern().matches(&shown.event.channel) && self.wants_from(member, shown)
        })
    }

    fn wants_from(&self, member: &Member, shown: &Shown) -> bool {
        let event = &shown.event;
        member.filter.as_ref().is_none_or(|filter| filter.passes(event))
            && (event.exclude.is_none() || event.exclude != self.connection)
            && (self.early.is_empty() || !self.source.hub.early().has_seen(&self.early, event.position))
    }

    fn is_quiet_up_to(&self, head: Position) -> bool {
        match &self.signal {
            Some(signal) => !signal.is_marked(),
            None => self.members.iter().all(|(_, member)| {
                let mut quiet = true;
                member.feed.peek(self.at, head, |_| quiet = false).is_some() && quiet
            }),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        for member in self.members.drain() {
            member.feed.leave(member.ticket);
            self.source.hub.release(&member.feed);
        }
    }
}

enum Live {
    Next(Next),
    Again,
    Sleep,
    Behind,
}

#[cfg(test)]
mod tests;
