//! Whether the bus is quick enough to be waited for.

use std::time::Duration;

/// A bus that takes longer than this part of the hedge time to confirm, so many times in a row, is slow, until it
/// is quick again for a few.
const SLOW_PART: u32 = 5;
const SLOW_SENDS: u32 = 4;
const QUICK_SENDS: u32 = 2;

/// Whether the bus is slow to confirm.
#[derive(Default)]
pub(super) struct Pace {
    is_slow: bool,
    /// So many sends in a row say the opposite.
    against: u32,
}

impl Pace {
    /// How long a publish waits for the bus, where a quick one is waited for so long.
    pub(super) fn patience(&self, hedge: Duration) -> Duration {
        if self.is_slow { hedge / SLOW_PART } else { hedge }
    }

    /// Whether the bus is slow.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// Takes note of a send.
    pub(super) fn note(&mut self, took: Duration, hedge: Duration) {
        let is_slow = took > hedge / SLOW_PART;
        if is_slow == self.is_slow {
            self.against = 0;
            return;
        }
        self.against += 1;
        if self.against >= if self.is_slow { QUICK_SENDS } else { SLOW_SENDS } {
            *self = Self { is_slow: !self.is_slow, against: 0 };
        }
    }
}
