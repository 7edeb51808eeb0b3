//! The admin listener: probes, Prometheus, the configuration in force, what became of an event.

use super::connection::{Handler, Peer, Reply};
use super::error::{ApiError, json, with_type};
use super::host::check_private;
use super::node::Node;
use crate::publish::unix_ms;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;

/// What needs no token: a kubelet has none, and learns only whether the node is well.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Answers the operator.
pub struct Admin {
    node: Arc<Node>,
}

impl Admin {
    /// The admin listener of a node.
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self { node })
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        check_private(&request, peer, &self.node.settings().admin, &PROBES)?;
        let path = request.uri().path();
        if let Some(id) = path.strip_prefix("/v1/trace/") {
            return match *request.method() {
                Method::GET => self.node.tracer.trace(&self.node, id).await,
                _ => Err(ApiError::method_not_allowed("GET")),
            };
        }
        match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/healthz") => Ok(self.health()),
            (&Method::GET | &Method::HEAD, "/readyz") => Ok(self.readiness()),
            (&Method::GET | &Method::HEAD, "/metrics") => {
                let node = self.node.clone();
                let text = tokio::task::spawn_blocking(move || metrics(&node)).await.unwrap_or_default();
                Ok(with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
            }
            (&Method::GET, "/v1/config") => Ok(json(StatusCode::OK, self.node.config().to_string())),
            (_, "/healthz" | "/readyz" | "/metrics" | "/v1/config") => {
                Err(ApiError::method_not_allowed("GET"))
            }
            _ => Err(ApiError::not_found(
                "the admin listener has /healthz, /readyz, /metrics, /v1/config and /v1/trace/ID",
            )),
        }
    }

    fn health(&self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({
            "status": "ok",
            "uptime_s": self.node.started.elapsed().as_secs(),
            "connections": self.node.metrics.connections(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        json(StatusCode::OK, body.to_string())
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let readiness = self.node.readiness();
        let ready = readiness.is_ready();
        let body = serde_json::json!({
            "status": if ready { "ok" } else { "unavailable" },
            "checks": std::collections::BTreeMap::from(readiness.checks()),
        });
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json(status, body.to_string())
    }
}

impl Handler for Admin {
    async fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Reply {
        let answer = self.answer(request, peer).await;
        Reply::Http(answer.unwrap_or_else(|error| self.node.count_and_answer(error)))
    }
}

/// All series, with the gauges that are only looked up when somebody asks.
fn metrics(node: &Node) -> String {
    let metrics = &node.metrics;
    let stats = node.source.log.stats();
    let (events, bytes) = node.inflow.depth();
    metrics.ready.set(node.readiness().is_ready().into());
    let status = node.bus.status();
    metrics.queue_events.set((events + status.held_events) as i64);
    metrics.queue_bytes.set((bytes + status.held_bytes) as i64);
    metrics.bus.outbox_events.set(status.outbox_events as i64);
    metrics.bus.outbox_bytes.set(status.outbox_bytes as i64);
    let oldest = status.outbox_oldest_ms.map_or(0, |oldest| unix_ms().saturating_sub(oldest));
    metrics.bus.lag_seconds.set(status.lag.as_secs_f64());
    metrics.bus.outbox_oldest_seconds.set(oldest as f64 / 1000.);
    metrics.channels.set(node.source.hub.feed_count() as i64);
    metrics.uptime_seconds.set(node.started.elapsed().as_secs() as i64);
    metrics.resident_bytes.set(resident_bytes().unwrap_or(0));
    metrics.log.disk_bytes.set(stats.disk_bytes as i64);
    metrics.log.events.set(stats.events as i64);
    metrics.log.oldest_timestamp_seconds.set(stats.oldest_time.unwrap_or(0) as i64 / 1000);
    metrics.log.reclaimed_bytes.set(stats.reclaimed_bytes as i64);
    metrics.log.damaged.set((stats.damaged + stats.quarantined) as i64);
    metrics.log.waiting_journals.set(stats.folds_waiting as i64);
    metrics.render()
}

fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as i64)
}
