//! The app listener: publish, history, control.

use super::connection::{Handler, Peer, Reply};
use super::error::{ApiError, json};
use super::history;
use super::host::check_private;
use super::node::{Node, Settings};
use super::publish;
use super::request::{Parameters, path_channel, read_body};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;

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
        check_private(&request, peer, &settings.app_hosts)?;
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
                history::events(&self.node, request.uri().query(), None).await
            }
            (&Method::DELETE, ["v1", "events"]) => history::delete(&self.node, request.uri().query()).await,
            (&Method::GET, ["v1", "channels"]) => self.channels(request.uri().query()),
            (&Method::GET, ["v1", "channels", channel, "last"]) => {
                history::last(&self.node, path_channel(channel)?, request.uri().query()).await
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

    async fn disconnect(
        &self,
        request: Request<Incoming>,
        settings: &Settings,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        #[derive(serde::Deserialize)]
        struct Disconnect {
            connection: Option<String>,
            user: Option<String>,
        }
        let body = read_body(request.into_body(), settings.body_bytes, settings.body_timeout).await?;
        let asked: Disconnect = serde_json::from_slice(&body).map_err(|error| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "invalid_json",
                format!("send {{\"connection\": \"..\"}}: {error}"),
            )
        })?;
        let disconnected = match (asked.connection, asked.user) {
            (Some(connection), _) => usize::from(self.node.registry.disconnect(&connection)),
            // Without authentication no connection has a user.
            (None, Some(_)) => 0,
            (None, None) => {
                return Err(ApiError::parameter(
                    "invalid_parameter",
                    "connection",
                    "name the `connection`, as told in `welcome`",
                ));
            }
        };
        Ok(json(StatusCode::OK, serde_json::json!({"disconnected": disconnected}).to_string()))
    }
}

impl Handler for App {
    async fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Reply {
        let answer = self.answer(request, peer).await;
        Reply::Http(answer.unwrap_or_else(|error| self.node.refused(error)))
    }
}
