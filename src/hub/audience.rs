//! To how many subscriptions the newest events were shown: for whoever asks what became of one.

use std::collections::VecDeque;
use std::ops::AddAssign;

/// Events that are counted; a megabyte would be too much for a question that is seldom asked.
const MOST: usize = 16_384;

/// Who was there when an event was shown.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Audience {
    /// Subscriptions to its channel, before filters. A client with two patterns that match has two.
    pub subscriptions: u32,
    /// Those of them that had earlier events to take first.
    pub behind: u32,
}

impl Audience {
    /// Counts one more.
    pub(super) fn add(&mut self, is_behind: bool) {
        self.subscriptions = self.subscriptions.saturating_add(1);
        self.behind = self.behind.saturating_add(u32::from(is_behind));
    }
}

impl AddAssign for Audience {
    fn add_assign(&mut self, other: Self) {
        self.subscriptions = self.subscriptions.saturating_add(other.subscriptions);
        self.behind = self.behind.saturating_add(other.behind);
    }
}

/// The audiences of the newest events that had any, by a number that grows from event to event.
#[derive(Default)]
pub(super) struct Audiences {
    newest: VecDeque<(u64, Audience)>,
    /// Every event after this number is counted: one that is not there had no audience.
    counted_after: u64,
}

impl Audiences {
    /// Counts what comes after a number.
    pub(super) fn after(number: u64) -> Self {
        Self { newest: VecDeque::new(), counted_after: number }
    }

    /// Notes an event; several notes of one in a row add up.
    pub(super) fn note(&mut self, number: u64, audience: Audience) {
        if let Some((last, noted)) = self.newest.back_mut()
            && *last == number
        {
            *noted += audience;
            return;
        }
        if self.newest.len() >= MOST
            && let Some((oldest, _)) = self.newest.pop_front()
        {
            self.counted_after = oldest;
        }
        self.newest.push_back((number, audience));
    }

    /// The audience of an event; none where it is no longer counted.
    pub(super) fn of(&self, number: u64) -> Option<Audience> {
        if number <= self.counted_after {
            return None;
        }
        let place = self.newest.binary_search_by_key(&number, |(number, _)| *number);
        Some(place.map_or_else(|_| Audience::default(), |place| self.newest[place].1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audience(subscriptions: u32, behind: u32) -> Audience {
        Audience { subscriptions, behind }
    }

    #[test]
    fn an_event_without_an_audience_is_told_from_one_that_is_not_counted() {
        let mut audiences = Audiences::after(10);
        audiences.note(12, audience(3, 1));
        audiences.note(12, audience(1, 1));
        audiences.note(15, audience(2, 0));
        assert_eq!(audiences.of(10), None);
        assert_eq!(audiences.of(11), Some(audience(0, 0)));
        assert_eq!(audiences.of(12), Some(audience(4, 2)));
        assert_eq!(audiences.of(15), Some(audience(2, 0)));
    }

    #[test]
    fn only_the_newest_are_counted() {
        let mut audiences = Audiences::default();
        let last = MOST as u64 + 5;
        for number in 1..=last {
            audiences.note(number, audience(1, 0));
        }
        assert_eq!(audiences.of(5), None);
        assert_eq!(audiences.of(6), Some(audience(1, 0)));
        assert_eq!(audiences.of(last), Some(audience(1, 0)));
        assert_eq!(audiences.newest.len(), MOST);
    }
}
