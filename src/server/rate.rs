//! How often something may be done.

use std::time::Instant;

/// A token bucket: so many a second, twice as many at once.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: u32,
    tokens: f32,
    refilled: Instant,
}

impl Rate {
    /// A full bucket; zero a second means no limit.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, tokens: per_second as f32 * 2.0, refilled: now }
    }

    /// Whether nothing was taken of late.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        let rate = self.per_second as f32;
        self.tokens + now.saturating_duration_since(self.refilled).as_secs_f32() * rate >= rate * 2.0
    }

    /// Takes one; false when there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.take_many(1, now)
    }

    /// Takes so many; false when there are fewer.
    pub(super) fn take_many(&mut self, count: u32, now: Instant) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let rate = self.per_second as f32;
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f32();
        self.tokens = (self.tokens + elapsed * rate).min(rate * 2.0);
        self.refilled = now;
        if self.tokens < count as f32 {
            return false;
        }
        self.tokens -= count as f32;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let start = Instant::now();
        let mut rate = Rate::new(10, start);
        assert_eq!((0..100).filter(|_| rate.take(start)).count(), 20);
        assert_eq!((0..100).filter(|_| rate.take(start + Duration::from_millis(500))).count(), 5);
        let mut free = Rate::new(0, start);
        assert!((0..1000).all(|_| free.take(start)));
    }
}
