//! A little chance, so that nodes do not all do the same at the same moment.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Some time up to `most`, each time another.
pub(crate) fn jitter(most: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) >> 11;
    most.mul_f64(random as f64 / (1u64 << 53) as f64)
}
