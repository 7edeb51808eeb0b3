//! Latencies, counted in little memory.

use std::time::Duration;

/// Buckets for each doubling: a value is told to within a 32nd of it.
const STEPS: u64 = 32;
/// Doublings above the first [`STEPS`] values; longer than an hour is as good as an hour.
const DOUBLINGS: u64 = 27;

/// How often each latency occurred, to within 3 %.
#[derive(Clone)]
pub(super) struct Histogram {
    counts: Box<[u32]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; ((DOUBLINGS + 1) * STEPS) as usize].into_boxed_slice(), total: 0 }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let count = &mut self.counts[bucket(us)];
        *count = count.saturating_add(1);
        self.total += 1;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.total += other.total;
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The latency that this share of all did not exceed.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank && *count > 0 {
                return Duration::from_micros(highest(index as u64));
            }
        }
        Duration::ZERO
    }
}

/// The bucket of a value: below [`STEPS`] its own, above by its leading bits.
fn bucket(us: u64) -> usize {
    if us < STEPS {
        return us as usize;
    }
    let doubling = u64::from(us.ilog2() - STEPS.ilog2());
    let last = (DOUBLINGS + 1) * STEPS - 1;
    ((doubling + 1) * STEPS + (us >> doubling) - STEPS).min(last) as usize
}

/// The highest value of a bucket.
fn highest(bucket: u64) -> u64 {
    if bucket < STEPS {
        return bucket;
    }
    let doubling = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        let near = |share: f64, us: f64| {
            let told = histogram.quantile(share).as_micros() as f64;
            assert!((told - us).abs() <= us / 32.0 + 1.0, "{share}: {told}");
        };
        near(0.5, 500.0);
        near(0.99, 990.0);
        near(1.0, 1000.0);
        assert_eq!(histogram.total(), 1000);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_values_that_are_alike(us in 0u64..3_000_000_000) {
            let top = highest(bucket(us) as u64);
            prop_assert!(top >= us && top - us <= us / 16);
            prop_assert_eq!(bucket(top), bucket(us));
        }

        #[test]
        fn every_value_has_a_bucket(us: u64) {
            Histogram::default().record(Duration::from_micros(us));
        }
    }
}
