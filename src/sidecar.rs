//! Builds every part in order, runs them, and takes them down again without losing anything.

mod backends;
mod bus;
mod settings;

pub(crate) use settings::keyring;

pub use backends::{nats_kept, nats_options, nats_patterns, redis_options};

use crate::audit::Audit;
use crate::auth::{AuthError, Authority, Revocations};
use crate::cipher::{KeyFileError, Keyring};
use crate::config::{Config, ListenAddress};
use crate::hub::{Hub, RingLimits};
use crate::log::{Log, LogObserver, LogOptions, OpenError};
use crate::metrics::Metrics;
use crate::publish::{Publisher, unix_ms};
use crate::redact::Redactor;
use crate::replica::{Replica, Shore};
use crate::server::{
    Address, Admin, App, Capacity, Client, Controls, Listener, Node, Readiness, Registry, TlsError,
    keep_exchanging,
};
use crate::subscribe::Source;
use crate::systemd::PassedSockets;
use settings::Certificates;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

/// How much may wait in memory for the log. More would be memory that the app needs.
const INFLOW_BYTES: usize = 64 << 20;
/// How long the oldest of it may wait: the disk does not keep up then, and waiting longer helps nobody.
const INFLOW_AGE: Duration = Duration::from_secs(10);

/// How long a stop waits for everything that was accepted to be on the bus or on the disk.
const LAST_RESORT: Duration = Duration::from_secs(10);

/// Where the outbox is kept, in the directory of the log.
pub(crate) const OUTBOX_DIRECTORY: &str = "outbox";

/// Descriptors besides those of clients: listeners, the app's connections, the log.
pub(crate) const OTHER_DESCRIPTORS: u64 = 256;
/// Where revoked tokens are kept, beside the log.
const REVOKED_FILE: &str = "revoked";

/// A running Sidewire.
pub struct Sidecar {
    node: Arc<Node>,
    replica: Replica,
    log: Log,
    config: Config,
    listeners: JoinSet<()>,
    stopping: Stopping,
    certificates: Certificates,
    redactor: Redactor,
    keyring: Keyring,
    /// Probes, what is told to other nodes of who is let in, and what has to wait for its time.
    upkeep: [JoinHandle<()>; 3],
}

/// Why it does not start.
#[derive(Debug)]
pub enum StartError {
    /// The log cannot be opened.
    Log(OpenError),
    /// A listener cannot be bound.
    Listen {
        /// Its section.
        listener: &'static str,
        /// Where.
        address: Address,
        /// Why.
        error: io::Error,
    },
    /// The keys of the log cannot be read.
    Keys(KeyFileError),
    /// The outbox cannot be opened.
    Outbox(crate::outbox::OpenError),
    /// The audit log cannot be written.
    Audit(io::Error),
    /// The keys of tokens cannot be used.
    Auth(AuthError),
    /// The certificates of the listeners cannot be used.
    Tls(TlsError),
    /// A passed socket cannot be used.
    Passed {
        /// The listener that it is for.
        listener: &'static str,
        /// Why.
        reason: String,
    },
    /// The operating system refuses threads.
    Threads(io::Error),
}

/// Who decides what clients may do, with nobody connected; none where nobody is asked.
pub(crate) fn authority(config: &Config) -> Result<Option<Arc<Authority>>, AuthError> {
    settings::authority(config, &Arc::default(), None)
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => write!(f, "the log cannot be opened: {error}"),
            Self::Listen { listener, address, error } => write!(
                f,
                "cannot listen on {address}: {error}; choose another address with `{listener}.listen`, or stop what listens there"
            ),
            Self::Keys(error) => write!(f, "log.encryption_key_file: {error}"),
            Self::Outbox(error) => write!(f, "the outbox cannot be opened: {error}"),
            Self::Audit(error) => write!(f, "telemetry.audit_file cannot be written: {error}"),
            Self::Auth(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Passed { listener, reason } => {
                write!(f, "the socket that was passed for the {listener} listener cannot be used: {reason}")
            }
            Self::Threads(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl Sidecar {
    /// Starts everything; when it returns, all listeners answer. A listener for which sockets were passed
    /// listens on those instead of its configured addresses.
    pub async fn start(config: Config, passed: PassedSockets) -> Result<Self, StartError> {
        let started = Instant::now();
        let metrics = Arc::new(Metrics::new());
        let certificates = settings::certificates(&config).map_err(StartError::Tls)?;
        metrics.log.max_bytes.set(config.log.max_bytes.0 as i64);
        metrics.queue_max_bytes.set(config.queue.max_bytes.0 as i64);
        let keyring = settings::keyring(&config).map_err(StartError::Keys)?;
        let audit = match config.telemetry.audit_file.as_os_str().is_empty() {
            true => Audit::default(),
            false => Audit::open(&config.telemetry.audit_file).map_err(StartError::Audit)?,
        };
        let audit = Arc::new(audit);
        // Bound before the log is opened: a second process on the same addresses fails early and harms nothing.
        let bound = bind(&config, passed)?;
        let options = log_options(&config, metrics.clone(), keyring.clone());
        let log = tokio::task::spawn_blocking(move || Log::open(options))
            .await
            .map_err(|_| StartError::Threads(io::Error::other("the thread that opens the log ended")))?
            .map_err(StartError::Log)?;
        // After the log, whose lock says that nobody else writes there.
        let path = config.log.dir.join(REVOKED_FILE);
        let revocations = Revocations::open(&path, unix_ms())
            .map_err(|error| StartError::Auth(AuthError::File { key: "log.dir", path, error }))?;
        let revocations = Arc::new(revocations);
        let keys = settings::keys(&config, &revocations, None).map_err(StartError::Auth)?;
        let inflow = bus::inflow(&log);
        let hub = Hub::new(log.head(), RingLimits::default());
        let (policy, refusal) = (bus::sync_policy(&config), bus::refusal(&config));
        let redactor = Redactor::new(settings::redact_rules(&config));
        // Without a bus nobody else publishes.
        let arriving = if config.bus.mode().is_some() { redactor.clone() } else { Redactor::default() };
        let replica = Replica::start(
            inflow.clone(),
            log.clone(),
            hub.clone(),
            policy,
            refusal,
            metrics.clone(),
            arriving,
        )
        .map_err(StartError::Threads)?;
        let registry = Registry::new(node_name());
        let controls = Controls::new(registry.clone(), revocations.clone(), audit.clone(), metrics.clone());
        let shore = Shore::new(log.clone(), hub.clone(), controls.clone());
        let bus = bus::start(&config, inflow.clone(), shore, &metrics, keyring.clone()).await?;
        let publisher = Publisher::new(
            bus.clone(),
            log.clone(),
            metrics.clone(),
            redactor.clone(),
            config.bus.publish_timeout,
        );
        let node = Node::new(
            Arc::new(Source { hub, log: log.clone(), order: bus::order(&config, &bus) }),
            publisher,
            bus,
            inflow,
            replica.health(),
            metrics,
            registry,
            revocations,
            controls,
            audit,
            settings::settings(&config, keys),
            config.to_json(),
        );
        let conflater = node.publisher.conflater().clone();
        let releasing = tokio::spawn(async move { conflater.run().await });
        let upkeep = [
            tokio::spawn(keep_probing(node.clone())),
            tokio::spawn(keep_exchanging(node.clone())),
            releasing,
        ];
        let stopping = Stopping::default();
        let listeners = serve(bound, &node, &config, &certificates, &stopping);
        if let Some(key) = keyring.current() {
            tracing::info!(%key, "events are encrypted on disk");
        }
        let stats = log.stats();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            node = node.registry.node(),
            bus = %node.bus,
            log = %config.log.dir.display(),
            epoch = %log.epoch(),
            events = stats.events,
            took_ms = started.elapsed().as_millis() as u64,
            "started"
        );
        Ok(Self { node, replica, log, config, listeners, stopping, certificates, redactor, keyring, upkeep })
    }

    /// Puts what can change while it runs in force: limits, origins, routes, heartbeats, keys, what is stripped from
    /// events. Clients stay.
    pub fn reload(&mut self, mut config: Config) {
        let before = self.node.settings().authority.clone();
        let keys = match settings::keys(&config, &self.node.revocations, before.as_deref()) {
            Ok(keys) => keys,
            Err(error) => {
                tracing::error!("not reloaded, the old configuration stays in force: {error}");
                return;
            }
        };
        let tls_as_before = match settings::certificates(&config) {
            Ok(certificates) => self.certificates.replace_by(&certificates),
            Err(error) => {
                tracing::error!("not reloaded, the old configuration stays in force: TLS: {error}");
                return;
            }
        };
        match self.keyring.reload() {
            Ok(true) => self.tell_of_keys(),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(
                    "not reloaded, the old configuration stays in force: log.encryption_key_file: {error}"
                );
                return;
            }
        }
        self.redactor.replace(settings::redact_rules(&config));
        let fixed: [(&str, bool); 10] = [
            ("tls_cert_file", !tls_as_before),
            (
                "listen",
                self.config.app.listen != config.app.listen
                    || self.config.client.listen != config.client.listen
                    || self.config.admin.listen != config.admin.listen,
            ),
            ("log", self.config.log != config.log),
            ("bus", self.config.bus != config.bus),
            (
                "client.proxy_protocol",
                self.config.client.proxy_protocol != config.client.proxy_protocol
                    || (config.client.proxy_protocol
                        && self.config.client.trusted_proxies != config.client.trusted_proxies),
            ),
            ("telemetry.audit_file", self.config.telemetry.audit_file != config.telemetry.audit_file),
            ("telemetry.log_format", self.config.telemetry.log_format != config.telemetry.log_format),
            ("queue", self.config.queue != config.queue),
            ("channels", settings::kept(&self.config) != settings::kept(&config)),
            ("limits.header_timeout", self.config.limits.header_timeout != config.limits.header_timeout),
        ];
        for (key, _) in fixed.iter().filter(|(_, changed)| *changed) {
            tracing::warn!(key, "a changed setting takes effect at the next start");
        }
        // Its probes are counted on by the link.
        config.bus = self.config.bus.clone();
        self.node.audit.reopen();
        self.node.reload(settings::settings(&config, keys), config.to_json());
        self.config = config;
        tracing::info!("configuration reloaded");
    }

    /// Says what the keys of the log are now.
    fn tell_of_keys(&self) {
        match self.keyring.current() {
            Some(key) => tracing::info!(%key, "what is written from now on is encrypted with this key"),
            None => tracing::info!("what is written from now on is not encrypted"),
        }
        for key in self.keyring.removed() {
            let parts = self.log.packed_with(key);
            if parts > 0 {
                tracing::warn!(
                    %key, parts,
                    "a key that is gone from log.encryption_key_file is still needed: without it the next start is refused"
                );
            }
        }
    }

    /// Whether it is ready, and how many clients it has.
    pub fn state(&self) -> (Readiness, i64) {
        (self.node.readiness(), self.node.metrics.connections())
    }

    /// Drains and stops: not ready any more, clients are told to go elsewhere over the configured time while
    /// the app may still publish, then everything accepted is on disk and the log is closed.
    pub async fn stop(self) {
        let started = Instant::now();
        self.node.begin_drain();
        self.node.publisher.conflater().flush();
        tracing::info!(
            clients = self.node.metrics.connections(),
            over_ms = self.config.client.drain.as_millis() as u64,
            "draining"
        );
        // Who comes now is sent elsewhere by a refused connection; the app still publishes.
        self.stopping.clients.send_replace(true);
        self.node.registry.drain(self.config.client.drain).await;
        self.stopping.others.send_replace(true);
        let mut listeners = self.listeners;
        // Requests in flight are answered; who takes longer than the longest of them is cut off.
        let patience = self.config.bus.publish_timeout + Duration::from_secs(1);
        let _ =
            tokio::time::timeout(patience, async { while listeners.join_next().await.is_some() {} }).await;
        listeners.abort_all();
        for task in &self.upkeep {
            task.abort();
        }
        // Those of publishers that do not wait for an answer.
        self.node.publisher.conflater().flush();
        self.node.bus.close();
        // A log that refuses what the bus has ordered must not keep the node from ending: the bus has it still.
        let inflow = self.node.inflow.clone();
        let last_resort = tokio::spawn(async move {
            tokio::time::sleep(LAST_RESORT).await;
            inflow.close();
        });
        self.replica.finish().await;
        last_resort.abort();
        let log = self.log;
        let _ = tokio::task::spawn_blocking(move || log.close()).await;
        let node = self.node;
        let _ = tokio::task::spawn_blocking(move || node.audit.finish()).await;
        tracing::info!(took_ms = started.elapsed().as_millis() as u64, "stopped");
    }
}

/// Tells listeners to stop: those of clients first.
#[derive(Default)]
struct Stopping {
    clients: watch::Sender<bool>,
    others: watch::Sender<bool>,
}

type Bound = Vec<(&'static str, Listener)>;

fn bind(config: &Config, passed: PassedSockets) -> Result<Bound, StartError> {
    let mut bound = Vec::new();
    for (listener, socket) in passed {
        let refused = |reason| StartError::Passed { listener, reason };
        let socket = Listener::passed(socket).map_err(|error| refused(error.to_string()))?;
        if let Address::Tcp(address) = socket.address()
            && listener == "client"
            && let Some(refusal) = config.refuses_clients_at(&ListenAddress::Tcp(*address))
        {
            return Err(refused(refusal));
        }
        bound.push((listener, socket));
    }
    let was_passed: Vec<&str> = bound.iter().map(|(listener, _)| *listener).collect();
    let sections = [
        (
            "app",
            &config.app.listen,
            config.app.socket_mode,
            &config.app.socket_user,
            &config.app.socket_group,
        ),
        (
            "client",
            &config.client.listen,
            config.client.socket_mode,
            &config.client.socket_user,
            &config.client.socket_group,
        ),
        (
            "admin",
            &config.admin.listen,
            config.admin.socket_mode,
            &config.admin.socket_user,
            &config.admin.socket_group,
        ),
    ];
    for (listener, addresses, mode, user, group) in sections {
        if was_passed.contains(&listener) {
            continue;
        }
        for address in addresses {
            let address = settings::address(address, mode, user, group);
            match Listener::bind(&address) {
                Ok(socket) => bound.push((listener, socket)),
                Err(error) => return Err(StartError::Listen { listener, address, error }),
            }
        }
    }
    Ok(bound)
}

fn serve(
    bound: Bound,
    node: &Arc<Node>,
    config: &Config,
    certificates: &Certificates,
    stopping: &Stopping,
) -> JoinSet<()> {
    let limits = settings::connection_limits(config);
    let (app, client, admin) = (App::new(node.clone()), Client::new(node.clone()), Admin::new(node.clone()));
    let capacity = Capacity::new(
        most_client_sockets(certificates.client.is_some()),
        config.client.trusted_proxies.clone(),
        node.metrics.clone(),
    );
    let mut listeners = JoinSet::new();
    for (listener, socket) in bound {
        let tls = match listener {
            "app" => certificates.app.clone(),
            "client" => certificates.client.clone(),
            _ => certificates.admin.clone(),
        };
        let proxies = (listener == "client" && config.client.proxy_protocol)
            .then(|| config.client.trusted_proxies.clone().into());
        let capacity = (listener == "client").then(|| capacity.clone());
        let socket = socket.with_tls(tls).with_proxies(proxies).with_capacity(capacity);
        tracing::info!(listener, address = %socket.address(), "listening");
        let stopping = if listener == "client" { &stopping.clients } else { &stopping.others }.subscribe();
        match listener {
            "app" => listeners.spawn(socket.run(app.clone(), limits, stopping)),
            "client" => listeners.spawn(socket.run(client.clone(), limits, stopping)),
            _ => listeners.spawn(socket.run(admin.clone(), limits, stopping)),
        };
    }
    listeners
}

/// How many clients there are descriptors for, when enough are left for the app and the disk.
fn most_client_sockets(with_tls: bool) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let Some(limit) = limit else { return usize::MAX };
    let left = limit.saturating_sub((limit / 8).max(OTHER_DESCRIPTORS)).max(limit / 2);
    // TLS ends beside the socket, over a pair of local ones.
    let most = if with_tls { left / 3 } else { left };
    usize::try_from(most).unwrap_or(usize::MAX)
}

fn log_options(config: &Config, metrics: Arc<Metrics>, keyring: Keyring) -> LogOptions {
    LogOptions {
        numbering: bus::numbering(config),
        ttl: config.log.ttl,
        max_bytes: config.log.max_bytes.0,
        compress: config.log.compress,
        keyring,
        rules: settings::kept(config),
        id_window: config.log.id_window,
        id_limit: config.log.id_limit,
        observer: Some(Arc::new(Observer(metrics))),
        ..LogOptions::new(&config.log.dir)
    }
}

struct Observer(Arc<Metrics>);

impl LogObserver for Observer {
    fn fsync(&self, took: Duration, events: u64) {
        self.0.fsync_seconds.observe(took.as_secs_f64());
        self.0.fsync_events.observe(events as f64);
    }
}

/// Sends a probe over the bus again and again and notes when it comes back.
async fn keep_probing(node: Arc<Node>) {
    loop {
        let interval = node.settings().probe_interval;
        let sent = Instant::now();
        let (returned, back) = oneshot::channel();
        // A refusal means that too much waits already; readiness then speaks for itself.
        if node.bus.probe(returned).is_ok()
            && let Ok(Ok(())) = tokio::time::timeout(interval * 2, back).await
        {
            node.metrics.probe_seconds.observe(sent.elapsed().as_secs_f64());
            node.probe_returned();
        }
        tokio::time::sleep(interval.saturating_sub(sent.elapsed())).await;
    }
}

/// A name that no other node or run has: part of every connection id.
fn node_name() -> String {
    let random = uuid::Uuid::now_v7().as_u128() as u64;
    format!("{:012x}", random & 0xffff_ffff_ffff)
}
