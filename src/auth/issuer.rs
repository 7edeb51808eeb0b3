//! The keys that an issuer publishes (a JWKS): fetched when they are first needed, kept, and fetched again when a
//! token names one that is not among them. What is known goes on counting while the issuer is away.

use super::call::{CallUrl, Caller, Plain};
use super::jitter::jitter;
use super::keys::{Algorithm, VerificationKey};
use super::refusal::{Reason, Refusal};
use super::token::{Claims, TokenRules, Unverified};
use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long one fetch may take: handshakes wait for it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// So old keys are fetched again behind the scenes, so that one that was withdrawn does not count for ever.
const REFRESH: Duration = Duration::from_secs(10 * 60);
/// Fetches in a row, whatever tokens with made-up names come.
const BURST: u32 = 4;
/// After those, one in this time.
const PAUSE: Duration = Duration::from_secs(15);

/// The keys of one issuer.
pub(super) struct Issuer {
    caller: Caller,
    allowed: Vec<Algorithm>,
    known: RwLock<Option<Known>>,
    /// Held while fetching: who comes meanwhile waits and takes what was brought.
    fetching: tokio::sync::Mutex<()>,
    allowance: Mutex<Allowance>,
}

#[derive(Clone)]
struct Known {
    keys: Arc<[VerificationKey]>,
    since: Instant,
}

impl Issuer {
    pub(super) fn new(url: CallUrl, allowed: Vec<Algorithm>) -> Self {
        Self {
            caller: Caller::new(url, Plain::Loopback, TIMEOUT),
            allowed,
            known: RwLock::default(),
            fetching: tokio::sync::Mutex::default(),
            allowance: Mutex::new(Allowance { left: BURST, next: Instant::now() }),
        }
    }

    /// Whether it is the one of this configuration.
    pub(super) fn is(&self, url: &CallUrl, allowed: &[Algorithm]) -> bool {
        self.caller.url() == url && self.allowed == allowed
    }

    /// When the keys that count were fetched.
    pub(super) fn keys_since(&self) -> Option<Instant> {
        self.known().map(|known| known.since)
    }

    /// The claims of a token, if one of the published keys fits.
    pub(super) async fn verify(
        self: &Arc<Self>,
        token: &Unverified<'_>,
        rules: &TokenRules,
    ) -> Result<Claims, Refusal> {
        let known = match self.known() {
            Some(known) => known,
            None => self
                .fetch(None)
                .await
                .ok_or(Refusal::Unavailable("the keys of the issuer cannot be fetched"))?,
        };
        if known.since.elapsed() >= REFRESH {
            let (issuer, keys) = (self.clone(), known.keys.clone());
            tokio::spawn(async move { issuer.fetch(Some(&keys)).await });
        }
        let reason = match verify(&known.keys, token, rules) {
            Err(reason @ (Reason::NoKey | Reason::Signature)) => reason,
            done => return Ok(done?),
        };
        // A key that goes by its name is not expected to have become another.
        let named =
            |keys: &[VerificationKey]| keys.iter().any(|key| key.id.as_deref() == token.key_id.as_deref());
        if token.key_id.is_none() || named(&known.keys) {
            return Err(reason.into());
        }
        match self.fetch(Some(&known.keys)).await {
            Some(fresh) => Ok(verify(&fresh.keys, token, rules)?),
            None => Err(reason.into()),
        }
    }

    fn known(&self) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the keys, unless somebody else has since `seen`, or too many fetches came before.
    async fn fetch(&self, seen: Option<&Arc<[VerificationKey]>>) -> Option<Known> {
        let _alone = self.fetching.lock().await;
        if let Some(known) = self.known()
            && seen.is_none_or(|seen| !Arc::ptr_eq(seen, &known.keys))
        {
            return Some(known);
        }
        if !self.allowance.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) {
            return None;
        }
        let keys = match self.caller.call(Method::GET, HeaderMap::new(), Bytes::new()).await {
            Ok((StatusCode::OK, body)) => {
                VerificationKey::set(&body, &self.allowed).map_err(|error| error.to_string())
            }
            Ok((status, _)) => Err(format!("it answered {status}")),
            Err(error) => Err(error.to_string()),
        };
        match keys {
            Ok(keys) => {
                tracing::info!(issuer = %self.caller.url(), keys = keys.len(), "fetched the keys of the issuer");
                let known = Known { keys: keys.into(), since: Instant::now() };
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known.clone());
                Some(known)
            }
            Err(error) => {
                tracing::warn!(issuer = %self.caller.url(), error, "the keys of the issuer cannot be fetched; those that are known go on counting");
                None
            }
        }
    }
}

fn verify(keys: &[VerificationKey], token: &Unverified<'_>, rules: &TokenRules) -> Result<Claims, Reason> {
    let called = |key: &&VerificationKey| match (token.key_id.as_deref(), key.id.as_deref()) {
        (Some(wanted), Some(id)) => wanted == id,
        _ => true,
    };
    token.verify(keys.iter().filter(called), rules)
}

/// How often the issuer may be asked.
struct Allowance {
    left: u32,
    /// When there is one more.
    next: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST && now >= self.next {
            self.left += 1;
            // Not all nodes at the same moment.
            self.next += PAUSE + jitter(PAUSE / 2);
        }
        if self.left == 0 {
            return false;
        }
        if self.left == BURST {
            self.next = now + PAUSE + jitter(PAUSE / 2);
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_key_names_do_not_make_a_flood() {
        let start = Instant::now();
        let mut allowance = Allowance { left: BURST, next: start };
        let taken = |allowance: &mut Allowance, at| (0..100).filter(|_| allowance.take(start + at)).count();
        assert_eq!(taken(&mut allowance, Duration::ZERO), BURST as usize);
        assert_eq!(taken(&mut allowance, PAUSE - Duration::from_millis(1)), 0);
        assert_eq!(taken(&mut allowance, PAUSE * 3 / 2), 1);
        assert_eq!(taken(&mut allowance, PAUSE * 100), BURST as usize);
    }
}
