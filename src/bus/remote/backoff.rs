//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
/// Short enough that a bus that is back is in use again within seconds.
const LONGEST: Duration = Duration::from_secs(2);

/// Doubles from attempt to attempt, with jitter, so that nodes do not come back in step.
#[derive(Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next pause: between half and the whole of what the number of attempts calls for.
    pub(super) fn next(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.attempts.min(16)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        // The low bits of a fresh UUID are random.
        let random = uuid::Uuid::now_v7().as_u128() as u32;
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// An attempt succeeded.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..40).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= FIRST && pauses[39] <= LONGEST && pauses[39] >= LONGEST / 2);
        assert!(pauses[30..].windows(2).any(|pair| pair[0] != pair[1]));
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
