//! Tokens that were found good a moment ago. A client that publishes by POST shows the same one with each request, and
//! to check its signature costs as much as the publish.

use super::identity::Identity;
use crate::event::UnixMs;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most tokens that are remembered.
const MAX_KNOWN: usize = 10_000;
/// Most bytes of them. A token of an issuer with much to say has a thousand.
const MAX_BYTES: usize = 8 << 20;
/// For how long.
const LIFETIME: Duration = Duration::from_secs(10);

struct Known {
    token: Box<str>,
    identity: Arc<Identity>,
    since: Instant,
}

/// Who showed them. Whether they were revoked meanwhile is for others to know.
///
/// A digest in place of the token would cost a twentieth of a publish. The text is compared only when all 64 bits of
/// a hash agree whose seed nobody outside knows, so the time that it takes tells nothing of another's token.
#[derive(Default)]
pub(super) struct KnownTokens {
    hashes: RandomState,
    tokens: Mutex<Tokens>,
}

#[derive(Default)]
struct Tokens {
    by_hash: HashMap<u64, Known, RandomState>,
    bytes: usize,
}

impl Tokens {
    fn has_room_for(&self, token: &str) -> bool {
        self.by_hash.len() < MAX_KNOWN && self.bytes + token.len() <= MAX_BYTES
    }

    fn keep_fresh(&mut self) {
        self.by_hash.retain(|_, known| known.since.elapsed() < LIFETIME);
        self.bytes = self.by_hash.values().map(|known| known.token.len()).sum();
    }

    fn clear(&mut self) {
        self.by_hash.clear();
        self.bytes = 0;
    }

    fn insert(&mut self, hash: u64, known: Known) {
        self.bytes += known.token.len();
        if let Some(before) = self.by_hash.insert(hash, known) {
            self.bytes -= before.token.len();
        }
    }
}

impl KnownTokens {
    /// Who showed this token not long ago, if it still counts at `now` and was checked with keys that are as new as
    /// `keys_since`.
    pub(super) fn find(
        &self,
        token: &str,
        now: UnixMs,
        keys_since: Option<Instant>,
    ) -> Option<Arc<Identity>> {
        let hash = self.hashes.hash_one(token);
        let tokens = self.lock();
        let Known { token: shown, identity, since } = tokens.by_hash.get(&hash)?;
        let is_fresh = since.elapsed() < LIFETIME && keys_since.is_none_or(|keys_since| *since > keys_since);
        (**shown == *token && is_fresh && !identity.is_expired(now)).then(|| identity.clone())
    }

    /// Remembers a token whose check began at `since`.
    pub(super) fn note(&self, token: &str, identity: Arc<Identity>, since: Instant) {
        let hash = self.hashes.hash_one(token);
        let known = Known { token: token.into(), identity, since };
        let mut tokens = self.lock();
        if !tokens.has_room_for(token) {
            tokens.keep_fresh();
            if !tokens.has_room_for(token) {
                // They are checked again: that costs time, where memory would cost the node.
                tokens.clear();
            }
        }
        tokens.insert(hash, known);
    }

    fn lock(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_until_it_ends_and_the_number_is_bounded() {
        let known = KnownTokens::default();
        let identity = Arc::new(Identity { expires: Some(1000), ..Identity::default() });
        let (token, before) = ("a.b.c", Instant::now());
        known.note(token, identity, before + Duration::from_nanos(1));
        assert!(known.find(token, 999, None).is_some());
        assert!(known.find(token, 999, Some(before)).is_some());
        assert!(known.find(token, 999, Some(Instant::now())).is_none(), "the keys are newer");
        assert!(known.find(token, 1000, None).is_none(), "it has ended");
        assert!(known.find("a.b.d", 999, None).is_none());
        for number in 0..MAX_KNOWN + 10 {
            known.note(&number.to_string(), Arc::default(), before);
            assert!(known.lock().by_hash.len() <= MAX_KNOWN);
        }
        for number in 0..20 {
            known.note(&number.to_string().repeat(MAX_BYTES / 8), Arc::default(), before);
            known.note("the same again", Arc::default(), before);
            let tokens = known.lock();
            assert!(tokens.bytes <= MAX_BYTES);
            assert_eq!(tokens.bytes, tokens.by_hash.values().map(|known| known.token.len()).sum::<usize>());
        }
    }

    #[test]
    fn a_hash_that_two_tokens_share_gives_neither_the_others_identity() {
        let known = KnownTokens::default();
        known.note("a.b.c", Arc::default(), Instant::now());
        let other = known.hashes.hash_one("a.b.d");
        let mut tokens = known.lock();
        let of_the_first = tokens.by_hash.drain().next().unwrap().1;
        tokens.by_hash.insert(other, of_the_first);
        drop(tokens);
        assert!(known.find("a.b.d", 0, None).is_none());
    }
}
