//! Which events a client gets of those that its channels and patterns have.

use super::telling::Teller;
use super::{EVENTS_AT_ONCE, Member, Subscription};
use crate::codec::Shown;
use crate::event::{Event, Position, Sender};
use crate::hub::EarlyTake;
use std::sync::Arc;

impl Subscription {
    /// What is there before the bus has ordered it. Whoever asks is at the end of its rings, and armed.
    pub(super) fn take_early(&mut self, shown_up_to: Position) -> EarlyTake {
        let lane = self.source.hub.early();
        if !self.early.is_empty() && lane.is_over(&self.early, shown_up_to) {
            self.early.forget();
        }
        let mut seen = self.early;
        let take = lane.take(&mut seen, shown_up_to, EVENTS_AT_ONCE);
        self.early = seen;
        let (EarlyTake::Events(events), Some(origin)) = (&take, lane.origin()) else { return take };
        let mut teller = Teller::new(self);
        let wanted = events.iter().filter_map(|(number, shown)| {
            let sender = Sender { origin, number: *number };
            let has = |member: &Member| {
                *number <= member.early_from || member.had.as_ref().is_some_and(|had| had.has_of(sender))
            };
            let mut members = self.members.iter().map(|(_, member)| member);
            let member = members.find(|member| {
                member.feed.pattern().matches(&shown.event.channel)
                    && self.passes(member, shown)
                    && !has(member)
            })?;
            Some((*number, teller.told_early(member, *number, shown)))
        });
        EarlyTake::Events(wanted.collect())
    }

    /// Those of some events of the log that its client gets, as it gets them.
    pub(super) fn picked(&self, events: Vec<Arc<Shown>>) -> Vec<Arc<Shown>> {
        let mut teller = Teller::new(self);
        let pick = |shown: Arc<Shown>| {
            let mut members = self.members.iter().map(|(_, member)| member);
            let member = members.find(|member| {
                member.feed.pattern().matches(&shown.event.channel) && self.wants_from(member, &shown)
            })?;
            Some(teller.told(member, &shown))
        };
        events.into_iter().filter_map(pick).collect()
    }

    /// Whether an event of the log is for a client that is on one of its channels or patterns.
    pub(super) fn wants_from(&self, member: &Member, shown: &Shown) -> bool {
        let event = &shown.event;
        self.passes(member, shown)
            && ((self.early.is_empty() && member.had.is_none()) || !self.has_got(member, event))
    }

    /// Whether its client has got an event besides everything up to its position.
    fn has_got(&self, member: &Member, event: &Event) -> bool {
        let hub = &self.source.hub;
        let own = hub.early().origin();
        let has = |sender: Sender| {
            Some(sender.origin) == own && self.early.has(sender.number, member.early_from)
                || member.had.as_ref().is_some_and(|had| had.has_of(sender))
        };
        [event.sender(), hub.twin_of(event)].into_iter().flatten().any(has)
            || member.had.as_ref().is_some_and(|had| had.has_in_shard(event))
    }

    fn passes(&self, member: &Member, shown: &Shown) -> bool {
        let event = &shown.event;
        member.filter.as_ref().is_none_or(|filter| filter.passes(event))
            && (event.exclude.is_none() || event.exclude != self.connection)
    }
}
