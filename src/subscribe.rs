//! The flow out: one client's cursor over the log. It reads the rings of its feeds while it is near the end
//! and the event log while it is behind; who reads cannot tell the difference, and nothing is skipped or
//! repeated where the two meet, because both are read by position.
//!
//! The race that matters: a feed is joined first, and its ring says from where on it is complete. What lies
//! between the client's position and that point is read from the log.

mod choosing;
mod had;
mod joining;
mod log_reader;
mod opening;
mod source;
mod telling;

pub use had::Had;
pub use log_reader::LogReader;
pub use opening::{MAX_HISTORY, OVERLAP, Opening, Request, open};
pub use source::{Order, Proof, Source};

use crate::codec::Shown;
use crate::event::{ConnectionId, Filter, Interest, Pattern, Position};
use crate::hub::{Batch, EarlySeen, EarlyTake, Feed, Signal, Take, Ticket};
use slab::Slab;
use smallvec::SmallVec;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use telling::Teller;

/// Most events handed over at once when they are picked one by one.
const EVENTS_AT_ONCE: usize = 256;

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
    /// What it has of the events that this node sends, and may have got before the bus ordered them.
    early: EarlySeen,
    /// What its client had already when it began.
    had: Option<Arc<Had>>,
    /// Whether a member may still have something that its client had already: what is asked on each wake-up is
    /// not asked of thousands of members.
    any_had: bool,
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
    /// What its client had already when it began; none any more when that no longer matters.
    had: Option<Arc<Had>>,
    /// Of early events it has none up to this number: it was not there yet.
    early_from: u64,
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
            had: None,
            any_had: false,
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

    /// Begins as an opening says, on the channels and patterns that it is on and on those that it joins.
    pub fn begin(&mut self, opening: &Opening) {
        self.at = opening.start;
        self.told_lost = opening.told_lost;
        self.rescan = true;
        self.reading = None;
        let lane = self.source.hub.early();
        let (had, own) = opening.had.clone().map_or((None, None), |had| had.split(lane.origin()));
        self.early = match own {
            Some(range) => EarlySeen::resumed(range),
            None if opening.goes_on => EarlySeen::default(),
            None => lane.begin(),
        };
        self.had = had.map(Arc::new);
        self.any_had = self.had.is_some();
        for (_, member) in &mut self.members {
            (member.had, member.early_from) = (self.had.clone(), 0);
        }
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
                let events = self.picked(page.events);
                if !events.is_empty() {
                    return Poll::Ready(Next::Replayed(events));
                }
                continue;
            }
            let over = self.had_is_over();
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
                    if self.at > shown_up_to {
                        // It was further on another node. What is early here may be what it got there.
                        return Poll::Pending;
                    }
                    // There is nothing for it in between.
                    self.at = shown_up_to;
                    if over {
                        self.forget_had();
                    }
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
            && member.had.is_none()
            && self.early.is_empty()
            && batches[0].first() > after
            && (self.connection.is_none() || !batches.iter().any(|batch| batch.excludes()));
        if whole {
            return Live::Next(Next::Batches(batches));
        }
        let mut teller = Teller::new(self);
        let events: Vec<_> = batches
            .iter()
            .flat_map(|batch| batch.events())
            .filter(|shown| shown.event.position > after && self.wants_from(member, shown))
            .map(|shown| teller.told(member, shown))
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
        let mut teller = Teller::new(self);
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
                        .map(|shown| teller.told(member, shown)),
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
