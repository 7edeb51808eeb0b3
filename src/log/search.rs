//! Looking for the events of an id, which the log is not ordered by.

use super::liveness::unix_ms;
use super::walk::{Walk, Wanted};
use super::{Log, ReadError, Shared, lock};
use crate::event::{Event, EventId, Filter, Position, UnixMs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A search goes on no longer than this.
const LONGEST: Duration = Duration::from_secs(1);
/// How far the time in an id may be from the time of its event, and the copies of an event from each other, in
/// milliseconds.
const APART: UnixMs = 2_000;

/// What became of an id in the log.
#[derive(Clone, Default, Debug)]
pub struct Sought {
    /// Its events that are kept, one for each channel, oldest first.
    pub events: Vec<Arc<Event>>,
    /// Where an event stood that is not kept, while its id is still remembered.
    pub gone: Option<Position>,
    /// The log was looked at back to this time, when the search had lasted too long; none if it was looked at in
    /// full.
    pub looked_back_to: Option<UnixMs>,
}

impl Log {
    /// The events of an id: by the ids that are remembered, by the time in an id that was made here, else from the
    /// newest event back, for a bounded time.
    pub fn seek(&self, id: &EventId) -> Result<Sought, ReadError> {
        self.shared().seek(id)
    }
}

impl Shared {
    fn seek(&self, id: &EventId) -> Result<Sought, ReadError> {
        let known = lock(&self.ids).position(id);
        if let Some(position) = known {
            match self.find(position)? {
                None => return Ok(Sought { gone: Some(position), ..Sought::default() }),
                Some(event) if event.id.as_str() == id.as_str() => {
                    return Ok(Sought { events: vec![event], ..Sought::default() });
                }
                // Two ids may have one hash.
                Some(_) => {}
            }
        }
        let deadline = Instant::now() + LONGEST;
        if let Some(made) = id.made_at() {
            let near = self.seek_between(id, made.saturating_sub(APART), Some(made + APART), deadline)?;
            if !near.events.is_empty() {
                return Ok(near);
            }
        }
        self.seek_between(id, 0, None, deadline)
    }

    /// Looks from the newest event back. Once one was found, its copies are close.
    fn seek_between(
        &self,
        id: &EventId,
        since: UnixMs,
        until: Option<UnixMs>,
        deadline: Instant,
    ) -> Result<Sought, ReadError> {
        let filter = Filter::default();
        let wanted = Wanted { since: Some(since), until, ..Wanted::new(None, &filter) };
        let mut walk = Walk::new(self, wanted);
        let mut at = self.head().next();
        let mut sought = Sought::default();
        let mut enough_at = since;
        let mut came_to = unix_ms();
        while let Some(step) = walk.backward(at, Position::ZERO)? {
            at = step.reached;
            came_to = step.events.last().map_or(came_to, |event| event.time);
            for event in step.events {
                if event.id.as_str() == id.as_str() {
                    enough_at = enough_at.max(event.time.saturating_sub(APART));
                    sought.events.push(event);
                }
            }
            if came_to < enough_at {
                break;
            }
            if Instant::now() >= deadline {
                sought.looked_back_to = Some(came_to);
                break;
            }
        }
        sought.events.reverse();
        Ok(sought)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{event, now, open, options, wait_for};
    use super::*;
    use crate::log::LogOptions;

    fn ids(sought: &Sought) -> Vec<(&str, &str)> {
        sought.events.iter().map(|event| (event.id.as_str(), event.channel.as_str())).collect()
    }

    #[test]
    fn an_event_is_found_by_any_kind_of_id() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(LogOptions { id_limit: 0, ..options(dir.path()) }).unwrap();
        let first = log.next_position().0;
        let mut events: Vec<_> = (0..5000).map(|n| event(first + n).channel("other").build()).collect();
        let given = EventId::parse("order-1").unwrap();
        for (at, channel) in [(1000, "a"), (1001, "b")] {
            events[at].channel = crate::event::Channel::parse(channel).unwrap();
            events[at].id = given.on_channel(&events[at].channel);
        }
        let fresh = events[3000].id.clone();
        let unknown = EventId::parse("order-2").unwrap();
        let events: Vec<_> = events.into_iter().map(Arc::new).collect();
        for group in events.chunks(250) {
            log.append(group).unwrap();
        }
        // In the journal, and packed after a restart.
        for _ in 0..2 {
            assert_eq!(ids(&log.seek(&given).unwrap()), [("order-1", "a"), ("order-1", "b")]);
            assert_eq!(ids(&log.seek(&fresh).unwrap()), [(fresh.as_str(), "other")]);
            let nothing = log.seek(&unknown).unwrap();
            assert!(nothing.events.is_empty() && nothing.looked_back_to.is_none(), "{nothing:?}");
            drop(log);
            log = open(dir.path());
            wait_for("packing", || log.stats().journals == 0);
        }
    }

    #[test]
    fn an_id_that_is_remembered_tells_of_an_event_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        let first = log.next_position().0;
        let live = event(first).id("live").live().shared();
        let expired = event(first + 1).id("expired").expires(now() - 1).shared();
        let kept = event(first + 2).id("kept").shared();
        log.append(&[live.clone(), expired.clone(), kept.clone()]).unwrap();
        for event in [&live, &expired] {
            let sought = log.seek(&event.id).unwrap();
            assert_eq!((sought.events.len(), sought.gone), (0, Some(event.position)));
        }
        let sought = log.seek(&kept.id).unwrap();
        assert_eq!((ids(&sought), sought.gone), (vec![("kept", "test.channel")], None));
    }
}
