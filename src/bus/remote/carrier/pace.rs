//! Whether the bus is quick enough to be waited for.

use std::time::{Duration, Instant};

/// A bus that takes longer than this part of the hedge time to confirm, so many times in a row, is slow, until it
/// is quick again for a few.
const SLOW_PART: u32 = 5;
const SLOW_SENDS: u32 = 4;
const QUICK_SENDS: u32 = 2;
/// How long a bus is slow before that is worth a line: one at the edge is slow and quick again many times a second.
const WORTH_A_LINE: Duration = Duration::from_secs(5);

/// Whether the bus is slow to confirm.
#[derive(Default)]
pub(super) struct Pace {
    /// Since when, if it is.
    slow_since: Option<Instant>,
    /// So many sends in a row say the opposite.
    against: u32,
    is_told: bool,
}

/// What the operator is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// It has been slow for a while.
    Slow,
    /// It no longer is.
    QuickAgain,
}

impl Pace {
    /// How long a publish waits for the bus, where a quick one is waited for so long.
    pub(super) fn patience(&self, hedge: Duration) -> Duration {
        if self.is_slow() { hedge / SLOW_PART } else { hedge }
    }

    /// Whether the bus is slow.
    pub(super) fn is_slow(&self) -> bool {
        self.slow_since.is_some()
    }

    /// Takes note of a send that ended at `now`.
    pub(super) fn note(&mut self, took: Duration, hedge: Duration, now: Instant) -> Option<Change> {
        self.against = if (took > hedge / SLOW_PART) == self.is_slow() { 0 } else { self.against + 1 };
        match self.slow_since {
            None if self.against >= SLOW_SENDS => {
                *self = Self { slow_since: Some(now), ..Self::default() };
                None
            }
            Some(_) if self.against >= QUICK_SENDS => {
                std::mem::take(self).is_told.then_some(Change::QuickAgain)
            }
            Some(since) if !self.is_told && now.saturating_duration_since(since) >= WORTH_A_LINE => {
                self.is_told = true;
                Some(Change::Slow)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_is_slow_until_it_is_quick_again_and_only_what_lasts_is_told() {
        let (hedge, begin) = (Duration::from_millis(50), Instant::now());
        let mut pace = Pace::default();
        let mut note = |took_ms, at_s| {
            let told = pace.note(Duration::from_millis(took_ms), hedge, begin + Duration::from_secs(at_s));
            (told, pace.is_slow())
        };
        for took in [11, 11, 11, 1, 11, 11, 11] {
            assert_eq!(note(took, 0), (None, false));
        }
        assert_eq!(note(11, 0), (None, true));
        assert_eq!(
            [note(1, 1), note(11, 2), note(1, 3), note(1, 4)],
            [(None, true), (None, true), (None, true), (None, false)]
        );
        for _ in 0..3 {
            assert_eq!(note(11, 5), (None, false));
        }
        assert_eq!([note(11, 5), note(11, 9)], [(None, true); 2]);
        assert_eq!([note(11, 10), note(11, 99)], [(Some(Change::Slow), true), (None, true)]);
        assert_eq!([note(1, 100), note(1, 100)], [(None, true), (Some(Change::QuickAgain), false)]);
    }
}
