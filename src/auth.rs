//! Who may do what: tokens into identities, identities into permissions.
//!
//! An [`Authority`] knows the keys and turns a token into an [`Identity`]: a user and what is allowed, until when.
//! Whoever serves a client asks the identity's [`Permissions`]; nothing here knows a listener or a transport.
//! Without a configured authority nobody is asked at all.
//!
//! A token decides nothing about how it is checked: each key knows the algorithms it is for, a key id is a name to
//! look up and nothing else, and keys or addresses of keys in a token are not looked at.

mod call;
mod cryptography;
mod identity;
mod issuer;
mod jitter;
mod keys;
mod known;
mod permissions;
mod refusal;
mod revocations;
mod shared_token;
mod token;
mod webhook;

pub(crate) use call::system_roots;
pub use call::{CallUrl, CallUrlError};
pub use identity::Identity;
pub(crate) use jitter::jitter;
pub use keys::{Algorithm, AlgorithmError, KeyError};
pub use permissions::{Grant, GrantError, GrantTemplate, Permissions, Right, Rights};
pub use refusal::{Reason, Refusal};
pub use revocations::{Revocation, Revocations, RevokeError};
pub use shared_token::SharedToken;
pub use token::{Claims, SignError, TokenRules, sign};
pub use webhook::{OnError, Question, WebhookOptions};

use crate::event::UnixMs;
use issuer::Issuer;
use keys::VerificationKey;
use known::KnownTokens;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use token::Unverified;
use webhook::Webhook;

/// Where the keys are, and what holds beside them.
#[derive(Clone, Default, Debug)]
pub struct AuthOptions {
    /// A secret shared with the issuer; empty for none.
    pub secret: String,
    /// The same in a file; an empty path for none.
    pub secret_file: PathBuf,
    /// A public key of the issuer, in PEM; an empty path for none.
    pub public_key_file: PathBuf,
    /// Where the issuer publishes its keys.
    pub jwks_url: Option<CallUrl>,
    /// How the app is asked who a client is; none where it is not.
    pub webhook: Option<WebhookOptions>,
    /// The algorithms that are allowed; none for all that fit a key.
    pub algorithms: Vec<Algorithm>,
    /// What a token must say.
    pub rules: TokenRules,
    /// What everybody with a token may do.
    pub default: Vec<GrantTemplate>,
    /// What everybody may do.
    pub anonymous: Vec<GrantTemplate>,
}

/// Decides who somebody is.
pub struct Authority {
    keys: Vec<VerificationKey>,
    issuer: Option<Arc<Issuer>>,
    webhook: Option<Arc<Webhook>>,
    rules: TokenRules,
    default: Vec<GrantTemplate>,
    anonymous: Option<Arc<Identity>>,
    revocations: Arc<Revocations>,
    known: KnownTokens,
}

/// Why there is no authority with these options.
#[derive(Debug)]
pub enum AuthError {
    /// A file cannot be read.
    File {
        /// The key of the configuration that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A key cannot be used.
    Key {
        /// The key of the configuration.
        key: &'static str,
        /// Why.
        error: KeyError,
    },
    /// A grant for everybody cannot be given.
    Anonymous(GrantError),
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { key, path, error } => write!(f, "{key}: {} cannot be read: {error}", path.display()),
            Self::Key { key, error } => write!(f, "{key}: {error}"),
            Self::Anonymous(error) => write!(f, "auth.anonymous: {error}"),
        }
    }
}

impl std::error::Error for AuthError {}

/// Reads a secret from its file, without the line break that editors put at the end.
pub fn read_secret(key: &'static str, path: &Path) -> Result<Vec<u8>, AuthError> {
    let mut secret = read(key, path)?;
    if secret.ends_with(b"\n") {
        secret.pop();
        if secret.ends_with(b"\r") {
            secret.pop();
        }
    }
    Ok(secret)
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, AuthError> {
    std::fs::read(path).map_err(|error| AuthError::File { key, path: path.into(), error })
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads the keys. Keys that `before` has fetched go on counting, so that a reload while the issuer is away
    /// locks nobody out.
    pub fn new(
        options: &AuthOptions,
        revocations: Arc<Revocations>,
        before: Option<&Self>,
    ) -> Result<Self, AuthError> {
        let allowed = &options.algorithms;
        let mut keys = Vec::new();
        let mut add = |key, found: Result<VerificationKey, KeyError>| match found {
            Ok(found) => {
                keys.push(found);
                Ok(())
            }
            Err(error) => Err(AuthError::Key { key, error }),
        };
        if !options.secret.is_empty() {
            add("auth.secret", VerificationKey::secret(options.secret.as_bytes(), allowed))?;
        }
        if !options.secret_file.as_os_str().is_empty() {
            let secret = read_secret("auth.secret_file", &options.secret_file)?;
            add("auth.secret_file", VerificationKey::secret(&secret, allowed))?;
        }
        if !options.public_key_file.as_os_str().is_empty() {
            let text = read("auth.public_key_file", &options.public_key_file)?;
            add("auth.public_key_file", VerificationKey::pem(&text, allowed))?;
        }
        let issuer = options.jwks_url.as_ref().map(|url| {
            let kept =
                before.and_then(|before| before.issuer.clone()).filter(|issuer| issuer.is(url, allowed));
            kept.unwrap_or_else(|| Arc::new(Issuer::new(url.clone(), allowed.clone())))
        });
        let webhook = options.webhook.as_ref().map(|options| {
            let kept = before.and_then(|before| before.webhook.clone()).filter(|webhook| webhook.is(options));
            kept.unwrap_or_else(|| Arc::new(Webhook::new(options.clone())))
        });
        let anonymous =
            options.anonymous.iter().map(|template| template.fill(None)).collect::<Result<Vec<_>, _>>();
        let anonymous = Permissions::new(anonymous.map_err(AuthError::Anonymous)?);
        let anonymous = (!anonymous.is_empty())
            .then(|| Arc::new(Identity { permissions: anonymous, ..Identity::default() }));
        Ok(Self {
            keys,
            issuer,
            webhook,
            rules: options.rules.clone(),
            default: options.default.clone(),
            anonymous,
            revocations,
            known: KnownTokens::default(),
        })
    }

    /// Whoever comes without a token; none if nobody may.
    pub fn anonymous(&self) -> Option<&Arc<Identity>> {
        self.anonymous.as_ref()
    }

    /// Whether there is any key, so that a token may be one of ours.
    pub fn takes_tokens(&self) -> bool {
        !self.keys.is_empty() || self.issuer.is_some()
    }

    /// Who comes with this session of the app, at `now`; none if the app is not asked, or knows nobody.
    pub async fn identify_session(
        &self,
        question: Question<'_>,
        now: UnixMs,
    ) -> Result<Option<Arc<Identity>>, Refusal> {
        match &self.webhook {
            Some(webhook) => webhook.identify(question, &self.rules, &self.default, now).await,
            None => Ok(None),
        }
    }

    /// Forgets what the app said of the sessions of a user: who comes back is asked about.
    pub fn forget_sessions(&self, user: &str) {
        if let Some(webhook) = &self.webhook {
            webhook.forget(user);
        }
    }

    /// Who comes with this token, at `now`.
    pub async fn identify(&self, token: &str, now: UnixMs) -> Result<Identity, Refusal> {
        let token = Unverified::read(token)?;
        let claims = match (token.verify(self.keys.iter(), &self.rules), &self.issuer) {
            (Err(Reason::NoKey | Reason::Signature), Some(issuer)) => {
                issuer.verify(&token, &self.rules).await?
            }
            (claims, _) => claims?,
        };
        let identity = claims.identity(&self.rules, &self.default, now)?;
        if self.is_revoked(&identity, now) {
            return Err(Reason::Revoked.into());
        }
        Ok(identity)
    }

    /// The same for a token that comes with a request, as it may have come with the one before.
    pub async fn identify_again(&self, token: &str, now: UnixMs) -> Result<Arc<Identity>, Refusal> {
        let keys_since = self.issuer.as_ref().and_then(|issuer| issuer.keys_since());
        if let Some(identity) = self.known.find(token, now, keys_since) {
            return match self.is_revoked(&identity, now) {
                true => Err(Reason::Revoked.into()),
                false => Ok(identity),
            };
        }
        let begun = Instant::now();
        let identity = Arc::new(self.identify(token, now).await?);
        self.known.note(token, identity.clone(), begun);
        Ok(identity)
    }

    /// Whether the token behind an identity was revoked.
    pub fn is_revoked(&self, identity: &Identity, now: UnixMs) -> bool {
        identity.token_id.as_deref().is_some_and(|id| self.revocations.contains(id, now))
    }
}
