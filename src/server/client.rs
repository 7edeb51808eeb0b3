//! The client listener: WebSocket, SSE, long-poll, NDJSON, and what is kept.

use super::access::{Access, Guest};
use super::connection::{Handler, Peer, Reply};
use super::error::ApiError;
use super::forwarded::client_ip;
use super::host::{Origin, allow_origin};
use super::node::{Node, Settings};
use super::one_way::{self, Kind};
use super::registry::{Admission, AdmissionLimits, Refused};
use super::request::{Parameters, path_channel};
use super::request_subscription::{Asked, Format};
use super::{client_publish, history, poll, websocket};
use crate::event::{EventName, Pattern};
use crate::subscribe::Had;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Answers clients.
pub struct Client {
    node: Arc<Node>,
    /// It was said that a proxy is taken for a client.
    told_of_proxy: AtomicBool,
}

impl Client {
    /// The client listener of a node.
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self { node, told_of_proxy: AtomicBool::new(false) })
    }

    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Reply {
        let settings = self.node.settings();
        let origin = match settings.origins.check(&request, peer) {
            Ok(origin) => origin,
            Err(error) => return Reply::Http(self.node.count_and_answer(error)),
        };
        let mut unheard_proxy = None;
        let result = if request.method() == Method::OPTIONS {
            Ok(Reply::Http(preflight(request.headers())))
        } else {
            // From here on it is about who the client is, and no longer about which of our addresses it used.
            let peer_ip = client_ip(peer.peer_ip, request.headers(), &settings.proxies);
            // What it says of others was not believed, so it stands for all of them.
            if peer_ip == peer.peer_ip && is_passed_on(request.headers()) {
                unheard_proxy = peer_ip;
            }
            let banned = peer_ip.and_then(|ip| {
                let offenders = self.node.registry.offenders();
                offenders.banned(ip, settings.offences_per_ip, settings.ban, Instant::now())
            });
            match banned {
                Some(left) => Err(cut_off(left)),
                None => self.route(request, Peer { peer_ip, ..peer }, &settings, &origin).await,
            }
        };
        let mut response = match result {
            Ok(Reply::Http(response)) => response,
            Ok(takeover) => return takeover,
            Err(error) => {
                if error.code == "rate_limited" {
                    self.suspect_a_proxy(unheard_proxy);
                }
                self.node.count_and_answer(error)
            }
        };
        allow_origin(response.headers_mut(), &origin, settings.credentials);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Reply::Http(response)
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        peer: Peer,
        settings: &Settings,
        origin: &Origin,
    ) -> Result<Reply, ApiError> {
        let path = request.uri().path().to_owned();
        let get = request.method() == Method::GET;
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let transport = match &*segments {
            ["v1", "ws"] => Some(Endpoint::WebSocket),
            ["v1", "sse"] => Some(Endpoint::Sse),
            ["v1", "poll"] => Some(Endpoint::Poll),
            ["v1", "stream"] => Some(Endpoint::Stream),
            _ => None,
        };
        if let Some(endpoint) = transport {
            if !get {
                return Err(ApiError::method_not_allowed("GET"));
            }
            return self.connect(request, endpoint, None, peer, settings, origin).await;
        }
        match &*segments {
            ["v1", "events"] if get => {
                let access = self.access(&request, peer, settings).await?;
                history::events(&self.node, request.uri().query(), &access).await.map(Reply::Http)
            }
            ["v1", "channels", channel, "last"] if get => {
                let access = self.access(&request, peer, settings).await?;
                history::last(&self.node, path_channel(channel)?, request.uri().query(), &access)
                    .await
                    .map(Reply::Http)
            }
            ["v1", "events"] | ["v1", "channels", _, "last"] => Err(ApiError::method_not_allowed("GET")),
            ["v1", "publish"] if request.method() == Method::POST => {
                let access = self.access(&request, peer, settings).await?;
                let admission = self.admit(peer, settings)?;
                let response = client_publish::publish(&self.node, settings, &access, request).await;
                drop(admission);
                response.map(Reply::Http)
            }
            ["v1", "publish"] => Err(ApiError::method_not_allowed("POST")),
            _ => {
                let Some((channel, close_on)) = settings
                    .routes
                    .iter()
                    .find_map(|route| Some((route.channel_for(&path)?, Arc::from(&*route.close_on))))
                else {
                    return Err(ApiError::not_found(
                        "there is nothing at this path; clients connect to /v1/ws, /v1/sse, /v1/poll or /v1/stream",
                    ));
                };
                if !get {
                    return Err(ApiError::method_not_allowed("GET"));
                }
                let endpoint = Endpoint::of(request.headers(), request.uri().query());
                self.connect(request, endpoint, Some((channel, close_on)), peer, settings, origin).await
            }
        }
    }

    async fn access(
        &self,
        request: &Request<Incoming>,
        peer: Peer,
        settings: &Settings,
    ) -> Result<Access, ApiError> {
        let parameters = Parameters::parse(request.uri().query())?;
        self.node.access(settings, request, peer, &parameters, false).await
    }

    async fn connect(
        &self,
        request: Request<Incoming>,
        endpoint: Endpoint,
        route: Option<(Pattern, Arc<[EventName]>)>,
        peer: Peer,
        settings: &Settings,
        origin: &Origin,
    ) -> Result<Reply, ApiError> {
        let parameters = Parameters::parse(request.uri().query())?;
        let may_wait = endpoint == Endpoint::WebSocket;
        let access = self.node.access(settings, &request, peer, &parameters, may_wait).await?;
        let asked = Asked::read(&parameters, request.headers(), route, settings.subscriptions)?;
        let handshake = match endpoint {
            Endpoint::WebSocket => Some(websocket::handshake(&request, asked.format, origin)?),
            _ => {
                asked.require_channels()?;
                None
            }
        };
        if !matches!(access, Access::Pending) {
            asked.check(&access).map_err(|denied| self.node.denied(&access, &denied))?;
        }
        if self.node.is_draining() {
            // No answer at all: a browser's `EventSource` comes back after a broken connection, but never
            // after a 503 (WHATWG HTML, section 9.2.3).
            return Ok(Reply::Takeover(Box::new(|stream, _| drop(stream))));
        }
        let admission = self.admit(peer, settings)?;
        let node = self.node.clone();
        Ok(match (endpoint, handshake) {
            (Endpoint::WebSocket, Some(handshake)) => {
                Reply::Takeover(websocket::begin(node, handshake, asked, Guest { access, admission }).await)
            }
            (Endpoint::Poll, _) => {
                let response = poll::poll(&node, asked, &parameters, &access).await;
                drop(admission);
                Reply::Http(response?)
            }
            (Endpoint::Sse, _) => {
                if asked.format == Format::MessagePack {
                    return Err(ApiError::parameter(
                        "invalid_parameter",
                        "format",
                        "SSE carries text: use format=json",
                    ));
                }
                if self.is_over(&asked).await? {
                    return Ok(Reply::Http(no_content()));
                }
                let kind = match parameters.get("data") {
                    None | Some("event") => Kind::Sse,
                    Some("raw") => Kind::SseRaw,
                    Some(_) => {
                        return Err(ApiError::parameter(
                            "invalid_parameter",
                            "data",
                            "`data` is event or raw",
                        ));
                    }
                };
                Reply::Takeover(
                    one_way::begin(node, kind, asked, Guest { access, admission }, origin.clone()).await,
                )
            }
            (Endpoint::Stream | Endpoint::WebSocket, _) => {
                let kind = Kind::stream(asked.format);
                Reply::Takeover(
                    one_way::begin(node, kind, asked, Guest { access, admission }, origin.clone()).await,
                )
            }
        })
    }

    /// Whether a browser comes back to a channel that it has seen end: 204 tells an `EventSource` to stop,
    /// where closing would bring it back again and again (WHATWG HTML, section 9.2.3).
    async fn is_over(&self, asked: &Asked) -> Result<bool, ApiError> {
        let (Some(cursor), [Pattern::Exact(channel)]) = (&asked.cursor, &*asked.patterns) else {
            return Ok(false);
        };
        if asked.close_on.is_empty() {
            return Ok(false);
        }
        let (log, channel, cursor) = (self.node.source.log.clone(), channel.clone(), cursor.clone());
        let had = Had::of(&cursor);
        // While the bus is away the end may have been shown, and not be in the log yet.
        let early = self.node.source.hub.early().newest_of(&channel);
        if let (Some((sender, last)), Some(had)) = (early, &had)
            && had.has_of(sender)
            && asked.close_on.contains(&last.event.name)
        {
            return Ok(true);
        }
        let read = move || Ok((log.last(&channel)?, log.position_of(&cursor)?));
        let (last, position) = history::blocking(read).await?;
        Ok(last.is_some_and(|last| {
            let has = had.is_some_and(|had| had.has(&last));
            (has || position.is_some_and(|position| last.position <= position))
                && asked.close_on.contains(&last.name)
        }))
    }

    fn admit(&self, peer: Peer, settings: &Settings) -> Result<Admission, ApiError> {
        let limits = AdmissionLimits {
            total: settings.connections,
            per_ip: settings.connections_per_ip,
            handshakes_per_ip: settings.handshakes_per_ip,
        };
        self.node.registry.admit(peer.peer_ip, limits).map_err(|refused| match refused {
            Refused::Full => ApiError::unavailable(
                "unavailable",
                "this node has as many clients as `limits.connections` allows: try again later",
            ),
            Refused::TooOften => ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "this address connects too often: wait, or raise `limits.handshakes_per_ip`",
            )
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")),
            Refused::AddressFull => ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "too many connections from this address: close some, or raise `limits.connections_per_ip`",
            )
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("5")),
        })
    }
}

impl Client {
    /// Says once that an address which is refused for what it takes looks like a proxy.
    fn suspect_a_proxy(&self, ip: Option<IpAddr>) {
        let Some(ip) = ip else { return };
        if !self.told_of_proxy.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                address = %ip,
                "clients are refused as too many of one address, which passes on the requests of others: if it is your proxy, name it in client.trusted_proxies"
            );
        }
    }
}

/// Whether a request says that a proxy passed it on.
fn is_passed_on(headers: &HeaderMap) -> bool {
    headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED)
}

/// The answer to an address that has misbehaved.
fn cut_off(left: Duration) -> ApiError {
    let error = ApiError::new(
        StatusCode::TOO_MANY_REQUESTS,
        "rate_limited",
        "this address was refused too often and is cut off for a while: see `limits.offences_per_ip`",
    );
    error.with_header(header::RETRY_AFTER, HeaderValue::from(left.as_secs() + 1))
}

/// What a client connects to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    WebSocket,
    Sse,
    Poll,
    Stream,
}

impl Endpoint {
    /// What a request to one of the app's own URLs wants: as its headers say, else a poll, which is what a
    /// plain GET expects: the state, or the next event.
    fn of(headers: &HeaderMap, query: Option<&str>) -> Self {
        let contains = |name, word: &str| {
            headers.get_all(name).iter().any(|value: &HeaderValue| {
                value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains(word))
            })
        };
        let transport = form_urlencoded::parse(query.unwrap_or("").as_bytes())
            .find(|(name, _)| name == "transport")
            .map(|(_, value)| value.into_owned());
        match transport.as_deref() {
            Some("sse") => Self::Sse,
            Some("stream") => Self::Stream,
            Some("poll") => Self::Poll,
            _ if contains(header::UPGRADE, "websocket") => Self::WebSocket,
            _ if contains(header::ACCEPT, "text/event-stream") => Self::Sse,
            _ if contains(header::ACCEPT, "application/x-ndjson") => Self::Stream,
            _ => Self::Poll,
        }
    }
}

fn preflight(asked: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = no_content();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "authorization, content-type, idempotency-key, last-event-id, cache-control",
        ),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    if asked.contains_key("access-control-request-private-network") {
        headers.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
    }
    response
}

fn no_content() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

impl Handler for Client {
    async fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Reply {
        self.answer(request, peer).await
    }
}
