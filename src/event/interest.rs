//! What a reader wants: a set of channels and patterns, and a filter on what they carry.

use super::{Channel, Event, EventName, Pattern};
use std::collections::HashSet;

/// A set of channels and patterns.
#[derive(Clone, Default, Debug)]
pub struct Interest {
    exact: HashSet<Channel, foldhash::fast::RandomState>,
    wild: Vec<Pattern>,
}

impl Interest {
    /// The set of these patterns.
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        let mut interest = Self::default();
        for pattern in patterns {
            interest.insert(pattern);
        }
        interest
    }

    /// Adds a pattern; false if it was there already.
    pub fn insert(&mut self, pattern: Pattern) -> bool {
        match pattern {
            Pattern::Exact(channel) => self.exact.insert(channel),
            wild if self.wild.contains(&wild) => false,
            wild => {
                self.wild.push(wild);
                true
            }
        }
    }

    /// Takes a pattern out; false if it was not there.
    pub fn remove(&mut self, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Exact(channel) => self.exact.remove(channel),
            wild => match self.wild.iter().position(|known| known == wild) {
                Some(at) => {
                    self.wild.swap_remove(at);
                    true
                }
                None => false,
            },
        }
    }

    /// Whether events of `channel` are wanted.
    pub fn matches(&self, channel: &Channel) -> bool {
        self.exact.contains(channel) || self.wild.iter().any(|pattern| pattern.matches(channel))
    }

    /// The channels that are named in full.
    pub fn channels(&self) -> impl ExactSizeIterator<Item = &Channel> {
        self.exact.iter()
    }

    /// The patterns with wildcards.
    pub fn patterns(&self) -> &[Pattern] {
        &self.wild
    }

    /// How many channels and patterns there are.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wild.len()
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which of the events of the wanted channels are wanted.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Filter {
    /// Any of these names; none means all.
    pub events: Vec<EventName>,
    /// Each of these tags with this value.
    pub tags: Vec<(Box<str>, Box<str>)>,
}

impl Filter {
    /// Whether everything passes.
    pub fn is_open(&self) -> bool {
        self.events.is_empty() && self.tags.is_empty()
    }

    /// Whether `event` passes.
    pub fn passes(&self, event: &Event) -> bool {
        (self.events.is_empty() || self.events.contains(&event.name))
            && self.tags.iter().all(|(name, value)| event.tags.get(name) == Some(value))
    }
}
