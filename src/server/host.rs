//! Who may call a listener, judged by the names in the request: against DNS rebinding (a web page whose host
//! name resolves to loopback) and cross-site requests (a form or beacon of a foreign page).

use super::connection::Peer;
use super::error::ApiError;
use crate::auth::SharedToken;
use crate::config::AllowedOrigin;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode, Version};
use std::net::IpAddr;

/// Who may call a listener that is not for the world.
#[derive(Clone, Default, Debug)]
pub struct PrivateRules {
    /// Host names besides loopback names and its own address.
    pub hosts: Vec<String>,
    /// The system users that are served on a Unix socket; none for all.
    pub uids: Vec<u32>,
    /// The token that must be shown.
    pub token: Option<SharedToken>,
}

/// Checks a request to the app or admin listener: only loopback names, this node's own address and the
/// configured names may be its host, no page of another site may send it, and where a token or a system user is
/// asked for it must have them. `open` paths need no token.
pub(super) fn check_private<B>(
    request: &Request<B>,
    peer: Peer,
    rules: &PrivateRules,
    open: &[&str],
) -> Result<(), ApiError> {
    check_names(request, peer, &rules.hosts)?;
    if !rules.uids.is_empty()
        && peer.local_ip.is_none()
        && peer.peer_uid.is_none_or(|uid| !rules.uids.contains(&uid))
    {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "this system user is not served here; add its number to `allowed_uids` of the listener's section",
        ));
    }
    let Some(token) = rules.token.as_ref().filter(|_| !open.contains(&request.uri().path())) else {
        return Ok(());
    };
    let mut shown = request.headers().get_all(header::AUTHORIZATION).iter();
    let bearer = shown.next().and_then(|value| {
        let (scheme, shown) = value.as_bytes().split_at_checked(b"bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(shown)
    });
    match (bearer, shown.next()) {
        (Some(bearer), None) if token.matches(bearer) => Ok(()),
        _ => Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "this listener wants the token of its `token_file`, as `Authorization: Bearer`",
        )
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
    }
}

fn check_names<B>(request: &Request<B>, peer: Peer, allowed_hosts: &[String]) -> Result<(), ApiError> {
    let host = host_of(request)?;
    let allowed = |name: &str| {
        // Browsers cannot reach a Unix socket.
        let own = |own| name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == own);
        is_loopback_name(name)
            || peer.local_ip.is_none_or(own)
            || allowed_hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
    };
    let names = [host, request.uri().authority().map(|authority| authority.as_str())];
    for name in names.into_iter().flatten() {
        if !allowed(host_name(name)) {
            return Err(ApiError::new(
                StatusCode::MISDIRECTED_REQUEST,
                "wrong_host",
                "this listener answers to loopback names and its own address only; add the name to `allowed_hosts` of its section if it is yours",
            ));
        }
    }
    let headers = request.headers();
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let foreign_site = !matches!(site, None | Some(b"none" | b"same-origin"));
    let foreign_origin = headers.get_all(header::ORIGIN).iter().any(|origin| {
        let authority = origin.to_str().ok().and_then(authority_of);
        !same_authority(authority, host)
    });
    if foreign_site || foreign_origin {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "pages of other sites may not call this listener; browsers belong on the client listener",
        ));
    }
    Ok(())
}

/// Whether a browser's cross-origin request to the client listener is answered.
#[derive(Clone, Debug)]
pub enum OriginPolicy {
    /// As configured.
    Listed(Vec<AllowedOrigin>),
    /// Nothing configured: the listener's own origin, and loopback origins while it listens on loopback.
    Default,
}

/// What a request's origin means for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No browser, or a same-origin request without the header.
    Absent,
    /// An origin that is answered; the header to send back.
    Allowed(HeaderValue),
}

impl OriginPolicy {
    /// Judges the origin of a request.
    pub fn check<B>(&self, request: &Request<B>, peer: Peer) -> Result<Origin, ApiError> {
        let host = host_of(request)?;
        let mut origins = request.headers().get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(Origin::Absent) };
        let text = origin.to_str().ok().filter(|_| origins.next().is_none());
        let allowed = text.is_some_and(|text| match self {
            Self::Listed(listed) => listed.iter().any(|entry| entry.allows(text)),
            Self::Default => authority_of(text).is_some_and(|authority| {
                if peer.local_ip.is_none_or(|ip| ip.is_loopback()) {
                    // Not by comparing with `Host`: with DNS rebinding both are the attacker's.
                    is_loopback_name(host_name(authority))
                } else {
                    same_authority(Some(authority), host)
                }
            }),
        });
        if allowed {
            return Ok(Origin::Allowed(origin.clone()));
        }
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "this origin is not allowed; add it to `client.allowed_origins`",
        ))
    }
}

/// The one `Host` of a request. HTTP/1.0 may go without.
fn host_of<B>(request: &Request<B>) -> Result<Option<&str>, ApiError> {
    let bad = |message: &str| ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message);
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        if request.version() == Version::HTTP_10 {
            return Ok(None);
        }
        return Err(bad("a `Host` header is needed"));
    };
    if hosts.next().is_some() {
        return Err(bad("there must be one `Host` header"));
    }
    Ok(Some(host.to_str().map_err(|_| bad("`Host` must be printable ASCII"))?))
}

/// `scheme://authority` without the scheme.
fn authority_of(origin: &str) -> Option<&str> {
    let (scheme, authority) = origin.split_once("://")?;
    matches!(scheme, "http" | "https").then_some(authority)
}

/// Names are the same in any case (RFC 9110, section 4.2.3).
fn same_authority(origin: Option<&str>, host: Option<&str>) -> bool {
    matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
}

/// The name in `name[:port]`.
fn host_name(authority: &str) -> &str {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or("", |(address, _)| address);
    }
    authority.split_once(':').map_or(authority, |(name, _)| name)
}

fn is_loopback_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Adds what browsers need to an answer. `credentials` lets pages of an allowed origin send their cookies.
pub(super) fn allow_origin(headers: &mut HeaderMap, origin: &Origin, credentials: bool) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Origin::Allowed(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: Peer = Peer {
        local_ip: Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
        peer_ip: Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
        peer_uid: None,
    };

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    fn private(uri: &str, headers: &[(&str, &str)]) -> u16 {
        let rules = PrivateRules { hosts: vec!["broker.internal".into()], ..PrivateRules::default() };
        match check_private(&request(uri, headers), LOOPBACK, &rules, &[]) {
            Ok(()) => 200,
            Err(error) => error.status.as_u16(),
        }
    }

    #[test]
    fn only_our_names_reach_the_app() {
        for host in [
            "localhost",
            "LocalHost:7070",
            "127.0.0.1:7070",
            "127.8.9.1",
            "[::1]:7070",
            "broker.internal",
            "localhost.",
        ] {
            assert_eq!(private("/", &[("host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7070",
            "EVIL.example.",
            "localhost.evil.example",
            "0.0.0.0:7070",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "10.0.0.1",
            "",
        ] {
            assert_eq!(private("/", &[("host", host)]), 421, "{host}");
        }
        assert_eq!(private("http://evil.example/", &[("host", "localhost")]), 421);
        assert_eq!(private("/", &[("host", "localhost"), ("host", "evil.example")]), 400);
        assert_eq!(private("/", &[]), 400);
    }

    #[test]
    fn foreign_pages_do_not_reach_the_app() {
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://localhost:3000"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(private("/", &[("host", "localhost:7070"), (name, value)]), 403, "{name}: {value}");
        }
        assert_eq!(private("/", &[("host", "localhost:7070"), ("origin", "http://localhost:7070")]), 200);
        assert_eq!(private("/", &[("host", "localhost:7070"), ("sec-fetch-site", "none")]), 200);
    }

    #[test]
    fn origins_of_the_client_listener() {
        let allowed = |policy: &OriginPolicy, origin: &str| {
            policy
                .check(&request("/", &[("host", "evil.example:7080"), ("origin", origin)]), LOOPBACK)
                .is_ok()
        };
        let default = OriginPolicy::Default;
        assert!(allowed(&default, "http://localhost:3000"));
        assert!(allowed(&default, "https://[::1]:8443"));
        for origin in
            ["http://evil.example:7080", "null", "file://", "http://localhost.evil.example", "http://0.0.0.0"]
        {
            assert!(!allowed(&default, origin), "{origin}");
        }
        let listed = OriginPolicy::Listed(vec![AllowedOrigin::Exact("https://app.example.com".into())]);
        assert!(allowed(&listed, "https://app.example.com"));
        for origin in [
            "https://app.example.com.evil",
            "http://app.example.com",
            "https://evil-app.example.com",
            "http://localhost",
        ] {
            assert!(!allowed(&listed, origin), "{origin}");
        }
        assert!(allowed(&OriginPolicy::Listed(vec![AllowedOrigin::Any]), "null"));
    }
}
