//! The app listener: publish, history, control.

use super::access::Access;
use super::connection::{Handler, Peer, Reply};
use super::error::{ApiError, json};
use super::history;
use super::host::check_private;
use super::node::{Node, Settings};
use super::publish;
use super::request::{Parameters, path_channel, read_body};
use crate::auth::{Revocation, RevokeError};
use crate::bus::Outcome;
use crate::control::{Control, Name, Whom};
use crate::publish::unix_ms;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;

/// How long a token stays revoked of which nobody says when it ends, in milliseconds: longer than tokens should
/// be good for.
const REVOKED_FOR: u64 = 30 * 24 * 3_600_000;

/// Answers the app.
pub struct App {
    node: Arc<Node>,
}

impl App {
    /// The app listener of a node.
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self { node })
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let settings = self.node.settings();
        check_private(&request, peer, &settings.app, &[])?;
        // What nearly every request is goes first, before the path is taken apart.
        if request.method() == Method::POST && request.uri().path() == "/v1/publish" {
            return publish::publish(&self.node, &settings, request).await;
        }
        // Boxed, so that a publish does not carry the room for all the others.
        Box::pin(self.route(request, &settings)).await
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        settings: &Settings,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (&method, &*segments) {
            (&Method::POST, ["v1", "channels", channel]) if !channel.is_empty() => {
                publish::publish_raw(&self.node, settings, path_channel(channel)?.as_str(), request).await
            }
            (&Method::GET, ["v1", "events"]) => {
                history::events(&self.node, request.uri().query(), &Access::Open).await
            }
            (&Method::DELETE, ["v1", "events"]) => history::delete(&self.node, request.uri().query()).await,
            (&Method::GET, ["v1", "channels"]) => self.channels(request.uri().query()),
            (&Method::GET, ["v1", "channels", channel, "last"]) => {
                history::last(&self.node, path_channel(channel)?, request.uri().query(), &Access::Open).await
            }
            (&Method::POST, ["v1", "disconnect"]) => self.disconnect(request, settings).await,
            (_, ["v1", "publish" | "disconnect"]) => Err(ApiError::method_not_allowed("POST")),
            (_, ["v1", "channels", channel]) if !channel.is_empty() => {
                Err(ApiError::method_not_allowed("POST"))
            }
            (_, ["v1", "events"]) => Err(ApiError::method_not_allowed("GET, DELETE")),
            (_, ["v1", "channels"] | ["v1", "channels", _, "last"]) => {
                Err(ApiError::method_not_allowed("GET"))
            }
            _ => Err(ApiError::not_found(
                "there is nothing at this path of the app listener; publishes go to POST /v1/publish",
            )),
        }
    }

    fn channels(&self, query: Option<&str>) -> Result<Response<Full<Bytes>>, ApiError> {
        let parameters = Parameters::parse(query)?;
        let most = parameters.number("limit", 10_000)?.unwrap_or(1000) as usize;
        let channels: Vec<_> = self
            .node
            .source
            .hub
            .live(parameters.get("prefix").unwrap_or(""), most)
            .into_iter()
            .map(|(channel, subscribers)| serde_json::json!({"channel": channel, "subscribers": subscribers}))
            .collect();
        Ok(json(StatusCode::OK, serde_json::json!({"channels": channels}).to_string()))
    }

    /// Cuts somebody off, here at once and then on all nodes of the bus.
    async fn disconnect(
        &self,
        request: Request<Incoming>,
        settings: &Settings,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        #[derive(serde::Deserialize)]
        struct Disconnect {
            connection: Option<String>,
            user: Option<String>,
            /// The id of a token, which counts no longer.
            jti: Option<String>,
            /// Until when it would count by itself, in seconds since 1970 as in its `exp`.
            exp: Option<u64>,
        }
        let body = read_body(request.into_body(), settings.body_bytes, settings.body_timeout).await?;
        let asked: Disconnect = serde_json::from_slice(&body).map_err(|error| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "invalid_json",
                format!(
                    "send {{\"user\": \"..\"}}, {{\"connection\": \"..\"}} or {{\"jti\": \"..\"}}: {error}"
                ),
            )
        })?;
        let (control, done) = match (asked.connection, asked.user, asked.jti) {
            (Some(connection), None, None) => self.close(Whom::Connection(name("connection", &connection)?)),
            (None, Some(user), None) => self.close(Whom::User(name("user", &user)?)),
            (None, None, Some(id)) => self.revoke(&id, asked.exp).await?,
            _ => {
                return Err(ApiError::parameter(
                    "invalid_parameter",
                    "user",
                    "name one of `user`, `connection` (as told in `welcome`) and `jti` (the id of a token)",
                ));
            }
        };
        // Whatever became of it here, the others are told.
        let (status, word) = match self.node.publisher.tell_nodes(&control).await {
            Ok(Outcome::Queued) => (StatusCode::ACCEPTED, "queued"),
            Ok(Outcome::Published(_) | Outcome::Confirmed | Outcome::Duplicate(_)) => {
                (StatusCode::OK, "published")
            }
            refused => {
                tracing::warn!(?refused, "the other nodes of the bus could not be told whom to cut off");
                return Err(ApiError::unavailable(
                    "unavailable",
                    "this is done on this node, but neither the bus nor the outbox takes it for the others: repeat it",
                ));
            }
        };
        let body = serde_json::json!({"disconnected": done?, "status": word});
        Ok(json(status, body.to_string()))
    }

    fn close(&self, whom: Whom) -> (Control, Result<usize, ApiError>) {
        let (disconnect, closed) = self.node.controls.disconnect(whom);
        (Control::Disconnect(vec![disconnect]), Ok(closed))
    }

    async fn revoke(
        &self,
        id: &str,
        exp: Option<u64>,
    ) -> Result<(Control, Result<usize, ApiError>), ApiError> {
        // Leeway and slow clocks: an hour more costs a few bytes.
        let end = exp.map_or(unix_ms() + REVOKED_FOR, |exp| exp.saturating_add(3600).saturating_mul(1000));
        let Some(revocation) = Revocation::new(id, end) else {
            let message = "`jti` is the id of a token: 1 to 255 bytes without control characters";
            return Err(ApiError::parameter("invalid_parameter", "jti", message));
        };
        let control = Control::Revoke(vec![revocation.clone()]);
        let controls = self.node.controls.clone();
        let done = match tokio::task::spawn_blocking(move || controls.revoke(&revocation)).await {
            Ok(Ok(closed)) => Ok(closed),
            Ok(Err(RevokeError::TooMany)) => {
                return Err(ApiError::unavailable(
                    "unavailable",
                    "too many tokens are revoked already: sign new ones with another key",
                ));
            }
            Ok(Err(RevokeError::NotKept(error))) => {
                tracing::warn!(%error, "a revocation could not be written to the disk");
                Err(not_kept())
            }
            Err(_) => Err(not_kept()),
        };
        Ok((control, done))
    }
}

fn name(field: &'static str, text: &str) -> Result<Name, ApiError> {
    Name::parse(text).ok_or_else(|| {
        ApiError::parameter("invalid_parameter", field, format!("`{field}` has 1 to 4096 bytes"))
    })
}

fn not_kept() -> ApiError {
    ApiError::unavailable(
        "unavailable",
        "the token is revoked until this node is started again, as the disk could not take it: repeat this",
    )
}

impl Handler for App {
    async fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Reply {
        let answer = self.answer(request, peer).await;
        Reply::Http(answer.unwrap_or_else(|error| self.node.count_and_answer(error)))
    }
}
