//! The flow in the middle: what the bus has ordered is appended to the log in groups, then shown to clients,
//! and its publishers are answered when the disk has it.
//!
//! Three stages, each a loop of its own, so that none waits for a slower one: a thread that appends (the page
//! cache is enough to survive a kill, so what a client has seen is in the log), a task that shows, and a
//! thread that waits for the disk and settles what waits for it, as many as there are at a time.

mod settler;
mod writer;

pub use settler::Settler;

use crate::bus::Inflow;
use crate::codec::Shown;
use crate::hub::Hub;
use crate::log::Log;
use crate::metrics::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// When the disk is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncPolicy {
    /// Before a publisher with `ack=log` is answered.
    Always,
    /// So often; publishers are answered before.
    Every(Duration),
    /// When the operating system pleases.
    Never,
}

/// The running stages.
pub struct Replica {
    writer: JoinHandle<()>,
    settler: JoinHandle<()>,
    fan_out: tokio::task::JoinHandle<()>,
    health: Arc<Health>,
}

/// Whether the log takes events.
#[derive(Default)]
pub struct Health {
    refusing: AtomicBool,
}

impl Health {
    /// Whether the last attempt to append or to reach the disk succeeded.
    pub fn is_writable(&self) -> bool {
        !self.refusing.load(Ordering::Relaxed)
    }

    /// Notes an attempt; true when that is a change.
    fn note(&self, success: bool) -> bool {
        self.refusing.swap(!success, Ordering::Relaxed) == success
    }
}

/// What the writer hands to the fan-out, in order.
enum Showing {
    Group { events: Vec<Arc<Shown>>, accepted: Instant },
    Probe(oneshot::Sender<()>),
}

/// Groups on their way from the writer to the fan-out: beyond that the writer waits.
const GROUPS_IN_FLIGHT: usize = 16;

/// How often old batches are let go of while nothing is published.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

impl Replica {
    /// Starts the stages.
    pub fn start(
        inflow: Arc<Inflow>,
        log: Log,
        hub: Arc<Hub>,
        policy: SyncPolicy,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let health = Arc::<Health>::default();
        let (to_fan_out, showing) = mpsc::channel(GROUPS_IN_FLIGHT);
        let settler = Arc::new(Settler::new(log.clone(), policy, health.clone()));
        let settling = settler.clone();
        let settler_thread =
            std::thread::Builder::new().name("log-sync".into()).spawn(move || settling.run())?;
        let writer = writer::Writer {
            inflow,
            log,
            settler,
            to_fan_out,
            metrics,
            health: health.clone(),
        };
        let writer_thread = std::thread::Builder::new().name("log-append".into()).spawn(|| writer.run())?;
        Ok(Self {
            writer: writer_thread,
            settler: settler_thread,
            fan_out: tokio::spawn(fan_out(hub, showing)),
            health,
        })
    }

    /// Whether the log takes events.
    pub fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    /// Waits until everything that the closed inflow held has been appended, settled and shown.
    pub async fn finish(self) {
        let _ = self.fan_out.await;
        let threads = tokio::task::spawn_blocking(move || {
            let _ = self.writer.join();
            let _ = self.settler.join();
        });
        let _ = threads.await;
    }
}

async fn fan_out(hub: Arc<Hub>, mut showing: mpsc::Receiver<Showing>) {
    let mut trim = tokio::time::interval(TRIM_INTERVAL);
    trim.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut idle = true;
    loop {
        tokio::select! {
            biased;
            next = showing.recv() => match next {
                Some(Showing::Group { events, accepted }) => {
                    idle = false;
                    hub.show(&events, accepted);
                }
                Some(Showing::Probe(returned)) => {
                    // Who asked may have given up waiting.
                    let _ = returned.send(());
                }
                None => return,
            },
            _ = trim.tick(), if !idle => idle = hub.trim(Instant::now()),
        }
    }
}
