//! What a client may do: found out when it connects, asked before everything it does.

use super::close::CloseReason;
use super::connection::Peer;
use super::error::ApiError;
use super::node::{Node, Settings};
use super::registry::{Admission, Registration};
use super::request::Parameters;
use crate::audit::{Action, Entry};
use crate::auth::{Identity, Permissions, Question, Reason, Refusal, Right};
use crate::event::{Channel, Pattern, UnixMs};
use crate::publish::unix_ms;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// In front of a token that comes as a WebSocket subprotocol: the one header that a page can set there.
const TOKEN_PROTOCOL: &str = "sidewire.token.";

/// What the client is told that may not: the same for what exists and what does not.
const FORBIDDEN: &str = "this is not allowed: ask for a token that allows it";
/// What the client is told that did not say who it is, or not so that it can be believed.
const UNAUTHORIZED: &str = "a valid token is needed: send one as `Authorization: Bearer`, as `token=`, or in the first `auth` message";

/// What a client may do.
#[derive(Clone, Debug)]
pub(super) enum Access {
    /// Everything: nobody is asked.
    Open,
    /// What its identity says.
    Known(Arc<Identity>),
    /// Nothing yet: a WebSocket client may still say who it is.
    Pending,
}

/// A client that was let in.
pub(super) struct Guest {
    /// What it may do.
    pub(super) access: Access,
    /// Its place among the connections.
    pub(super) admission: Admission,
}

/// Something was asked for that is not allowed. What was missing is for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Denied {
    right: Right,
    on: Box<str>,
}

impl Denied {
    /// Clients do not publish to this channel, whatever their token says.
    pub(super) fn by_rule(channel: &Channel) -> Self {
        Self { right: Right::Publish, on: format!("{channel}, by its rule in `channels`").into() }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` on {}", self.right, self.on)
    }
}

impl Access {
    /// Who it is.
    pub(super) fn identity(&self) -> Option<&Arc<Identity>> {
        match self {
            Self::Known(identity) => Some(identity),
            Self::Open | Self::Pending => None,
        }
    }

    /// The user.
    pub(super) fn user(&self) -> Option<&str> {
        self.identity().and_then(|identity| identity.user.as_deref())
    }

    /// What is allowed, where not everything is.
    fn permissions(&self) -> Option<&Permissions> {
        static NOTHING: std::sync::OnceLock<Permissions> = std::sync::OnceLock::new();
        match self {
            Self::Open => None,
            Self::Known(identity) => Some(&identity.permissions),
            Self::Pending => Some(NOTHING.get_or_init(Permissions::default)),
        }
    }

    /// Whether a right is given on all that a pattern can match.
    pub(super) fn allows(&self, right: Right, pattern: &Pattern) -> bool {
        self.permissions().is_none_or(|permissions| permissions.allow(right, pattern))
    }

    /// Refuses unless a right is given on all these patterns.
    pub(super) fn require<'p>(
        &self,
        right: Right,
        patterns: impl IntoIterator<Item = &'p Pattern>,
    ) -> Result<(), Denied> {
        match patterns.into_iter().find(|pattern| !self.allows(right, pattern)) {
            Some(pattern) => Err(Denied { right, on: pattern.as_str().into() }),
            None => Ok(()),
        }
    }

    /// The same for one channel.
    pub(super) fn require_channel(&self, right: Right, channel: &Channel) -> Result<(), Denied> {
        match self.permissions() {
            Some(permissions) if !permissions.allow_channel(right, channel) => {
                Err(Denied { right, on: channel.as_str().into() })
            }
            _ => Ok(()),
        }
    }

    /// The patterns to look through where the client names none; none where that is everything.
    pub(super) fn all_with(&self, right: Right) -> Result<Vec<Pattern>, Denied> {
        let Some(permissions) = self.permissions().filter(|permissions| !permissions.is_everything()) else {
            return Ok(Vec::new());
        };
        let patterns: Vec<Pattern> = permissions.patterns(right).cloned().collect();
        // No pattern at all would mean everything.
        if patterns.is_empty() { Err(Denied { right, on: "any channel".into() }) } else { Ok(patterns) }
    }

    /// How long it lasts from now on; none for ever.
    pub(super) fn lasts(&self, now: UnixMs) -> Option<Duration> {
        let expires = self.identity()?.expires?;
        Some(Duration::from_millis(expires.saturating_sub(now)))
    }
}

impl ApiError {
    /// 401 for who does not say who it is, or not so that it can be believed.
    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", UNAUTHORIZED)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403 for what is not allowed.
    pub(super) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", FORBIDDEN)
    }
}

impl Node {
    /// Enters a client. Its token may have been revoked since it was looked at, when the client was not yet among
    /// those to be told.
    pub(super) fn register(&self, identity: Option<&Arc<Identity>>) -> Registration {
        let registration = self.registry.register();
        self.identify(&registration, identity);
        registration
    }

    /// Notes in the audit log what a client does on some channels.
    pub(super) fn audit_channels(
        &self,
        action: Action,
        registration: &Registration,
        access: &Access,
        channels: &[&str],
    ) {
        if self.audit.is_on() {
            let id = registration.id();
            self.audit.note(&Entry {
                user: access.user(),
                connection: Some(id.as_str()),
                channels,
                ..Entry::new(action)
            });
        }
    }

    /// Notes in the audit log that a client has come or gone.
    pub(super) fn audit_client(
        &self,
        action: Action,
        registration: &Registration,
        user: Option<&str>,
        ip: Option<IpAddr>,
        code: Option<u16>,
    ) {
        if self.audit.is_on() {
            let id = registration.id();
            self.audit.note(&Entry { user, connection: Some(id.as_str()), ip, code, ..Entry::new(action) });
        }
    }

    /// Notes who a client is.
    pub(super) fn identify(&self, registration: &Registration, identity: Option<&Arc<Identity>>) {
        let Some(identity) = identity else { return };
        registration.handle().identify(identity.clone());
        let revoked = |id: &str| self.revocations.contains(id, unix_ms());
        if identity.token_id.as_deref().is_some_and(revoked) {
            registration.handle().close(CloseReason::Unauthorized);
        }
    }

    /// Notes why a client was refused, and gives what the client is told.
    pub(super) fn denied(&self, access: &Access, denied: &Denied) -> ApiError {
        if self.audit.is_on() {
            let reason = denied.to_string();
            self.audit.note(&Entry {
                user: access.user(),
                reason: Some(&reason),
                ..Entry::new(Action::Refused)
            });
        }
        self.refusals.note(access.user(), &format_args!("not allowed: {denied}"));
        ApiError::forbidden()
    }

    /// The same for a client that was not let in at all.
    pub(super) fn refused(&self, refusal: &Refusal) -> ApiError {
        if self.audit.is_on() {
            let reason = refusal.to_string();
            self.audit.note(&Entry { reason: Some(&reason), ..Entry::new(Action::Refused) });
        }
        self.refusals.note(None, refusal);
        match refusal {
            Refusal::Unauthorized(_) => ApiError::unauthorized(),
            Refusal::Unavailable(_) => {
                ApiError::unavailable("unavailable", "who you are cannot be checked now: try again")
            }
        }
    }

    /// Who sends a request. `pending` is what a client without a token gets that may show one later.
    pub(super) async fn access<B>(
        &self,
        settings: &Settings,
        request: &Request<B>,
        peer: Peer,
        parameters: &Parameters<'_>,
        pending: bool,
    ) -> Result<Access, ApiError> {
        let Some(authority) = &settings.authority else { return Ok(Access::Open) };
        let cookie = settings.auth_cookie.as_deref();
        let token = authority.takes_tokens().then(|| token(request.headers(), parameters, cookie)).flatten();
        let Some(token) = token else {
            let channels: Vec<&str> = parameters.list("channel").chain(parameters.list("channels")).collect();
            let (headers, path) = (request.headers(), request.uri().path());
            let question = Question { headers, ip: peer.peer_ip, path, channels: &channels };
            match authority.identify_session(question, unix_ms()).await {
                Ok(Some(identity)) => return Ok(Access::Known(identity)),
                Ok(None) => {}
                Err(refusal) => return Err(self.refused(&refusal)),
            }
            return match authority.anonymous() {
                Some(identity) => Ok(Access::Known(identity.clone())),
                None if pending => Ok(Access::Pending),
                None => Err(self.refused(&Reason::NoToken.into())),
            };
        };
        match authority.identify_again(token, unix_ms()).await {
            Ok(identity) => Ok(Access::Known(identity)),
            Err(refusal) => {
                if let (Some(ip), Refusal::Unauthorized(_)) = (peer.peer_ip, &refusal) {
                    self.registry.offenders().note(ip, Instant::now());
                }
                Err(self.refused(&refusal))
            }
        }
    }
}

/// The token of a request, from the first place that has one. An empty one is one too: it is refused, and not
/// taken for nobody.
fn token<'r>(
    headers: &'r HeaderMap,
    parameters: &'r Parameters<'_>,
    cookie: Option<&str>,
) -> Option<&'r str> {
    let lines = |name| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let bearer = lines(header::AUTHORIZATION).find_map(|value| {
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let protocol = || {
        let mut names = lines(header::SEC_WEBSOCKET_PROTOCOL).flat_map(|line| line.split(','));
        names.find_map(|name| name.trim().strip_prefix(TOKEN_PROTOCOL))
    };
    let cookie = || {
        let wanted = cookie?;
        let mut pairs = lines(header::COOKIE).flat_map(|line| line.split(';'));
        pairs.find_map(|pair| pair.trim().split_once('=').filter(|(name, _)| *name == wanted))
    };
    bearer.or_else(protocol).or_else(|| parameters.raw("token")).or_else(|| cookie().map(|(_, value)| value))
}

/// Whether a subprotocol is a token, and none to be spoken.
pub(super) fn is_token_protocol(name: &str) -> bool {
    name.starts_with(TOKEN_PROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_wherever_a_client_can_put_it() {
        let found = |headers: &[(&'static str, &str)], query: &str| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            let parameters = Parameters::parse(Some(query)).unwrap();
            token(&map, &parameters, Some("session")).map(str::to_owned)
        };
        assert_eq!(found(&[("authorization", "bearer  a.b.c")], "token=d").as_deref(), Some("a.b.c"));
        assert_eq!(found(&[("authorization", "Basic eDp5")], "token=d").as_deref(), Some("d"));
        assert_eq!(
            found(&[("sec-websocket-protocol", "sidewire.v1.json, sidewire.token.a.b.c")], "").as_deref(),
            Some("a.b.c")
        );
        assert_eq!(found(&[("cookie", "x=y; session=a.b.c; z")], "").as_deref(), Some("a.b.c"));
        assert_eq!(found(&[("cookie", "xsession=a; session2=b")], ""), None);
        assert_eq!(found(&[("authorization", "Bearer")], "").as_deref(), Some(""));
        assert_eq!(found(&[], "token=").as_deref(), Some(""));
        assert_eq!(found(&[], ""), None);
    }

    #[test]
    fn nothing_named_is_never_everything() {
        assert_eq!(Access::Open.all_with(Right::History), Ok(Vec::new()));
        assert!(Access::Pending.all_with(Right::History).is_err());
        let nobody = Access::Known(Arc::default());
        assert!(nobody.all_with(Right::History).is_err());
        assert!(!nobody.allows(Right::Subscribe, &Pattern::parse("a").unwrap()));
    }
}
