//! Fan-out by pull. A feed is what one channel or pattern delivers: a short ring of shared, already encoded
//! events, and the connections that wait on it. A connection that is woken takes everything between its own
//! position and the end; there is no queue per client, so memory is bounded by the rings. A client that falls
//! off a ring reads the event log instead (see [`crate::subscribe`]).
//!
//! The order in which a group is shown is what makes reading several feeds in one order possible:
//! rings first, then the marks of connections with several feeds, then the head, then the wake-ups. Whoever
//! loads the head therefore sees, in every ring, all events up to it.

mod audience;
mod batch;
mod early;
mod feed;
mod patterns;
mod ring_budget;
mod senders;
mod twins;

pub use audience::Audience;
pub use batch::Batch;
pub use early::{EarlyLane, EarlySeen, EarlyTake};
pub use feed::{Feed, Signal, Take, Ticket};

use crate::codec::Shown;
use crate::event::{Channel, EarlyRange, Event, Marks, Origin, Pattern, Position, Sender};
use audience::Audiences;
use patterns::PatternTree;
use ring_budget::RingBudget;
use senders::Senders;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use twins::Twins;

/// How the rings are bounded.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// Most bytes of all rings together; beyond it the oldest batches leave first.
    pub total_bytes: usize,
    /// Most bytes of one ring.
    pub feed_bytes: usize,
    /// Batches older than this leave: who is that late reads the log.
    pub age: Duration,
}

impl Default for RingLimits {
    fn default() -> Self {
        Self { total_bytes: 16 << 20, feed_bytes: 2 << 20, age: Duration::from_secs(5) }
    }
}

/// All feeds of this node.
pub struct Hub {
    feeds: RwLock<Feeds>,
    /// The newest position that every ring shows.
    head: AtomicU64,
    budget: Mutex<RingBudget>,
    limits: RingLimits,
    early: EarlyLane,
    /// By position.
    audiences: Mutex<Audiences>,
    /// The same of events that are shown early, by their number.
    early_audiences: Mutex<Audiences>,
    senders: Senders,
    twins: Twins,
    /// How far the shards of the bus have been shown; none on a bus of one.
    marks: RwLock<Option<Marks>>,
}

#[derive(Default)]
struct Feeds {
    exact: HashMap<Channel, Arc<Feed>, foldhash::fast::RandomState>,
    wild: PatternTree<Arc<Feed>>,
}

impl Hub {
    /// A hub that begins after `head`.
    pub fn new(head: Position, limits: RingLimits) -> Arc<Self> {
        Arc::new(Self {
            feeds: RwLock::default(),
            head: AtomicU64::new(head.0),
            budget: Mutex::default(),
            limits,
            early: EarlyLane::default(),
            audiences: Mutex::new(Audiences::after(head.0)),
            early_audiences: Mutex::default(),
            senders: Senders::default(),
            twins: Twins::default(),
            marks: RwLock::default(),
        })
    }

    /// The newest position that has been shown.
    pub fn head(&self) -> Position {
        Position(self.head.load(Ordering::Acquire))
    }

    /// Shows a group of events, in position order, the first of which was accepted at `accepted`. Only one
    /// caller at a time: the fan-out task. Returns how many connections were woken.
    pub fn show(&self, group: &[Arc<Shown>], accepted: Instant) -> usize {
        let Some(newest) = group.last() else { return 0 };
        let now = Instant::now();
        for (position, sender) in self.early.twins_in(group) {
            self.twins.add(position, sender);
        }
        // Held from the first ring to the head: a feed is then created either before a group or after it,
        // never in the middle, so the head at its creation says truly what its ring covers.
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        let Split { touched, heard } = feeds.split(group, accepted);
        if !touched.is_empty() {
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
            for (feed, batch) in &touched {
                budget.pushed(feed, batch, now);
                feed.push(batch.clone(), self.limits.feed_bytes);
            }
            budget.enforce(self.limits.total_bytes, self.limits.age, now);
            drop(budget);
            let there: Vec<Audience> = touched.iter().map(|(feed, _)| feed.mark()).collect();
            let mut audiences = self.audiences.lock().unwrap_or_else(PoisonError::into_inner);
            for (event, feed) in heard {
                audiences.note(group[event].event.position.0, there[feed]);
            }
        }
        self.head.store(newest.event.position.0, Ordering::Release);
        drop(feeds);
        self.note_shown(group, newest);
        touched.iter().map(|(feed, _)| feed.wake()).sum()
    }

    /// Whoever learns of this can read up to it: it comes after the head.
    fn note_shown(&self, group: &[Arc<Shown>], newest: &Shown) {
        self.early.note_returns(group, self.twins.among(group));
        self.senders.note_group(group);
        if let Some(marks) = newest.event.marks() {
            *self.marks.write().unwrap_or_else(PoisonError::into_inner) = Some(marks.clone());
        }
    }

    /// This node sends as this run, over so many shards. Said once, before it sends anything.
    pub fn begin_run(&self, origin: Origin, shards: usize) {
        self.early.begin_run(origin, shards);
    }

    /// An event that came over a shard of the bus stands in the log since before this node began.
    pub fn note_in_log(&self, sender: Sender, shard: usize) {
        self.senders.note(sender, shard);
    }

    /// An event has come that the log had already under its id, at `position`. Only one caller at a time, the one
    /// of [`Hub::show`], after all that came before it.
    pub fn note_dropped(&self, event: &Event, position: Position) {
        if let Some(sender) = event.sender() {
            self.twins.add(position, sender);
        }
        self.early.note_dropped(event, self.head());
    }

    /// Whose an event of the log is besides, if it came twice under its id.
    pub fn twin_of(&self, event: &Event) -> Option<Sender> {
        self.twins.of(event)
    }

    /// Whether all that a client has besides what it has come to has been shown, up to the head as it is after
    /// this call.
    pub fn has_shown(&self, early: &[EarlyRange], marks: Option<&Marks>) -> bool {
        let shown = self.marks.read().unwrap_or_else(PoisonError::into_inner);
        let marks_are = marks.is_none_or(|marks| shown.as_ref().is_some_and(|shown| marks.is_within(shown)));
        drop(shown);
        marks_are && (early.is_empty() || self.senders.have_shown(early))
    }

    /// What is shown before the bus has ordered it.
    pub fn early(&self) -> &EarlyLane {
        &self.early
    }

    /// Shows an event that the bus has not ordered yet, under the number by which this node sends it. Only one
    /// caller at a time, the one of [`Hub::show`]. Returns how many connections were woken.
    pub fn show_early(&self, number: u64, shown: Arc<Shown>) -> usize {
        let channel = shown.event.channel.clone();
        if !self.early.push(number, shown, self.head()) {
            return 0;
        }
        let mut interested = Vec::new();
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        interested.extend(feeds.exact.get(&channel).cloned());
        feeds.wild.each_match(&channel, &mut |feed: &Arc<Feed>| interested.push(feed.clone()));
        drop(feeds);
        let mut audiences = self.early_audiences.lock().unwrap_or_else(PoisonError::into_inner);
        for feed in &interested {
            audiences.note(number, feed.audience());
        }
        drop(audiences);
        interested.iter().map(|feed| feed.wake()).sum()
    }

    /// Who was there when the event of a position was shown; none if that is no longer known, or has not
    /// happened.
    pub fn audience(&self, position: Position) -> Option<Audience> {
        if position > self.head() {
            return None;
        }
        self.audiences.lock().unwrap_or_else(PoisonError::into_inner).of(position.0)
    }

    /// Who was there when the event of a number was shown before the bus has ordered it; none if that is no
    /// longer known, or has not happened.
    pub fn early_audience(&self, number: u64) -> Option<Audience> {
        if number > self.early.newest() {
            return None;
        }
        self.early_audiences.lock().unwrap_or_else(PoisonError::into_inner).of(number)
    }

    /// Moves the head to a position before which nothing more is to come. With `lost`, something is missing before
    /// it: every client looks into the log, and is told there. Only while nothing is on its way to be shown.
    pub fn advance(&self, head: Position, lost: bool) {
        let feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        self.head.fetch_max(head.0, Ordering::AcqRel);
        if lost {
            for feed in feeds.exact.values().chain(feeds.wild.values()) {
                feed.cover_from(head);
            }
            for feed in feeds.exact.values().chain(feeds.wild.values()) {
                feed.mark();
                feed.wake();
            }
        }
    }

    /// Lets go of batches that are older than the rings keep; called now and then while nothing is published.
    /// True when none are left.
    pub fn trim(&self, now: Instant) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.enforce(self.limits.total_bytes, self.limits.age, now);
        budget.is_empty()
    }

    /// The feed of a channel or pattern, made when there is none yet.
    pub fn feed(&self, pattern: &Pattern) -> Arc<Feed> {
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        let head = self.head();
        let feed = match pattern {
            Pattern::Exact(channel) => {
                feeds.exact.entry(channel.clone()).or_insert_with(|| Feed::new(pattern.clone(), head))
            }
            Pattern::Wild(_) => {
                feeds.wild.entry(pattern.as_str()).get_or_insert_with(|| Feed::new(pattern.clone(), head))
            }
        };
        // Counted under the lock, so that nobody removes the feed between here and its first use.
        feed.add_user();
        feed.clone()
    }

    /// Gives a feed back; the last to do so removes it.
    pub fn release(&self, feed: &Arc<Feed>) {
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        if feed.remove_user() > 0 {
            return;
        }
        match feed.pattern() {
            Pattern::Exact(channel) => {
                feeds.exact.remove(channel);
                if feeds.exact.capacity() > 1024 && feeds.exact.len() * 8 < feeds.exact.capacity() {
                    feeds.exact.shrink_to_fit();
                }
            }
            Pattern::Wild(wild) => feeds.wild.remove(wild.as_str()),
        }
    }

    /// The channels and patterns that clients are on, with the number of their subscribers, sorted by name.
    pub fn live(&self, prefix: &str, most: usize) -> Vec<(String, usize)> {
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        let mut live: Vec<_> = feeds
            .exact
            .values()
            .chain(feeds.wild.values())
            .filter(|feed| feed.pattern().as_str().starts_with(prefix))
            .map(|feed| (feed.pattern().as_str().to_owned(), feed.users()))
            .collect();
        live.sort_unstable();
        live.truncate(most);
        live
    }

    /// How many feeds there are.
    pub fn feed_count(&self) -> usize {
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        feeds.exact.len() + feeds.wild.len()
    }
}

/// What a group means to the feeds.
#[derive(Default)]
struct Split {
    /// For each feed that wants some of its events, these.
    touched: Vec<(Arc<Feed>, Arc<Batch>)>,
    /// Which of its events goes to which of those feeds, event by event.
    heard: Vec<(usize, usize)>,
}

impl Feeds {
    fn split(&self, group: &[Arc<Shown>], accepted: Instant) -> Split {
        if self.exact.is_empty() && self.wild.is_empty() {
            return Split::default();
        }
        let mut heard = Vec::with_capacity(group.len());
        let mut wanted: Vec<(Arc<Feed>, Vec<Arc<Shown>>)> = Vec::new();
        let mut place: HashMap<*const Feed, usize, foldhash::fast::RandomState> = HashMap::default();
        let mut add = |feed: &Arc<Feed>, event: usize, shown: &Arc<Shown>| {
            let at = *place.entry(Arc::as_ptr(feed)).or_insert_with(|| {
                wanted.push((feed.clone(), Vec::new()));
                wanted.len() - 1
            });
            wanted[at].1.push(shown.clone());
            heard.push((event, at));
        };
        for (event, shown) in group.iter().enumerate() {
            if let Some(feed) = self.exact.get(&shown.event.channel) {
                add(feed, event, shown);
            }
            if !self.wild.is_empty() {
                self.wild.each_match(&shown.event.channel, &mut |feed| add(feed, event, shown));
            }
        }
        let batch = |(feed, events)| (feed, Arc::new(Batch::new(events, accepted)));
        Split { touched: wanted.into_iter().map(batch).collect(), heard }
    }
}
