//! Builds every part in order, runs them, and takes them down again without losing anything.

mod backends;
mod bus;
mod error;
mod listeners;
mod reload;
mod settings;

pub(crate) use listeners::OTHER_DESCRIPTORS;
pub(crate) use settings::keyring;

pub use backends::{nats_kept, nats_options, nats_patterns, redis_options};
pub use error::StartError;
pub use reload::ReloadError;

use crate::audit::Audit;
use crate::auth::{AuthError, Authority, Revocations};
use crate::cipher::Keyring;
use crate::config::{Config, ListenAddress};
use crate::hub::{Hub, RingLimits};
use crate::log::{Log, LogObserver, LogOptions};
use crate::metrics::Metrics;
use crate::publish::{Publisher, unix_ms};
use crate::redact::Redactor;
use crate::replica::{Replica, Shore};
use crate::server::{Controls, Node, Readiness, Registry, TlsError, keep_exchanging};
use crate::subscribe::Source;
use crate::systemd::PassedSockets;
use listeners::{Stopping, bind, serve};
use settings::Certificates;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// How much may wait in memory for the log. More would be memory that the app needs.
const INFLOW_BYTES: usize = 64 << 20;
/// How long the oldest of it may wait: the disk does not keep up then, and waiting longer helps nobody.
const INFLOW_AGE: Duration = Duration::from_secs(10);

/// How long a stop waits for everything that was accepted to be on the bus or on the disk.
const LAST_RESORT: Duration = Duration::from_secs(10);

/// Where the outbox is kept, in the directory of the log.
pub(crate) const OUTBOX_DIRECTORY: &str = "outbox";

/// Where revoked tokens are kept, beside the log.
const REVOKED_FILE: &str = "revoked";

/// A running Sidewire.
pub struct Sidecar {
    node: Arc<Node>,
    replica: Replica,
    log: Log,
    /// In force.
    config: Config,
    /// As it was at the start: what of `config` the parts that were built then do not have.
    started_with: Config,
    /// Where clients from elsewhere may come in, until it ends.
    client_addresses: Vec<ListenAddress>,
    listeners: JoinSet<()>,
    stopping: Stopping,
    certificates: Certificates,
    redactor: Redactor,
    keyring: Keyring,
    /// Probes, what is told to other nodes of who is let in, and what has to wait for its time.
    upkeep: [JoinHandle<()>; 3],
}

/// The listeners that speak TLS, whose certificates and keys have been read.
pub(crate) fn tls_listeners(config: &Config) -> Result<Vec<&'static str>, TlsError> {
    let Certificates { app, client, admin } = settings::certificates(config)?;
    let listeners = [("app", app), ("client", client), ("admin", admin)];
    Ok(listeners.into_iter().filter_map(|(listener, tls)| tls.map(|_| listener)).collect())
}

/// Who decides what clients may do, with nobody connected; none where nobody is asked.
pub(crate) fn authority(config: &Config) -> Result<Option<Arc<Authority>>, AuthError> {
    settings::authority(config, &Arc::default(), None)
}

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
        let client_addresses = reload::client_addresses(&bound);
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
        Ok(Self {
            node,
            replica,
            log,
            started_with: config.clone(),
            config,
            client_addresses,
            listeners,
            stopping,
            certificates,
            redactor,
            keyring,
            upkeep,
        })
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
