//! The flow in the middle: what the bus has ordered is appended to the log in groups, then shown to clients,
//! and its publishers are answered when the disk has it.
//!
//! Three stages, each a loop of its own, so that none waits for a slower one: a thread that appends (the page
//! cache is enough to survive a kill, so what a client has seen is in the log), a task that shows, and a
//! thread that waits for the disk and settles what waits for it, as many as there are at a time.

mod landing;
mod settler;
mod writer;

pub use landing::Shore;
pub use settler::Settler;

use crate::bus::Inflow;
use crate::codec::Shown;
use crate::event::{Event, Position};
use crate::hub::Hub;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::redact::Redactor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

/// What becomes of a group that the log refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Its publishers are told: it was theirs to give, and nobody else has it.
    Answered,
    /// It is tried again until the log takes it: it has its place on the bus, and must not be missing here.
    Insisted,
}

/// The running stages.
pub struct Replica {
    writer: JoinHandle<()>,
    settler: JoinHandle<()>,
    fan_out: tokio::task::JoinHandle<()>,
    nudging: tokio::task::JoinHandle<()>,
    settling: tokio::task::JoinHandle<()>,
    health: Arc<Health>,
}

/// Whether the log takes events.
#[derive(Default)]
pub struct Health {
    refusing: AtomicBool,
    /// Since when a publisher waits for the disk.
    awaited_since: Mutex<Option<Instant>>,
    /// The disk is being waited for.
    syncing: AtomicBool,
}

impl Health {
    /// Whether the last attempt to append or to reach the disk succeeded.
    pub fn is_writable(&self) -> bool {
        !self.refusing.load(Ordering::Relaxed)
    }

    /// For how long the oldest publisher has waited for the disk, and whether the disk is what keeps it waiting:
    /// if it is not, the thread between them stands still.
    pub fn awaited(&self) -> Option<(Duration, bool)> {
        let since = *self.awaited_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| (since.elapsed(), self.syncing.load(Ordering::Relaxed)))
    }

    /// Notes that publishers wait, or that none does any more.
    fn note_awaited(&self, since: Option<Instant>) {
        *self.awaited_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Notes an attempt; true when that is a change.
    fn note(&self, success: bool) -> bool {
        self.refusing.swap(!success, Ordering::Relaxed) == success
    }
}

/// What the writer hands to the fan-out, in order.
enum Showing {
    Group {
        events: Vec<Arc<Shown>>,
        accepted: Instant,
    },
    Early {
        number: u64,
        shown: Arc<Shown>,
    },
    /// From a bus, but the log has it already under its id.
    Dropped {
        event: Arc<Event>,
        position: Position,
    },
    Probe(oneshot::Sender<()>),
}

/// Groups on their way from the writer to the fan-out: beyond that the writer waits.
const GROUPS_IN_FLIGHT: usize = 64;

/// Syncs whose publishers are still to be answered.
const SYNCS_IN_FLIGHT: usize = 16;

/// Most events shown at once.
const EVENTS_AT_ONCE: usize = 256;

/// Clients woken at once beyond which the fan-out lets them go first.
const WAVE: usize = 32;

/// How often old batches are let go of while nothing is published.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

impl Replica {
    /// Starts the stages. `redactor` is for events that others published.
    pub fn start(
        inflow: Arc<Inflow>,
        log: Log,
        hub: Arc<Hub>,
        policy: SyncPolicy,
        refusal: Refusal,
        metrics: Arc<Metrics>,
        redactor: Redactor,
    ) -> std::io::Result<Self> {
        let health = Arc::<Health>::default();
        let (to_fan_out, showing) = mpsc::channel(GROUPS_IN_FLIGHT);
        let (to_settle, settled) = mpsc::channel(SYNCS_IN_FLIGHT);
        let settling_task = tokio::spawn(settler::settle_all(settled));
        let settler = Arc::new(Settler::new(log.clone(), policy, health.clone(), to_settle));
        let settling = settler.clone();
        let settler_thread =
            std::thread::Builder::new().name("log-sync".into()).spawn(move || settling.run())?;
        let nudged = inflow.clone();
        let nudging = tokio::spawn(async move { nudged.keep_nudging().await });
        let writer = writer::Writer {
            inflow,
            log,
            settler,
            to_fan_out,
            metrics,
            health: health.clone(),
            refusal,
            redactor,
        };
        let writer_thread = std::thread::Builder::new().name("log-append".into()).spawn(|| writer.run())?;
        Ok(Self {
            writer: writer_thread,
            settler: settler_thread,
            fan_out: tokio::spawn(fan_out(hub, showing)),
            nudging,
            settling: settling_task,
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
        self.nudging.abort();
        let threads = tokio::task::spawn_blocking(move || {
            let _ = self.writer.join();
            let _ = self.settler.join();
        });
        let _ = threads.await;
        let _ = self.settling.await;
    }
}

async fn fan_out(hub: Arc<Hub>, mut showing: mpsc::Receiver<Showing>) {
    let mut trim = tokio::time::interval(TRIM_INTERVAL);
    trim.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut idle = true;
    loop {
        tokio::select! {
            biased;
            next = showing.recv() => {
                let Some(next) = next else { return };
                idle = false;
                if show(&hub, next, &mut showing) > WAVE {
                    // Whom this woke comes first. What arrives meanwhile is shown, and written to each
                    // client, in one piece: with many clients that is where the time goes.
                    tokio::task::yield_now().await;
                }
            }
            _ = trim.tick(), if !idle => idle = hub.trim(Instant::now()),
        }
    }
}

/// Shows what has come, and all that waits behind it. Returns how many clients were woken.
fn show(hub: &Hub, first: Showing, showing: &mut mpsc::Receiver<Showing>) -> usize {
    let mut probes = Vec::new();
    let mut woken = 0;
    let mut group: Option<(Vec<Arc<Shown>>, Instant)> = None;
    let mut next = Some(first);
    while let Some(showing_now) = next {
        match showing_now {
            Showing::Group { events, accepted } => match &mut group {
                Some((all, _)) => all.extend(events),
                None => group = Some((events, accepted)),
            },
            Showing::Early { number, shown } => {
                // What is ordered and came before it is shown before it.
                woken += group.take().map_or(0, |(events, accepted)| hub.show(&events, accepted));
                woken += hub.show_early(number, shown);
            }
            Showing::Dropped { event, position } => {
                woken += group.take().map_or(0, |(events, accepted)| hub.show(&events, accepted));
                hub.note_dropped(&event, position);
            }
            Showing::Probe(returned) => probes.push(returned),
        }
        let full = group.as_ref().is_some_and(|(events, _)| events.len() >= EVENTS_AT_ONCE);
        next = if full { None } else { showing.try_recv().ok() };
    }
    woken += group.map_or(0, |(events, accepted)| hub.show(&events, accepted));
    for returned in probes {
        // Who asked may have given up waiting.
        let _ = returned.send(());
    }
    woken
}
