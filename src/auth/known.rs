//! Tokens that were found good a moment ago. A client that publishes by POST shows the same one with each request, and
//! to check its signature costs as much as the publish.

use super::identity::Identity;
use crate::event::UnixMs;
use ring::digest::{SHA256, digest};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most tokens that are remembered.
const MAX_KNOWN: usize = 10_000;
/// For how long.
const LIFETIME: Duration = Duration::from_secs(10);

/// What a token is remembered by: not the token itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}

struct Known {
    identity: Arc<Identity>,
    since: Instant,
}

/// Who showed them. Whether they were revoked meanwhile is for others to know.
#[derive(Default)]
pub(super) struct KnownTokens(Mutex<HashMap<Fingerprint, Known, foldhash::fast::RandomState>>);

impl KnownTokens {
    /// Who showed this token not long ago, if it still counts at `now` and was checked with keys that are as new as
    /// `keys_since`.
    pub(super) fn find(
        &self,
        token: Fingerprint,
        now: UnixMs,
        keys_since: Option<Instant>,
    ) -> Option<Arc<Identity>> {
        let known = self.lock();
        let Known { identity, since } = known.get(&token)?;
        let is_fresh = since.elapsed() < LIFETIME && keys_since.is_none_or(|keys_since| *since > keys_since);
        (is_fresh && !identity.is_expired(now)).then(|| identity.clone())
    }

    /// Remembers a token whose check began at `since`.
    pub(super) fn note(&self, token: Fingerprint, identity: Arc<Identity>, since: Instant) {
        let mut known = self.lock();
        if known.len() >= MAX_KNOWN {
            known.retain(|_, known| known.since.elapsed() < LIFETIME);
            if known.len() >= MAX_KNOWN {
                // They are checked again: that costs time, where memory would cost the node.
                known.clear();
            }
        }
        known.insert(token, Known { identity, since });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Fingerprint, Known, foldhash::fast::RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_until_it_ends_and_the_number_is_bounded() {
        let known = KnownTokens::default();
        let identity = Arc::new(Identity { expires: Some(1000), ..Identity::default() });
        let (token, before) = (Fingerprint::of("a.b.c"), Instant::now());
        known.note(token, identity, before + Duration::from_nanos(1));
        assert!(known.find(token, 999, None).is_some());
        assert!(known.find(token, 999, Some(before)).is_some());
        assert!(known.find(token, 999, Some(Instant::now())).is_none(), "the keys are newer");
        assert!(known.find(token, 1000, None).is_none(), "it has ended");
        assert!(known.find(Fingerprint::of("a.b.d"), 999, None).is_none());
        for number in 0..MAX_KNOWN + 10 {
            known.note(Fingerprint::of(&number.to_string()), Arc::default(), before);
            assert!(known.lock().len() <= MAX_KNOWN);
        }
    }
}
