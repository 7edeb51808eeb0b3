//! The app's own session: the app is asked who a client is, with the headers that the client came with. Where it is
//! asked stands in the configuration and nowhere else.

use super::call::{CallError, CallUrl, Caller, Plain};
use super::identity::Identity;
use super::jitter::jitter;
use super::permissions::GrantTemplate;
use super::refusal::{Reason, Refusal};
use super::token::{Claims, TokenRules};
use crate::event::UnixMs;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use ring::digest::{Context, SHA256};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Most sessions that are kept.
const MAX_KEPT: usize = 10_000;
/// For how long a session may be served from what is kept while the app is down.
const MAX_STALE: Duration = Duration::from_secs(3600);
/// Most calls at a time: the app must not drown in handshakes.
const MAX_CALLS: usize = 64;
/// Failures in a row after which the app is left alone for a while.
const MAX_FAILURES: u32 = 5;
/// For how long, at first and at most.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What happens when the app cannot be asked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum OnError {
    /// Nobody is let in.
    #[default]
    Refuse,
    /// Who was let in not long ago is let in again.
    Cached,
}

/// How the app is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookOptions {
    /// Where.
    pub url: CallUrl,
    /// The headers of the client that it is shown.
    pub headers: Vec<HeaderName>,
    /// How long it may take.
    pub timeout: Duration,
    /// How long its answer counts for the same question.
    pub cache: Duration,
    /// What if it does not answer.
    pub on_error: OnError,
}

/// What the app is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// All headers of the client.
    pub headers: &'q HeaderMap,
    /// Where it comes from.
    pub ip: Option<IpAddr>,
    /// The path of its request.
    pub path: &'q str,
    /// The channels that its URL names.
    pub channels: &'q [&'q str],
}

/// Asks the app.
pub(super) struct Webhook {
    options: WebhookOptions,
    caller: Caller,
    kept: Mutex<HashMap<[u8; 32], Kept, foldhash::fast::RandomState>>,
    calls: Semaphore,
    breaker: Mutex<Breaker>,
}

struct Kept {
    identity: Arc<Identity>,
    since: Instant,
}

#[derive(serde::Deserialize)]
struct Answer {
    user: Option<String>,
    #[serde(default)]
    channels: BTreeMap<String, Vec<String>>,
    expires_in: Option<u64>,
}

/// What the app said.
enum Verdict {
    Known(Box<Answer>),
    /// It knows no such session.
    Nobody,
    /// It does not want this client.
    Refused,
}

impl Webhook {
    pub(super) fn new(options: WebhookOptions) -> Self {
        let caller = Caller::new(options.url.clone(), Plain::PrivateNetwork, options.timeout);
        Self {
            caller,
            options,
            kept: Mutex::default(),
            calls: Semaphore::new(MAX_CALLS),
            breaker: Mutex::default(),
        }
    }

    /// Whether it is the one of this configuration.
    pub(super) fn is(&self, options: &WebhookOptions) -> bool {
        self.options == *options
    }

    /// Who a client is; none if it shows nothing that the app could know it by, or the app knows nobody by that.
    pub(super) async fn identify(
        &self,
        question: Question<'_>,
        rules: &TokenRules,
        default: &[GrantTemplate],
        now: UnixMs,
    ) -> Result<Option<Arc<Identity>>, Refusal> {
        let shown = self.shown(question.headers);
        if shown.is_empty() {
            return Ok(None);
        }
        let key = key(&shown, question);
        if let Some(identity) = self.kept_for(&key, self.options.cache, now) {
            return Ok(Some(identity));
        }
        match self.ask(shown, question).await {
            Ok(Verdict::Known(answer)) => {
                let identity = Arc::new(answer.identity(rules, default, now)?);
                self.keep(key, identity.clone());
                Ok(Some(identity))
            }
            Ok(refusal @ (Verdict::Nobody | Verdict::Refused)) => {
                // It is not to be let in again by what was true before, when the app is down.
                self.lock().remove(&key);
                if matches!(refusal, Verdict::Nobody) { Ok(None) } else { Err(Reason::Session.into()) }
            }
            Err(unavailable) => match self.options.on_error {
                OnError::Refuse => Err(unavailable),
                OnError::Cached => self.kept_for(&key, MAX_STALE, now).map(Some).ok_or(unavailable),
            },
        }
    }

    /// Asks again about whoever was this user.
    pub(super) fn forget(&self, user: &str) {
        self.lock().retain(|_, kept| kept.identity.user.as_deref() != Some(user));
    }

    fn shown(&self, headers: &HeaderMap) -> HeaderMap {
        let mut shown = HeaderMap::new();
        for name in &self.options.headers {
            for value in headers.get_all(name) {
                shown.append(name, value.clone());
            }
        }
        shown
    }

    async fn ask(&self, shown: HeaderMap, question: Question<'_>) -> Result<Verdict, Refusal> {
        let away = Refusal::Unavailable("the app that knows the sessions cannot be asked");
        if !self.breaker().may_call(Instant::now()) {
            return Err(away);
        }
        let Ok(_call) = self.calls.try_acquire() else {
            return Err(Refusal::Unavailable("too many sessions are being asked for at once"));
        };
        let body =
            serde_json::json!({"ip": question.ip, "path": question.path, "channels": question.channels});
        let mut headers = shown;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.caller.call(Method::POST, headers, body.to_string().into()).await;
        match verdict(answer) {
            Ok(verdict) => {
                if self.breaker().succeeded() {
                    tracing::info!(app = %self.caller.url(), "the app that knows the sessions answers again");
                }
                Ok(verdict)
            }
            Err(error) => {
                if let Some(rest) = self.breaker().failed(Instant::now()) {
                    let rest_ms = rest.as_millis() as u64;
                    tracing::warn!(app = %self.caller.url(), error, rest_ms, "the app that knows the sessions does not answer");
                }
                Err(away)
            }
        }
    }

    fn keep(&self, key: [u8; 32], identity: Arc<Identity>) {
        let mut kept = self.lock();
        if kept.len() >= MAX_KEPT {
            let most = match self.options.on_error {
                OnError::Refuse => self.options.cache,
                OnError::Cached => MAX_STALE,
            };
            kept.retain(|_, kept| kept.since.elapsed() < most);
            if kept.len() >= MAX_KEPT {
                // The app is asked again: that costs time, where memory would cost the node.
                kept.clear();
            }
        }
        kept.insert(key, Kept { identity, since: Instant::now() });
    }

    fn kept_for(&self, key: &[u8; 32], most: Duration, now: UnixMs) -> Option<Arc<Identity>> {
        let kept = self.lock();
        let kept =
            kept.get(key).filter(|kept| kept.since.elapsed() < most && !kept.identity.is_expired(now))?;
        Some(kept.identity.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Kept, foldhash::fast::RandomState>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn verdict(answer: Result<(StatusCode, Bytes), CallError>) -> Result<Verdict, String> {
    match answer {
        Ok((StatusCode::OK, body)) => serde_json::from_slice(&body)
            .map(|answer| Verdict::Known(Box::new(answer)))
            // The text of serde has a part of the answer in it.
            .map_err(|_| "its answer is not {\"user\",\"channels\",\"expires_in\"}".into()),
        Ok((StatusCode::UNAUTHORIZED, _)) => Ok(Verdict::Nobody),
        Ok((StatusCode::FORBIDDEN, _)) => Ok(Verdict::Refused),
        Ok((status, _)) => Err(format!("it answered {status}")),
        Err(error) => Err(error.to_string()),
    }
}

impl Answer {
    fn identity(
        self,
        rules: &TokenRules,
        default: &[GrantTemplate],
        now: UnixMs,
    ) -> Result<Identity, Reason> {
        let claims = Claims { sub: self.user, channels: self.channels, ..Claims::default() };
        let expires = self.expires_in.map(|seconds| now.saturating_add(seconds.saturating_mul(1000)));
        Ok(Identity { expires, ..claims.identity(rules, default, now)? })
    }
}

/// What tells one question from every other. Each part is told with its length, so that none runs into the next.
fn key(shown: &HeaderMap, question: Question<'_>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    };
    for (name, value) in shown {
        add(name.as_str().as_bytes());
        add(value.as_bytes());
    }
    add(b"");
    add(question.ip.map(|ip| ip.to_string()).unwrap_or_default().as_bytes());
    add(question.path.as_bytes());
    for channel in question.channels {
        add(channel.as_bytes());
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// Leaves an app alone that does not answer.
#[derive(Default)]
struct Breaker {
    failures: u32,
    /// Not before this.
    closed_until: Option<Instant>,
}

impl Breaker {
    fn may_call(&mut self, now: Instant) -> bool {
        match self.closed_until {
            Some(until) if now < until => false,
            Some(_) => {
                // One tries; the others wait for what becomes of it.
                self.closed_until = Some(now + REST.0);
                true
            }
            None => true,
        }
    }

    /// True when it was failing before.
    fn succeeded(&mut self) -> bool {
        let again = self.closed_until.is_some();
        *self = Self::default();
        again
    }

    /// For how long it is left alone, if it is.
    fn failed(&mut self, now: Instant) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let more = self.failures.checked_sub(MAX_FAILURES)?;
        let rest = REST.0.saturating_mul(1 << more.min(10)).min(REST.1);
        let rest = rest / 2 + jitter(rest / 2);
        self.closed_until = Some(now + rest);
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_fails_is_left_alone_and_tried_again() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 1..MAX_FAILURES {
            assert!(breaker.may_call(start));
            assert_eq!(breaker.failed(start), None);
        }
        let rest = breaker.failed(start).unwrap();
        assert!(!breaker.may_call(start));
        assert!(breaker.may_call(start + rest));
        assert!(!breaker.may_call(start + rest), "one at a time");
        for _ in 0..40 {
            assert!(breaker.failed(start).unwrap() <= REST.1);
        }
        assert!(breaker.succeeded() && breaker.may_call(start));
    }

    #[test]
    fn no_two_questions_are_the_same() {
        let mut cookie = HeaderMap::new();
        cookie.insert("cookie", HeaderValue::from_static("a"));
        let mut more = cookie.clone();
        more.append("cookie", HeaderValue::from_static("b"));
        let mut joined = HeaderMap::new();
        joined.insert("cookie", HeaderValue::from_static("ab"));
        let headers = HeaderMap::new();
        let question = |path, channels| Question { headers: &headers, ip: None, path, channels };
        let keys = [
            key(&cookie, question("/", &["a"])),
            key(&more, question("/", &["a"])),
            key(&joined, question("/", &["a"])),
            key(&cookie, question("/a", &[])),
            key(&cookie, question("/", &["a", "b"])),
            key(&cookie, question("/", &["ab"])),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
        }
    }
}
