//! The bus that the configuration names, with what depends on which it is.

use super::backends::{nats_kept, nats_options, nats_patterns, redis_options};
use super::{INFLOW_AGE, INFLOW_BYTES, OUTBOX_DIRECTORY, StartError};
use crate::bus::backend::Backend;
use crate::bus::nats::{Core, JetStream};
use crate::bus::redis::{RedisPubSub, RedisStream};
use crate::bus::remote::{Remote, RemoteOptions};
use crate::bus::{Bus, Inflow, Memory, Refused};
use crate::cipher::Keyring;
use crate::config::{BusChannel, BusMode, Config, LogSync};
use crate::event::Interest;
use crate::log::{Log, Numbering};
use crate::metrics::Metrics;
use crate::outbox::{Limits, Outbox};
use crate::replica::{Refusal, Shore, SyncPolicy};
use crate::subscribe::{Order, Proof};
use futures_util::FutureExt as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long events that came from the bus may stay in the page cache: the bus has them too.
const FROM_BUS: Duration = Duration::from_millis(50);

/// How long it may take to find out whether everything on the bus has been read.
const PROOF: Duration = Duration::from_secs(2);
/// Between two attempts to send a probe.
const PAUSE: Duration = Duration::from_millis(5);

/// Who gives the positions of the log.
pub(super) fn numbering(config: &Config) -> Numbering {
    match config.bus.mode() {
        None | Some(BusMode::PubSub | BusMode::Core) => Numbering::Own,
        Some(BusMode::Stream) if config.bus.shards > 1 => Numbering::Shards,
        Some(BusMode::Stream | BusMode::JetStream) => Numbering::Bus,
    }
}

/// What the bus does for the order of events.
pub(super) fn order(config: &Config, bus: &Arc<dyn Bus>) -> Order {
    let approximate = matches!(config.bus.mode(), Some(BusMode::PubSub | BusMode::Core));
    let proof = || {
        let bus = bus.clone();
        Arc::new(move || has_read_all(bus.clone()).boxed()) as Proof
    };
    Order { approximate, proof: bus.is_shared().then(proof) }
}

/// Sends a probe, which comes back behind everything that is on the bus.
async fn has_read_all(bus: Arc<dyn Bus>) -> bool {
    let probe = async {
        loop {
            let (returned, back) = oneshot::channel();
            match bus.probe(returned) {
                Ok(()) => return back.await.is_ok(),
                // Many are under way.
                Err(Refused::QueueFull) => tokio::time::sleep(PAUSE).await,
                Err(_) => return false,
            }
        }
    };
    tokio::time::timeout(PROOF, probe).await.unwrap_or(false)
}

/// When the disk is waited for.
pub(super) fn sync_policy(config: &Config) -> SyncPolicy {
    match (config.log.sync, config.bus.mode()) {
        (LogSync::Always, None) => SyncPolicy::Always,
        // What a publisher waits for is the bus, or the outbox, which syncs by itself.
        (LogSync::Always, Some(_)) => SyncPolicy::Every(FROM_BUS),
        (LogSync::Every(interval), _) => SyncPolicy::Every(interval),
        (LogSync::Never, _) => SyncPolicy::Never,
    }
}

/// What becomes of a group that the log refuses.
pub(super) fn refusal(config: &Config) -> Refusal {
    if config.bus.mode().is_none() { Refusal::Answered } else { Refusal::Insisted }
}

/// Starts the bus.
pub(super) async fn start(
    config: &Config,
    inflow: Arc<Inflow>,
    shore: Arc<Shore>,
    metrics: &Arc<Metrics>,
    keyring: Keyring,
) -> Result<Arc<dyn Bus>, StartError> {
    let Some(mode) = config.bus.mode() else {
        // Within this process there is no link that could break.
        metrics.bus.connected.set(1);
        return Ok(Arc::new(Memory::new(inflow)));
    };
    let dir = config.log.dir.join(OUTBOX_DIRECTORY);
    let limits = Limits { max_bytes: config.queue.max_bytes.0, max_age: config.queue.max_age };
    let outbox = tokio::task::spawn_blocking(move || Outbox::open(&dir, limits, &keyring))
        .await
        .map_err(|_| StartError::Threads(io::Error::other("the thread that opens the outbox ended")))?
        .map_err(StartError::Outbox)?;
    let parts = Parts { config, inflow: inflow.clone(), shore, metrics, outbox };
    let bus = &config.bus;
    Ok(match (redis_options(bus), nats_options(bus), mode) {
        (Some(options), _, BusMode::PubSub) => {
            let patterns: Vec<_> = bus.channels.iter().map(|channel| channel.as_str().to_owned()).collect();
            parts.on(vec![RedisPubSub::new(options, &patterns)])
        }
        (Some(options), ..) => {
            let shards = options.shards(bus.shards as usize);
            parts.on(shards.into_iter().map(RedisStream::new).collect())
        }
        (_, Some(options), BusMode::Core) => parts.on(vec![Core::new(options, &nats_patterns(bus))]),
        (_, Some(options), _) => parts.on(vec![JetStream::new(options, nats_kept(bus))]),
        // A URL with a mode is one of these.
        (None, None, _) => Arc::new(Memory::new(inflow)),
    })
}

/// The queue between the bus and the replica.
pub(super) fn inflow(log: &Log) -> Arc<Inflow> {
    Arc::new(Inflow::new(INFLOW_BYTES, INFLOW_AGE, log.next_position()))
}

struct Parts<'a> {
    config: &'a Config,
    inflow: Arc<Inflow>,
    shore: Arc<Shore>,
    metrics: &'a Arc<Metrics>,
    outbox: Outbox,
}

impl Parts<'_> {
    fn on(self, shards: Vec<impl Backend>) -> Arc<dyn Bus> {
        let bus = &self.config.bus;
        let patterns = bus.channels.iter().filter_map(|channel| match channel {
            BusChannel::Pattern(pattern) => Some(pattern.clone()),
            BusChannel::Glob(_) => None,
        });
        let options = RemoteOptions {
            hedge: bus.hedge,
            send_timeout: bus.publish_timeout,
            probe_interval: bus.probe_interval,
            // A bus without order is asked for these channels only, in its own terms.
            interest: (shards.iter().all(Backend::is_ordered) && !bus.channels.is_empty())
                .then(|| Interest::new(patterns)),
            dir: self.config.log.dir.clone(),
        };
        Remote::start(shards, options, self.inflow, self.outbox, self.shore, self.metrics.clone())
    }
}
