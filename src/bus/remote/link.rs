//! Holds the link to the bus: opens it, reads what is on the bus, and opens it again when it breaks.

use super::backoff::Backoff;
use super::carrier::LinkChange;
use super::landing::Landing;
use super::reader::Reader;
use super::shards::{OpenedShards, Senders, Shards, Tails};
use super::shared::{Shared, State};
use crate::bus::backend::{Arrival, Backend, Content, Origin, Start};
use crate::bus::{Arriving, Inflow, Outcome};
use crate::event::{Epoch, Event, Interest, Position, Sender, Way};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
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
    pub(super) shards: Shards<B>,
    pub(super) shared: Arc<Shared>,
    pub(super) inflow: Arc<Inflow>,
    pub(super) landing: Arc<dyn Landing>,
    pub(super) carrier: mpsc::Sender<LinkChange<Senders<B::Sender>>>,
    /// Which channels are of interest here; none for all.
    pub(super) interest: Option<Interest>,
    /// Without any sign of life for so long the link is opened anew: probes come more often.
    pub(super) longest_silence: Duration,
    pub(super) dir: PathBuf,
    pub(super) reader: Reader,
    pub(super) complained: Option<Instant>,
}

/// Why a link is given up.
enum End {
    Stopped,
    Broken(String),
}

impl<B: Backend> Link<B> {
    /// Runs until everything has been carried.
    pub(super) async fn run(mut self) {
        let mut carried = self.shared.carried.subscribe();
        let mut backoff = Backoff::default();
        while !*carried.borrow() {
            let known = self.reader.known();
            let opened = tokio::select! {
                opened = tokio::time::timeout(LONGEST_OPEN, self.shards.open(&known)) => opened,
                _ = carried.changed() => break,
            };
            let why = match opened {
                Ok(Ok(opened)) => match self.begin(opened).await {
                    Ok(tails) => match self.follow(tails, &mut carried, &mut backoff).await {
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
    async fn begin(&mut self, opened: OpenedShards<B>) -> io::Result<Tails<B::Tail>> {
        let OpenedShards { senders, tails, starts } = opened;
        if starts.iter().any(|(_, start)| *start != Start::Continues) {
            self.landing.note_missed_controls();
        }
        if starts.iter().any(|(_, start)| matches!(start, Start::Anew { .. })) {
            self.begin_epoch(self.reader.begins(&starts)).await?;
        } else if self.reader.misses_something(&starts) {
            self.shared.metrics.bus.gaps.inc();
            tracing::warn!(
                "the bus no longer keeps all that this node has missed: clients that miss it too are told `expired`"
            );
            let marks: Vec<_> = self.reader.begins(&starts).into_iter().map(|(_, after)| after).collect();
            self.skip_to(&marks).await?;
            self.reader.go_to(&marks);
        } else if starts.iter().any(|(_, start)| *start == Start::Now) && self.reader.was_connected {
            self.shared.metrics.bus.gaps.inc();
            self.settle_pipeline().await;
            let up_to = self.landing.note_gap()?;
            self.inflow.number_after(up_to);
        }
        self.reader.begin_link();
        if self.carrier.send(LinkChange::Up(senders)).await.is_err() {
            return Err(io::Error::other("this node is going away"));
        }
        let first = self.shared.state() == State::Connecting;
        if self.shared.set_state(State::Connected) {
            tracing::info!(bus = %self.shards, "connected to the bus");
        }
        if !first {
            self.shared.metrics.bus.reconnects.inc();
        }
        let shared = self.shared.clone();
        // Where the bus takes nothing it takes no probes either: that none comes back says nothing about the link.
        let is_silence_excused = move || shared.refused_why().is_some();
        Ok(Tails::new(tails, BATCH, self.longest_silence, Arc::new(is_silence_excused)))
    }

    /// From here on the shards hold these logs, each read after its position.
    async fn begin_epoch(&mut self, shards: Vec<(Epoch, Position)>) -> io::Result<()> {
        // It may have been on this log before, and left: what it has of it is read again, but not taken again.
        let epochs: Vec<_> = shards.iter().map(|(epoch, _)| *epoch).collect();
        let came_to = self.landing.came_to(&epochs);
        let is_behind = |came_to: &Vec<Position>| {
            came_to.iter().zip(&shards).any(|(came_to, (_, after))| came_to < after)
        };
        let lost = self.reader.was_on_a_bus() || came_to.as_ref().is_some_and(is_behind);
        let mut begins = self.reader.landed_of(&shards);
        for ((_, begin), came_to) in begins.iter_mut().zip(came_to.into_iter().flatten()) {
            *begin = (*begin).max(came_to);
        }
        self.settle_pipeline().await;
        let head = self.landing.begin_era(&begins, lost)?;
        self.inflow.number_after(head);
        self.reader.begin_epoch(&shards, &begins, head);
        let epoch = self.landing.epoch();
        if lost {
            self.shared.metrics.bus.gaps.inc();
            tracing::warn!(
                %epoch,
                "the log on the bus is another one: cursors of before are answered `reset`"
            );
        } else {
            tracing::info!(%epoch, "this node joins the log on the bus");
        }
        Ok(())
    }

    /// What is up to these positions of the shards cannot be had.
    async fn skip_to(&mut self, marks: &[Position]) -> io::Result<()> {
        self.settle_pipeline().await;
        let head = self.landing.skip_to(marks)?;
        self.inflow.number_after(head);
        self.reader.landed = head;
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
                bus = %self.shards,
                reason = why,
                "the bus is away: publishes wait on the disk, and clients of this node get them at once"
            );
        } else if !known {
            tracing::debug!(bus = %self.shards, reason = why, "the bus is still away");
        }
    }

    /// Reads the bus until the link breaks.
    async fn follow(
        &mut self,
        mut tails: Tails<B::Tail>,
        carried: &mut watch::Receiver<bool>,
        backoff: &mut Backoff,
    ) -> End {
        // Of the link before.
        self.shared.take_broken_why();
        loop {
            let arrivals = tokio::select! {
                arrivals = tails.next() => arrivals,
                () = self.shared.broken.notified() => match self.shared.take_broken_why() {
                    Some(why) => return End::Broken(why),
                    None => continue,
                },
                _ = carried.changed() => return End::Stopped,
            };
            match arrivals {
                Ok((shard, arrivals)) => {
                    backoff.reset();
                    let caught_up = arrivals.len() < BATCH;
                    if let Err(error) = self.land(shard, arrivals).await {
                        return End::Broken(format!("the log cannot note where the bus stands: {error}"));
                    }
                    self.shared.set_current(self.reader.note_caught_up(shard, caught_up));
                    if self.reader.is_checkpoint_due(CHECKPOINT_INTERVAL) {
                        self.checkpoint().await;
                    }
                }
                Err(error) => return End::Broken(error.to_string()),
            }
        }
    }

    /// Hands arrivals of a shard on, in order.
    async fn land(&mut self, shard: usize, arrivals: Vec<Arrival>) -> io::Result<()> {
        let mut unreadable = false;
        for Arrival { position, content } in arrivals {
            if unreadable && !matches!(content, Content::Newer(_)) {
                self.pass_unreadable().await?;
                unreadable = false;
            }
            match content {
                Content::Event { event, sender } => self.land_event(shard, *event, sender, position).await,
                Content::Probe { origin, number } => {
                    if origin == self.shared.origin && self.reader.is_probe_back(shard, number) {
                        for returned in self.shared.take_probes(number) {
                            self.inflow.push_when_room(Arriving::Probe(returned)).await;
                        }
                    }
                }
                Content::Epoch(epoch) => {
                    if let Some(shards) = self.reader.with_epoch(shard, epoch, position.unwrap_or_default()) {
                        self.begin_epoch(shards).await?;
                    }
                }
                Content::Newer(version) => {
                    self.complain(&format!(
                        "an entry of version {version}, which this Sidewire is too old for"
                    ));
                    unreadable = position.is_some();
                }
                Content::Malformed(why) => {
                    self.shared.metrics.bus.malformed.inc();
                    self.complain(&format!("an entry that is none: {why}"));
                }
            }
            if let Some(position) = position {
                self.reader.note_read(shard, position);
            }
        }
        if unreadable {
            self.pass_unreadable().await?;
        }
        if !self.reader.is_one() {
            self.landing.note_read(&self.reader.read_up_to());
        }
        Ok(())
    }

    async fn land_event(
        &mut self,
        shard: usize,
        mut event: Event,
        sender: Option<(Origin, u64)>,
        position: Option<Position>,
    ) {
        let own = sender.filter(|(origin, _)| *origin == self.shared.origin).map(|(_, number)| number);
        let repeated = sender.is_some_and(|(origin, number)| !self.reader.note_seen(shard, origin, number));
        let waiting = own.and_then(|number| self.shared.take_waiting(number));
        // One order is the order of the log; of several shards it makes one by itself.
        let place = position.filter(|_| self.reader.is_one()).map(|position| self.landing.local(position));
        // Read again after a restart, so that repetitions are known: the log has it.
        let in_log = match (place, position) {
            (Some(place), _) => place <= self.reader.landed,
            (None, Some(position)) => self.reader.has_landed(shard, position),
            (None, None) => false,
        };
        let reserved = event.channel.is_reserved();
        let wanted = self.interest.as_ref().is_none_or(|interest| interest.matches(&event.channel));
        if repeated {
            self.shared.metrics.bus.duplicates_dropped.inc();
        }
        if in_log && let Some((origin, number)) = sender {
            self.landing.note_in_log(Sender { origin, number }, shard);
        }
        if repeated || in_log || !wanted || reserved {
            // A control of this node was followed before it was sent.
            if reserved && !repeated && !in_log && own.is_none() {
                self.follow_control(event).await;
            }
            if let Some(own) = own {
                self.shared.note_return(shard, own);
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
        match (place, position) {
            (Some(place), _) => event.position = place,
            (None, Some(position)) => {
                event.way.get_or_insert_default().marks = self.reader.marks(shard, position);
            }
            (None, None) => {}
        }
        if let Some(landed) = self.inflow.push_from_bus(event, slot, accepted).await {
            self.reader.landed = landed;
        }
        if let Some(own) = own {
            self.shared.note_return(shard, own);
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

    /// Entries that cannot be read are events that clients miss: they are told.
    async fn pass_unreadable(&mut self) -> io::Result<()> {
        self.shared.metrics.bus.gaps.inc();
        let marks = self.reader.read_up_to();
        self.skip_to(&marks).await
    }

    fn complain(&mut self, what: &str) {
        let quiet = self.complained.is_some_and(|last| last.elapsed() < COMPLAINT_INTERVAL);
        if !quiet {
            self.complained = Some(Instant::now());
            tracing::error!(bus = %self.shards, "on the bus is {what}: it is passed over, and clients that miss it are told; no more is said of such entries for a minute");
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
        let Some(checkpoint) = self.reader.checkpoint() else { return };
        // It must not be ahead of the log, or a start would take lost events for repetitions.
        self.settle_pipeline().await;
        let dir = self.dir.clone();
        let written = tokio::task::spawn_blocking(move || checkpoint.write(&dir)).await;
        if let Ok(Err(error)) = written {
            tracing::debug!(%error, "how far the bus has been read cannot be noted");
        }
    }
}
