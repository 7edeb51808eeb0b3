//! What a client is told that it has: with each event, and in between.

use super::{Had, Member, Subscription};
use crate::codec::Shown;
use crate::event::{Cursor, Origin, Position};
use crate::log::Cursors;
use std::sync::Arc;

/// Gives events the cursors that a client is to be told with them: nearly always their own.
pub(super) struct Teller<'a> {
    subscription: &'a Subscription,
    own: Option<Origin>,
    cursors: Option<Cursors>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(subscription: &'a Subscription) -> Self {
        Self { subscription, own: subscription.source.hub.early().origin(), cursors: None }
    }

    /// An event with its place.
    pub(super) fn told(&mut self, member: &Member, shown: &Arc<Shown>) -> Arc<Shown> {
        let early = &self.subscription.early;
        if early.is_empty() && member.had.is_none() {
            return shown.clone();
        }
        let cursor = self.cursors().of_event(&shown.event);
        shown.with_cursor(&self.with_had(cursor, member, early.at()))
    }

    /// One that the bus has not ordered yet: the client has it besides.
    pub(super) fn told_early(&mut self, member: &Member, number: u64, shown: &Shown) -> Arc<Shown> {
        let at = self.subscription.at;
        let cursor = self.cursors().of(at);
        shown.with_cursor(&self.with_had(cursor, member, number))
    }

    fn with_had(&self, mut cursor: Cursor, member: &Member, number: u64) -> Cursor {
        if let Some(had) = &member.had {
            had.add_to(&mut cursor);
        }
        let early = &self.subscription.early;
        cursor.early.extend(self.own.and_then(|own| early.range(own, member.early_from, number)));
        cursor
    }

    fn cursors(&mut self) -> &Cursors {
        self.cursors.get_or_insert_with(|| self.subscription.source.log.cursors())
    }
}

impl Subscription {
    /// What its client is told that it has when it has come to a position.
    pub fn cursor_at(&self, position: Position) -> Cursor {
        let mut cursor = self.source.cursor(position);
        let mut members = self.members.iter().map(|(_, member)| member);
        let (had, mut early_from) = match members.next() {
            None => (&self.had, 0),
            Some(first) => (&first.had, first.early_from),
        };
        let mut same = true;
        for member in members {
            same &= match (&member.had, had) {
                (None, None) => true,
                (Some(own), Some(had)) => Arc::ptr_eq(own, had),
                _ => false,
            };
            early_from = early_from.max(member.early_from);
        }
        // Only what it has on all its channels: rather something twice than not at all.
        if let Some(had) = had.as_ref().filter(|_| same) {
            had.add_to(&mut cursor);
        }
        let own = self.source.hub.early().origin();
        cursor.early.extend(own.and_then(|own| self.early.range(own, early_from, self.early.at())));
        cursor
    }

    /// Whether there is something that its client had when it began, and none of it can come any more, up to the
    /// head as it is after this call.
    pub(super) fn had_is_over(&self) -> bool {
        if !self.any_had {
            return false;
        }
        let mut known: Option<&Arc<Had>> = None;
        for (_, member) in &self.members {
            let Some(had) = &member.had else { continue };
            if known.is_some_and(|known| Arc::ptr_eq(known, had)) {
                continue;
            }
            if !had.is_over(&self.source.hub) {
                return false;
            }
            known = Some(had);
        }
        known.is_some()
    }

    pub(super) fn forget_had(&mut self) {
        self.had = None;
        self.any_had = false;
        for (_, member) in &mut self.members {
            member.had = None;
        }
    }
}
