//! The channels and patterns of a client: it joins and leaves them at any time.

use super::{Had, Member, Subscription};
use crate::event::{Filter, Pattern};
use crate::hub::Signal;
use std::sync::Arc;

impl Subscription {
    /// Joins a channel or pattern; for one it is on already, only the filter changes.
    pub fn join(&mut self, pattern: &Pattern, filter: Option<Arc<Filter>>) {
        self.add(pattern, filter, self.had.clone(), 0);
    }

    /// The same when the others have begun. The client has got `had` on this one; of what the others got early
    /// it has nothing.
    pub fn join_later(&mut self, pattern: &Pattern, filter: Option<Arc<Filter>>, had: Option<&Arc<Had>>) {
        self.add(pattern, filter, had.cloned(), self.early.at());
    }

    fn add(
        &mut self,
        pattern: &Pattern,
        filter: Option<Arc<Filter>>,
        had: Option<Arc<Had>>,
        early_from: u64,
    ) {
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
        self.any_had |= had.is_some();
        entry.insert(Member { feed, ticket, filter, had, early_from });
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
}
