//! Tokens that count no longer although they have not expired.

use crate::event::UnixMs;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most tokens that are revoked at a time. A node that revokes more needs another key.
const MAX_REVOKED: usize = 100_000;

/// The ids of revoked tokens, each until it would expire by itself.
#[derive(Default)]
pub struct Revocations(Mutex<HashMap<Box<str>, UnixMs, foldhash::fast::RandomState>>);

/// There are too many already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyRevoked;

impl Revocations {
    /// Revokes a token until `end`.
    pub fn revoke(&self, token_id: &str, end: UnixMs, now: UnixMs) -> Result<(), TooManyRevoked> {
        let mut revoked = self.lock();
        if revoked.len() >= MAX_REVOKED && !revoked.contains_key(token_id) {
            revoked.retain(|_, end| *end > now);
            if revoked.len() >= MAX_REVOKED {
                return Err(TooManyRevoked);
            }
        }
        let known = revoked.entry(token_id.into()).or_insert(end);
        *known = end.max(*known);
        Ok(())
    }

    /// Whether a token is revoked at `now`.
    pub fn contains(&self, token_id: &str, now: UnixMs) -> bool {
        self.lock().get(token_id).is_some_and(|end| *end > now)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, UnixMs, foldhash::fast::RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revoked_until_it_would_expire_and_no_longer() {
        let revocations = Revocations::default();
        revocations.revoke("a", 100, 0).unwrap();
        revocations.revoke("a", 50, 0).unwrap();
        assert!(revocations.contains("a", 99) && !revocations.contains("a", 100));
        assert!(!revocations.contains("b", 0));
    }

    #[test]
    fn there_is_room_again_when_some_have_expired() {
        let revocations = Revocations::default();
        for number in 0..MAX_REVOKED {
            revocations.revoke(&number.to_string(), if number == 0 { 10 } else { 100 }, 0).unwrap();
        }
        assert_eq!(revocations.revoke("more", 100, 5), Err(TooManyRevoked));
        assert_eq!(revocations.revoke("more", 100, 10), Ok(()));
    }
}
