//! Holds the link to the bus: opens it, reads what is on the bus, and opens it again when it breaks.

use super::backoff::Backoff;
use super::carrier::LinkChange;
use super::checkpoint::Checkpoint;
use super::landing::Landing;
use super::seen::Seen;
use super::shared::{Shared, State};
use crate::bus::backend::{Arrival, Backend, Content, Opened, Origin, Start, Tail};
use crate::bus::{Arriving, Inflow, Outcome};
use crate::event::{Epoch, Event, Interest, Position, Sender, Way};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Most arrivals taken at a time.
const BATCH: usize = 1024;
/// A backend bounds its own attempts; this is for one that does not.
const LONGEST_OPEN: Duration = Duration::from_secs(15);
/// Between two checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two complaints about entries that cannot be read.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Link<B: Backend> {
    pub(super) backend: B,
    pub(super) shared: Arc<Shared>,
    pub(super) inflow: Arc<Inflow>,
    pub(super) landing: Arc<dyn Landing>,
    pub(super) carrier: mpsc::Sender<LinkChange<B::Sender>>,
    /// Which channels are of interest here; none for all.
    pub(super) interest: Option<Interest>,
    /// Without any sign of life for so long the link is opened anew: probes come more often.
    pub(super) longest_silence: Duration,
    pub(super) dir: PathBuf,
    pub(super) reader: Reader,
}

/// How far the bus has been read.
pub(super) struct Reader {
    epoch: Option<Epoch>,
    /// The position on the bus of the last arrival.
    position: Option<Position>,
    /// The last position in the log that was handed on.
    landed: Position,
    seen: Seen,
    checkpointed: Instant,
    dirty: bool,
    complained: Option<Instant>,
    was_connected: bool,
}

/// Why a link is given up.
enum End {
    Stopped,
    Broken(String),
}

impl Reader {
    /// Where the log and the checkpoint say that reading goes on.
    pub(super) fn restore(landing: &dyn Landing, dir: &std::path::Path) -> Self {
        let on_bus = landing.on_bus();
        let mut reader = Self {
            epoch: on_bus.map(|(epoch, _)| epoch),
            position: on_bus.map(|(_, position)| position),
            landed: landing.head(),
            seen: Seen::default(),
            checkpointed: Instant::now(),
            dirty: false,
            complained: None,
            was_connected: false,
        };
        if let (Some((epoch, head)), Some(checkpoint)) = (on_bus, Checkpoint::read(dir))
            && checkpoint.epoch == epoch
            // One that is ahead of the log would take for repetitions what the log has lost.
            && checkpoint.position <= head
        {
            reader.position = Some(checkpoint.position);
            reader.seen = checkpoint.seen;
        }
        reader
    }
}

impl<B: Backend> Link<B> {
    /// Runs until everything has been carried.
    pub(super) async fn run(mut self) {
        let mut carried = self.shared.carried.subscribe();
        let mut backoff = Backoff::default();
        while !*carried.borrow() {
            let known = self.reader.epoch.zip(self.reader.position);
            let opened = tokio::select! {
                opened = tokio::time::timeout(LONGEST_OPEN, self.backend.open(known)) => opened,
                _ = carried.changed() => break,
            };
            let why = match opened {
                Ok(Ok(opened)) => match self.begin(opened).await {
                    Ok(tail) => match self.follow(tail, &mut carried, &mut backoff).await {
                        End::Stopped => break,
                        End::Broken(why) => why,
                    },
                    Err(error) => format!("the log cannot note where the bus stands: {error}"),
                },
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", LONGEST_OPEN.as_secs()),
            };
            self.lose(why).await;
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                _ = carried.changed() => break,
            }
        }
        // What has come is appended before the checkpoint says so.
        self.checkpoint().await;
        self.inflow.close();
    }

    /// Takes up what the bus has become since this node was last on it.
    async fn begin(&mut self, opened: Opened<B>) -> io::Result<B::Tail> {
        let Opened { sender, tail, epoch, start } = opened;
        if start != Start::Continues {
            self.landing.note_missed_controls();
        }
        match start {
            Start::Continues => {}
            Start::Gap { up_to } => {
                self.shared.metrics.bus.gaps.inc();
                tracing::warn!(
                    "the bus no longer keeps all that this node has missed: clients that miss it too are told `expired`"
                );
                self.settle_pipeline().await;
                self.reader.landed = self.landing.skip_to(up_to)?;
                self.reader.position = Some(up_to);
            }
            Start::Anew { after } => self.begin_epoch(epoch, after).await?,
            Start::Now => {
                if self.reader.was_connected {
                    self.shared.metrics.bus.gaps.inc();
                    self.settle_pipeline().await;
                    let up_to = self.landing.note_gap()?;
                    self.inflow.number_after(up_to);
                }
            }
        }
        self.reader.was_connected = true;
        if self.carrier.send(LinkChange::Up(sender)).await.is_err() {
            return Err(io::Error::other("this node is going away"));
        }
        let first = self.shared.state() == State::Connecting;
        if self.shared.set_state(State::Connected) {
            tracing::info!(bus = %self.backend, "connected to the bus");
        }
        if !first {
            self.shared.metrics.bus.reconnects.inc();
        }
        Ok(tail)
    }

    async fn begin_epoch(&mut self, epoch: Epoch, after: Position) -> io::Result<()> {
        // It may have been on this log before, and left: what it has of it is read again, but not taken again.
        let came_to = self.landing.came_to(epoch);
        let lost = self.reader.epoch.is_some() || came_to.is_some_and(|position| position < after);
        if lost {
            self.shared.metrics.bus.gaps.inc();
            tracing::warn!(
                epoch = %epoch,
                "the log on the bus is another one: cursors of before are answered `reset`"
            );
        } else {
            tracing::info!(epoch = %epoch, "this node joins the log on the bus");
        }
        self.settle_pipeline().await;
        let begin = came_to.map_or(after, |position| position.max(after));
        self.reader.landed = self.landing.begin_era(epoch, begin, lost)?;
        (self.reader.epoch, self.reader.position) = (Some(epoch), Some(after));
        self.reader.dirty = true;
        Ok(())
    }

    async fn lose(&mut self, why: String) {
        self.shared.set_current(false);
        if self.carrier.send(LinkChange::Down).await.is_err() {
            return;
        }
        let known = self.shared.state() == State::Away(why.clone());
        if self.shared.set_state(State::Away(why.clone())) {
            tracing::warn!(
                bus = %self.backend,
                reason = why,
                "the bus is away: publishes wait on the disk, and clients of this node get them at once"
            );
        } else if !known {
            tracing::debug!(bus = %self.backend, reason = why, "the bus is still away");
        }
    }

    /// Reads the bus until the link breaks.
    async fn follow(
        &mut self,
        mut tail: B::Tail,
        carried: &mut watch::Receiver<bool>,
        backoff: &mut Backoff,
    ) -> End {
        // Of the link before.
        self.shared.take_broken_why();
        loop {
            let arrivals = tokio::select! {
                arrivals = tokio::time::timeout(self.longest_silence, tail.next(BATCH)) => arrivals,
                () = self.shared.broken.notified() => match self.shared.take_broken_why() {
                    Some(why) => return End::Broken(why),
                    None => continue,
                },
                _ = carried.changed() => return End::Stopped,
            };
            match arrivals {
                Ok(Ok(arrivals)) => {
                    backoff.reset();
                    let caught_up = arrivals.len() < BATCH;
                    if let Err(error) = self.land(arrivals).await {
                        return End::Broken(format!("the log cannot note where the bus stands: {error}"));
                    }
                    self.shared.set_current(caught_up);
                    if self.reader.dirty && self.reader.checkpointed.elapsed() >= CHECKPOINT_INTERVAL {
                        self.checkpoint().await;
                    }
                }
                Ok(Err(error)) => return End::Broken(error.to_string()),
                // Probes were not taken either: that none comes back says nothing about the link.
                Err(_) if self.shared.refused_why().is_some() => {}
                Err(_) => {
                    return End::Broken(format!(
                        "nothing has come back for {} s although probes were sent",
                        self.longest_silence.as_secs_f32()
                    ));
                }
            }
        }
    }

    /// Hands arrivals on, in order.
    async fn land(&mut self, arrivals: Vec<Arrival>) -> io::Result<()> {
        let mut unreadable: Option<Position> = None;
        for Arrival { position, content } in arrivals {
            if let (Some(up_to), false) = (unreadable, matches!(content, Content::Newer(_))) {
                self.pass_unreadable(up_to).await?;
                unreadable = None;
            }
            match content {
                Content::Event { event, sender } => self.land_event(*event, sender, position).await,
                Content::Probe { origin, number } => {
                    if origin == self.shared.origin
                        && let Some(returned) = self.shared.take_probe(number)
                    {
                        self.inflow.push_when_room(Arriving::Probe(returned)).await;
                    }
                }
                Content::Epoch(epoch) => {
                    if self.reader.epoch != Some(epoch) {
                        self.begin_epoch(epoch, position.unwrap_or_default()).await?;
                    }
                }
                Content::Newer(version) => {
                    self.complain(&format!(
                        "an entry of version {version}, which this Sidewire is too old for"
                    ));
                    unreadable = position;
                }
                Content::Malformed(why) => {
                    self.shared.metrics.bus.malformed.inc();
                    self.complain(&format!("an entry that is none: {why}"));
                }
            }
            if let Some(position) = position {
                self.reader.position = Some(position);
                self.reader.dirty = true;
            }
        }
        match unreadable {
            Some(up_to) => self.pass_unreadable(up_to).await,
            None => Ok(()),
        }
    }

    async fn land_event(
        &mut self,
        mut event: Event,
        sender: Option<(Origin, u64)>,
        position: Option<Position>,
    ) {
        let own = sender.filter(|(origin, _)| *origin == self.shared.origin).map(|(_, number)| number);
        let repeated = sender.is_some_and(|(origin, number)| !self.reader.seen.insert(origin, number));
        let waiting = own.and_then(|number| self.shared.take_waiting(number));
        let place = position.map(|position| self.landing.local(position));
        // Read again after a restart, so that repetitions are known: the log has it.
        let in_log = place.is_some_and(|place| place <= self.reader.landed);
        let reserved = event.channel.is_reserved();
        let wanted = self.interest.as_ref().is_none_or(|interest| interest.matches(&event.channel));
        if repeated {
            self.shared.metrics.bus.duplicates_dropped.inc();
        }
        if repeated || in_log || !wanted || reserved {
            // A control of this node was followed before it was sent.
            if reserved && !repeated && !in_log && own.is_none() {
                self.follow_control(event).await;
            }
            if let Some(own) = own {
                self.note_return(own);
            }
            if let Some(slot) = waiting.and_then(|waiting| waiting.slot) {
                slot.settle(Outcome::Confirmed);
            }
            return;
        }
        match sender {
            None => event.expiry = self.landing.expiry(&event.channel),
            Some((origin, number)) => {
                let sender = Some(Sender { origin, number });
                event.way = Some(Box::new(Way { sender, marks: None }));
            }
        }
        let (slot, accepted) = match waiting {
            Some(waiting) => (waiting.slot, waiting.accepted),
            None => (None, Instant::now()),
        };
        let landing = self.landing.clone();
        let placed = move |place| {
            if let Some(own) = own {
                landing.note_early_return(own, place);
            }
        };
        if let Some(place) = place {
            event.position = place;
            self.reader.landed = place;
        }
        self.inflow.push_from_bus(event, slot, accepted, placed).await;
        if let Some(own) = own {
            self.note_return(own);
        }
    }

    /// Does what another node asks for, before anything that follows it is handed on: once that is in the log, this is
    /// not read again.
    async fn follow_control(&mut self, event: Event) {
        let landing = self.landing.clone();
        let followed = tokio::task::spawn_blocking(move || landing.control(&event)).await;
        if matches!(followed, Ok(false)) {
            self.shared.metrics.bus.malformed.inc();
            self.complain("a word to all nodes that this Sidewire does not know");
        }
    }

    fn note_return(&self, own: u64) {
        self.shared.returned_up_to.fetch_max(own, Ordering::AcqRel);
    }

    /// Entries that cannot be read are events that clients miss: they are told.
    async fn pass_unreadable(&mut self, up_to: Position) -> io::Result<()> {
        self.shared.metrics.bus.gaps.inc();
        self.settle_pipeline().await;
        self.reader.landed = self.landing.skip_to(up_to)?;
        Ok(())
    }

    fn complain(&mut self, what: &str) {
        let quiet = self.reader.complained.is_some_and(|last| last.elapsed() < COMPLAINT_INTERVAL);
        if !quiet {
            self.reader.complained = Some(Instant::now());
            tracing::error!(bus = %self.backend, "on the bus is {what}: it is passed over, and clients that miss it are told; no more is said of such entries for a minute");
        }
    }

    /// Waits until everything that was handed on is in the log and has been shown.
    async fn settle_pipeline(&self) {
        let (returned, back) = oneshot::channel();
        if self.inflow.push_when_room(Arriving::Probe(returned)).await {
            // It is dropped only when the stages behind are going away.
            let _ = back.await;
        }
    }

    async fn checkpoint(&mut self) {
        let (Some(epoch), Some(position)) = (self.reader.epoch, self.reader.position) else { return };
        let checkpoint = Checkpoint { epoch, position, seen: self.reader.seen.clone() };
        self.reader.checkpointed = Instant::now();
        self.reader.dirty = false;
        // It must not be ahead of the log, or a start would take lost events for repetitions.
        self.settle_pipeline().await;
        let dir = self.dir.clone();
        let written = tokio::task::spawn_blocking(move || checkpoint.write(&dir)).await;
        if let Ok(Err(error)) = written {
            tracing::debug!(%error, "how far the bus has been read cannot be noted");
        }
    }
}
