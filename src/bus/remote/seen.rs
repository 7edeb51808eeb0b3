//! Which parcels of which senders have come already. A sender whose link breaks cannot know which of its last
//! parcels are on the bus, and sends them again under the same numbers; here the repetitions are seen, however
//! much later they come. What is kept is a few numbers for each sender, not one for each parcel.

use crate::bus::backend::Origin;
use std::collections::HashMap;

/// Senders that are remembered; beyond it the one that was silent for longest is forgotten.
const MOST_ORIGINS: usize = 4096;
/// Runs of numbers that are remembered of one sender; beyond it the oldest is forgotten. There is more than one
/// only where the bus refused a parcel and took a later one.
const MOST_RANGES: usize = 64;

/// What has come, by sender.
#[derive(Clone, Default, Debug)]
pub(super) struct Seen {
    origins: HashMap<Origin, Numbers>,
    clock: u64,
}

#[derive(Clone, Default, Debug)]
struct Numbers {
    /// First and last number of each run, oldest first.
    ranges: Vec<(u64, u64)>,
    used: u64,
}

impl Seen {
    /// Notes a parcel; false if it came before.
    pub(super) fn insert(&mut self, origin: Origin, number: u64) -> bool {
        self.numbers(origin).insert(number)
    }

    /// The same on a shard that gets only some of a sender's numbers, in growing order: a number below one that has
    /// come is a repetition.
    pub(super) fn insert_growing(&mut self, origin: Origin, number: u64) -> bool {
        self.numbers(origin).insert_growing(number)
    }

    fn numbers(&mut self, origin: Origin) -> &mut Numbers {
        self.clock += 1;
        if !self.origins.contains_key(&origin) && self.origins.len() >= MOST_ORIGINS {
            let silent =
                self.origins.iter().min_by_key(|(_, numbers)| numbers.used).map(|(origin, _)| *origin);
            if let Some(silent) = silent {
                self.origins.remove(&silent);
            }
        }
        let numbers = self.origins.entry(origin).or_default();
        numbers.used = self.clock;
        numbers
    }

    /// Everything, for a file.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (Origin, &[(u64, u64)])> {
        self.origins.iter().map(|(origin, numbers)| (*origin, &*numbers.ranges))
    }

    /// Takes up what a file had.
    pub(super) fn restore(ranges: impl IntoIterator<Item = (Origin, Vec<(u64, u64)>)>) -> Self {
        let mut seen = Self::default();
        for (origin, mut ranges) in ranges.into_iter().take(MOST_ORIGINS) {
            ranges.retain(|(first, last)| first <= last);
            ranges.sort_unstable();
            seen.origins.insert(origin, Numbers { ranges, used: 0 });
        }
        seen
    }
}

impl Numbers {
    fn insert_growing(&mut self, number: u64) -> bool {
        if self.ranges.last().is_some_and(|(_, last)| number <= *last) {
            return false;
        }
        self.ranges.clear();
        self.ranges.push((0, number));
        true
    }

    fn insert(&mut self, number: u64) -> bool {
        // Nearly always the next one.
        if let Some((_, last)) = self.ranges.last_mut()
            && number == *last + 1
        {
            *last = number;
            return true;
        }
        let place = self.ranges.partition_point(|(first, _)| *first <= number);
        if place > 0 && number <= self.ranges[place - 1].1 {
            return false;
        }
        let joins_before = place > 0 && self.ranges[place - 1].1 + 1 == number;
        let joins_after = self.ranges.get(place).is_some_and(|(first, _)| number + 1 == *first);
        match (joins_before, joins_after) {
            (true, true) => {
                self.ranges[place - 1].1 = self.ranges[place].1;
                self.ranges.remove(place);
            }
            (true, false) => self.ranges[place - 1].1 = number,
            (false, true) => self.ranges[place].0 = number,
            (false, false) => self.ranges.insert(place, (number, number)),
        }
        if self.ranges.len() > MOST_RANGES {
            // Rather one that comes twice than one that never comes.
            self.ranges.remove(0);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn each_parcel_comes_once(numbers in proptest::collection::vec((0_u64..3, 1_u64..60), 0..400)) {
            let mut seen = Seen::default();
            let mut model = HashSet::new();
            for (origin, number) in numbers {
                prop_assert_eq!(seen.insert(Origin(origin), number), model.insert((origin, number)));
                let stored: Vec<_> = seen.ranges().map(|(origin, ranges)| (origin, ranges.to_vec())).collect();
                seen = Seen::restore(stored);
            }
        }
    }

    #[test]
    fn on_a_shard_a_jump_forward_is_no_gap() {
        let mut seen = Seen::default();
        let news: Vec<bool> = [3, 9, 12, 9, 3, 5, 13]
            .into_iter()
            .map(|number| seen.insert_growing(Origin(1), number))
            .collect();
        assert_eq!(news, [true, true, true, false, false, false, true]);
        let stored: Vec<_> = seen.ranges().map(|(origin, ranges)| (origin, ranges.to_vec())).collect();
        let mut seen = Seen::restore(stored);
        assert!(!seen.insert_growing(Origin(1), 13) && seen.insert_growing(Origin(1), 40));
        assert!(seen.insert_growing(Origin(2), 1), "another sender");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        for n in 0..10_000 {
            assert!(seen.insert(Origin(1), 2 * n));
            assert!(seen.insert(Origin(n + 10), 1));
        }
        assert!(seen.origins.len() <= MOST_ORIGINS);
        assert!(seen.origins[&Origin(1)].ranges.len() <= MOST_RANGES);
        assert!(!seen.insert(Origin(1), 19_998));
    }
}
