//! Where a subscription begins, and what its client is told of the time it was away.

use super::Source;
use crate::codec::{Resume, Shown};
use crate::event::{Cursor, Filter, Interest, Position};
use std::sync::Arc;

/// Most events that `history=` replays, and most channels that `last=1` answers for.
pub const MAX_HISTORY: usize = 1000;

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
}

/// Decides where a subscription begins.
pub async fn open(source: &Arc<Source>, request: &Request) -> Opening {
    let head = source.hub.head();
    let now = Opening { resume: Resume::None, start: head, told_lost: Position::ZERO, first: Vec::new() };
    if request.cursor.is_none() && request.history == 0 && !request.last {
        return now;
    }
    let (source, request) = (source.clone(), request.clone());
    // Reads the log, so it goes where blocking is allowed.
    tokio::task::spawn_blocking(move || decide(&source, &request, head))
        .await
        .unwrap_or(Opening { resume: Resume::Unavailable, ..now })
}

fn decide(source: &Source, request: &Request, head: Position) -> Opening {
    let mut opening =
        Opening { resume: Resume::None, start: head, told_lost: Position::ZERO, first: Vec::new() };
    if let Some(cursor) = request.cursor {
        let resume = source.log.resume(&request.interest, cursor);
        opening.resume = match resume.status {
            crate::log::ResumeStatus::Ok => Resume::Ok,
            crate::log::ResumeStatus::Expired => Resume::Expired,
            crate::log::ResumeStatus::Reset => Resume::Reset,
        };
        if opening.resume != Resume::Reset {
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
                opening.first = events
                    .into_iter()
                    .filter(|event| event.position <= head)
                    .map(|event| Arc::new(Shown::new(event, source.log.epoch())))
                    .collect();
            }
            Err(_) => opening.resume = Resume::Unavailable,
        }
    }
    opening
}
