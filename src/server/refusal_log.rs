//! Says in the log why clients are refused, as they are not told themselves; never so often that the log becomes
//! the attack.

use super::rate::Rate;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Lines a second, twice as many at once.
const LINES_PER_SECOND: u32 = 10;

/// The reasons of refusals, in the log.
pub(super) struct RefusalLog(Mutex<State>);

struct State {
    rate: Rate,
    /// Refusals since the last line.
    passed_over: u64,
}

impl RefusalLog {
    /// A log that has said nothing yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { rate: Rate::new(LINES_PER_SECOND, Instant::now()), passed_over: 0 }))
    }

    /// Notes a refusal.
    pub(super) fn note(&self, user: Option<&str>, reason: &dyn Display) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.rate.take(Instant::now()) {
            state.passed_over += 1;
            return;
        }
        let passed_over = std::mem::take(&mut state.passed_over);
        drop(state);
        tracing::info!(user, passed_over, "refused: {reason}");
    }
}
