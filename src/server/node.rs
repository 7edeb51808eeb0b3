//! What the listeners share: the flows, the limits in force, the clients.

use super::channel_rates::ChannelRates;
use super::control::Controls;
use super::error::ApiError;
use super::host::{OriginPolicy, PrivateRules};
use super::refusal_log::RefusalLog;
use super::registry::Registry;
use super::trace::Tracer;
use crate::audit::Audit;
use crate::auth::{Authority, Revocations};
use crate::bus::{Bus, Inflow};
use crate::config::{ChannelRule, Network, Route};
use crate::intake::IntakeLimits;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::replica::Health;
use crate::subscribe::Source;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// One running Sidewire, as its listeners see it.
pub struct Node {
    /// Where subscriptions read.
    pub source: Arc<Source>,
    /// Where drafts enter.
    pub publisher: Publisher,
    /// The bus, for probes.
    pub bus: Arc<dyn Bus>,
    /// The queue to the log, for its depth.
    pub inflow: Arc<Inflow>,
    /// Whether the log takes events.
    pub health: Arc<Health>,
    /// All series.
    pub metrics: Arc<Metrics>,
    /// The clients.
    pub registry: Arc<Registry>,
    /// Tokens that count no longer.
    pub revocations: Arc<Revocations>,
    /// Cuts clients off.
    pub controls: Arc<Controls>,
    /// Who did what.
    pub audit: Arc<Audit>,
    pub(super) refusals: RefusalLog,
    pub(super) rates: ChannelRates,
    pub(super) tracer: Tracer,
    /// When it started.
    pub started: Instant,
    /// What can be changed while it runs.
    settings: RwLock<Arc<Settings>>,
    /// The configuration in force, secrets masked.
    config: RwLock<serde_json::Value>,
    /// Set at the begin of a shutdown: not ready any more.
    draining: AtomicBool,
    /// When the last probe came back, in ms since the start plus one; 0 before the first.
    probed_ms: AtomicU64,
}

/// What can be changed while a node runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who may call the app listener.
    pub app: PrivateRules,
    /// Who may call the admin listener.
    pub admin: PrivateRules,
    /// The proxies whose word on where a client is counts.
    pub proxies: Vec<Network>,
    /// Whether cookies say who a client is, so that pages of listed origins may send them.
    pub credentials: bool,
    /// Which pages may use the client listener.
    pub origins: OriginPolicy,
    /// Who says what clients may do; none lets everybody do everything.
    pub authority: Option<Arc<Authority>>,
    /// The cookie that may hold a token.
    pub auth_cookie: Option<String>,
    /// For the first message of a WebSocket client that brought no token.
    pub auth_timeout: Duration,
    /// The rules of channels, for clients that publish.
    pub rules: Vec<ChannelRule>,
    /// The app's own URLs.
    pub routes: Vec<Route>,
    /// Between pings on a WebSocket; `None` sends none.
    pub heartbeat: Option<Duration>,
    /// Between comments on SSE and heartbeats on NDJSON.
    pub sse_heartbeat: Duration,
    /// A client whose socket takes nothing for so long is cut off.
    pub stall_timeout: Duration,
    /// A WebSocket client that sends nothing at all for so long is cut off; `None` for never.
    pub idle_timeout: Option<Duration>,
    /// Limits on publishes.
    pub intake: IntakeLimits,
    /// Largest request body.
    pub body_bytes: usize,
    /// For a whole request body.
    pub body_timeout: Duration,
    /// Most channels and patterns of a connection.
    pub subscriptions: usize,
    /// Largest message from a client.
    pub message_bytes: usize,
    /// Clients in all; 0 for no limit.
    pub connections: usize,
    /// Clients from one address; 0 for no limit.
    pub connections_per_ip: usize,
    /// New clients a second from one address; zero for no limit.
    pub handshakes_per_ip: u32,
    /// Messages a second from a client; zero for no limit.
    pub messages_per_second: u32,
    /// Bytes a second from a client; zero for no limit.
    pub bytes_per_second: u32,
    /// Refusals of one address after which it is cut off; zero for never.
    pub offences_per_ip: u32,
    /// For how long it is.
    pub ban: Duration,
    /// How often the bus is probed.
    pub probe_interval: Duration,
}

impl Node {
    /// A node of these parts.
    #[allow(clippy::too_many_arguments, reason = "called once, by who builds the parts")]
    pub fn new(
        source: Arc<Source>,
        publisher: Publisher,
        bus: Arc<dyn Bus>,
        inflow: Arc<Inflow>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        registry: Arc<Registry>,
        revocations: Arc<Revocations>,
        controls: Arc<Controls>,
        audit: Arc<Audit>,
        settings: Settings,
        config: serde_json::Value,
    ) -> Arc<Self> {
        controls.set_authority(settings.authority.clone());
        Arc::new(Self {
            source,
            publisher,
            bus,
            inflow,
            health,
            metrics,
            registry,
            revocations,
            controls,
            audit,
            refusals: RefusalLog::new(),
            rates: ChannelRates::default(),
            tracer: Tracer::default(),
            started: Instant::now(),
            settings: RwLock::new(Arc::new(settings)),
            config: RwLock::new(config),
            draining: AtomicBool::new(false),
            probed_ms: AtomicU64::new(0),
        })
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other settings in force; what is connected stays.
    pub fn reload(&self, settings: Settings, config: serde_json::Value) {
        self.controls.set_authority(settings.authority.clone());
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// The configuration in force, secrets masked.
    pub fn config(&self) -> serde_json::Value {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answer to a request that is refused, which is counted.
    pub(super) fn count_and_answer(&self, error: ApiError) -> Response<Full<Bytes>> {
        self.metrics.error(error.code);
        error.into_response()
    }

    /// Readiness off.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Notes that a probe came back.
    pub fn probe_returned(&self) {
        self.probed_ms.store(self.started.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
    }

    /// How long ago the last probe came back.
    pub fn since_probe(&self) -> Option<Duration> {
        let probed = self.probed_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.started.elapsed().saturating_sub(Duration::from_millis(probed)))
    }
}
