//! Where a subscription begins, and what its client is told of the time it was away.

use super::{Had, Source};
use crate::codec::{Resume, Shown};
use crate::event::{Cursor, Filter, Interest, POSITIONS_PER_MS, Position, UnixMs};
use crate::log::ResumeStatus;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most events that `history=` replays, and most channels that `last=1` answers for.
pub const MAX_HISTORY: usize = 1000;

/// How far back a replay begins before the time of a cursor of another node, where nodes number events by
/// themselves: more than clocks differ and events take to arrive.
pub const OVERLAP: Duration = Duration::from_secs(5);
/// Clocks of nodes and clients that differ by more are wrong, and a cursor with such a time is none.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);
/// The oldest time that a cursor may name: long before this program was written.
const OLDEST_MS: UnixMs = 1_500_000_000_000;
/// How long a client that was further on another node waits for this one to come as far.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// What a client asks for when it subscribes.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The channels and patterns.
    pub interest: Interest,
    /// Which of their events.
    pub filter: Option<Arc<Filter>>,
    /// "I have everything up to here."
    pub cursor: Option<Cursor>,
    /// Without a cursor that holds: the last so many events before going live.
    pub history: usize,
    /// Without a cursor that holds: the newest event of each channel first.
    pub last: bool,
}

/// Where a subscription begins.
pub struct Opening {
    /// What became of the cursor.
    pub resume: Resume,
    /// Everything after this position follows.
    pub start: Position,
    /// Up to here the client knows of what is no longer kept.
    pub told_lost: Position,
    /// The newest events of the channels, to be sent first.
    pub first: Vec<Arc<Shown>>,
    /// What the client has got besides everything up to the start.
    pub had: Option<Had>,
    /// It goes on from somewhere: also what this node has shown early before it came, while the bus is away, is
    /// for it.
    pub goes_on: bool,
}

impl Opening {
    /// At a position, with nothing to tell.
    pub(super) fn at(start: Position) -> Self {
        Self {
            resume: Resume::None,
            start,
            told_lost: Position::ZERO,
            first: Vec::new(),
            had: None,
            goes_on: false,
        }
    }

    /// What its client is told that it has.
    pub fn cursor(&self, source: &Source) -> Cursor {
        let mut cursor = source.cursor(self.start);
        if let Some(had) = &self.had {
            had.add_to(&mut cursor);
        }
        cursor
    }
}

/// Decides where a subscription begins.
pub async fn open(source: &Arc<Source>, request: &Request) -> Opening {
    let head = source.hub.head();
    let now = Opening::at(head);
    if request.cursor.is_none() && request.history == 0 && !request.last {
        return now;
    }
    let is_nowhere = match &request.cursor {
        Some(cursor) => !is_reached(source, cursor).await && is_proven(source).await,
        None => false,
    };
    // What came meanwhile is read from the rings or the log like everything after the start.
    let head = source.hub.head();
    let (source, request) = (source.clone(), request.clone());
    // Reads the log, so it goes where blocking is allowed.
    tokio::task::spawn_blocking(move || decide(&source, &request, head, is_nowhere))
        .await
        .unwrap_or(Opening { resume: Resume::Unavailable, ..now })
}

/// Waits for this node to come as far as a client was on another one: as a rule, the blink of an eye.
async fn is_reached(source: &Source, cursor: &Cursor) -> bool {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while source.log.is_on_bus() && source.log.is_ahead(cursor, source.hub.head()) {
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
    true
}

/// Whether everything that is on the bus has been read here.
async fn is_proven(source: &Source) -> bool {
    match &source.order.proof {
        Some(proof) => proof().await,
        None => false,
    }
}

/// Where a cursor of a node that numbers by itself leads on another one: by its time, and some time before it.
fn approximate(source: &Source, cursor: &Cursor, head: Position) -> Option<Position> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = cursor.position()?.0 / POSITIONS_PER_MS;
    let known = OLDEST_MS..=(now + CLOCK_TOLERANCE).as_millis() as UnixMs;
    if !source.order.approximate || !known.contains(&time) {
        return None;
    }
    let begin = time - OVERLAP.as_millis() as u64;
    Some(Position(begin * POSITIONS_PER_MS).min(head))
}

/// `is_nowhere`: what this node has not come to is not on the bus either.
pub(super) fn decide(source: &Source, request: &Request, head: Position, is_nowhere: bool) -> Opening {
    let mut opening = Opening { goes_on: true, ..Opening::at(head) };
    if let Some(cursor) = &request.cursor {
        opening.had = Had::of(cursor);
        let resume = source.log.resume(&request.interest, cursor);
        opening.resume = match resume.status {
            ResumeStatus::Ok => Resume::Ok,
            ResumeStatus::Expired => Resume::Expired,
            ResumeStatus::Reset => match approximate(source, cursor, head) {
                Some(start) => return Opening { resume: Resume::Approximate, start, ..opening },
                None => Resume::Reset,
            },
            ResumeStatus::Ahead if is_nowhere => Resume::Reset,
            // It is to come.
            ResumeStatus::Ahead => Resume::Ok,
            ResumeStatus::Unavailable => Resume::Unavailable,
        };
        if opening.resume == Resume::Reset {
            opening.had = opening.had.and_then(Had::without_marks);
        } else {
            opening.start = resume.start;
            if opening.resume == Resume::Expired {
                opening.told_lost = head;
            }
            return opening;
        }
    }
    let open = Filter::default();
    let filter = request.filter.as_deref().unwrap_or(&open);
    if request.history > 0 {
        let count = request.history.min(MAX_HISTORY);
        match source.log.newest(&request.interest, filter, count) {
            // Only the place is kept; the events are streamed from the log like any replay.
            Ok(events) => {
                if let Some(oldest) = events.first() {
                    opening.start = oldest.position.previous().min(head);
                    opening.told_lost = head;
                }
            }
            Err(_) => opening.resume = Resume::Unavailable,
        }
    } else if request.last {
        match source.log.last_of_each(&request.interest, filter, MAX_HISTORY) {
            // What is newer than the head will come by itself.
            Ok(events) => {
                let shown = source.shown(events);
                opening.first = shown.into_iter().filter(|shown| shown.event.position <= head).collect();
            }
            Err(_) => opening.resume = Resume::Unavailable,
        }
    }
    opening
}
