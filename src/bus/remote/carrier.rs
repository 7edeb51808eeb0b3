//! Carries what was published to the bus, in one order. There are two ways:
//!
//! - *direct*: an event waits in memory, is sent with whatever else waits, and its publisher is answered when it
//!   has come back from the bus. One send is under way at a time, so that order is kept whatever fails.
//! - *by disk*: as soon as the bus is away, or has not confirmed an event within the hedge time, everything
//!   goes through the outbox: its publisher is answered when it is on the disk, and it is sent from there. The
//!   direct way is taken again when the outbox is empty.
//!
//! So an answer takes no longer than the hedge time and a write to the disk, whatever the bus does. A bus that is
//! slow to answer is treated as one that is away until it is quick again.

mod batch;
mod pace;

use self::batch::{BATCH_BYTES, BATCH_EVENTS, Batch, Sent, StoredBatch, send_direct};
use self::pace::{Change, Pace};
use super::backoff::Backoff;
use super::shared::{Accepted, Shared, Waiting};
use crate::bus::backend::{Parcel, SendError, Sender};
use crate::bus::{Arriving, Inflow, Outcome};
use crate::event::Event;
use crate::outbox::{AppendError, Entry, Number, Outbox};
use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long a shutdown goes on sending what the outbox has.
const LAST_CALL: Duration = Duration::from_secs(3);

/// What the link tells the carrier.
pub(super) enum LinkChange<S> {
    /// There is a link.
    Up(S),
    /// There is none any more.
    Down,
}

/// An event on the direct way.
struct Direct {
    number: u64,
    shard: usize,
    event: Arc<Event>,
    accepted: Instant,
    bytes: usize,
    confirmed: bool,
}

type Sending<S> = Pin<Box<dyn Future<Output = Sent<S>> + Send>>;
type Storing = JoinHandle<(Vec<Direct>, Result<(), AppendError>)>;

pub(super) struct Carrier<S> {
    shared: Arc<Shared>,
    inflow: Arc<Inflow>,
    outbox: Outbox,
    hedge: Duration,
    send_timeout: Duration,
    links: mpsc::Receiver<LinkChange<S>>,
    sender: Option<S>,
    sending: Option<Sending<S>>,
    next_number: u64,
    /// Every event of this run up to this number is on the bus.
    confirmed_up_to: u64,
    window: VecDeque<Direct>,
    by_disk: bool,
    to_store: Vec<Direct>,
    storing: Option<Storing>,
    /// Up to here the outbox has been sent or looked at.
    drained: Option<Number>,
    probes: Vec<u64>,
    /// By shard: the newest event that waited on the disk and was not shown early. Until it has come back nothing
    /// is, as the clients of this node could not tell that they lack it.
    unshown: Vec<u64>,
    /// The outbox held events of an earlier run at first: they come before those of this one.
    began_late: bool,
    backoff: Backoff,
    paused_until: Option<Instant>,
    pace: Pace,
    closing: Option<Instant>,
}

impl<S: Sender> Carrier<S> {
    pub(super) fn new(
        shared: Arc<Shared>,
        inflow: Arc<Inflow>,
        outbox: Outbox,
        hedge: Duration,
        send_timeout: Duration,
        links: mpsc::Receiver<LinkChange<S>>,
    ) -> Self {
        let is_empty = outbox.is_empty();
        let unshown = vec![0; shared.shards()];
        Self {
            shared,
            inflow,
            outbox,
            hedge,
            send_timeout,
            links,
            sender: None,
            sending: None,
            next_number: 1,
            confirmed_up_to: 0,
            window: VecDeque::new(),
            by_disk: !is_empty,
            to_store: Vec::new(),
            storing: None,
            drained: None,
            probes: Vec::new(),
            unshown,
            began_late: !is_empty,
            backoff: Backoff::default(),
            paused_until: None,
            pace: Pace::default(),
            closing: None,
        }
    }

    /// Runs until it is closed and nothing is left in memory.
    pub(super) async fn run(mut self) {
        loop {
            self.take_accepted().await;
            self.forget_returned();
            self.hedge().await;
            self.store();
            self.send();
            if self.is_done() {
                break;
            }
            let deadline = self.deadline();
            tokio::select! {
                change = self.links.recv() => match change {
                    Some(LinkChange::Up(sender)) => {
                        self.shared.set_max_event_bytes(sender.max_event_bytes());
                        (self.sender, self.sending, self.paused_until) = (Some(sender), None, None);
                        self.pace = Pace::default();
                        // Those that were lost with the link before would be waited for in vain.
                        self.probes = self.shared.outstanding_probes();
                        // What was under way on the link before is read from the outbox again.
                        self.drained = None;
                    }
                    Some(LinkChange::Down) => self.lose_link().await,
                    None => break,
                },
                sent = wait_for(&mut self.sending) => {
                    self.sending = None;
                    self.note_sent(sent).await;
                }
                stored = wait_for(&mut self.storing) => {
                    self.storing = None;
                    match stored {
                        Ok((events, result)) => self.note_stored(events, result).await,
                        // The runtime is going away, or a bug: the slots settle as they are dropped.
                        Err(error) => tracing::error!(%error, "the thread that writes the outbox ended"),
                    }
                }
                () = self.shared.filled.notified() => {}
                () = tokio::time::sleep_until(deadline.unwrap_or_else(far_future).into()), if deadline.is_some() => {}
            }
        }
        let outbox = self.outbox;
        let _ = tokio::task::spawn_blocking(move || outbox.close()).await;
        self.shared.carried.send_replace(true);
    }

    async fn take_accepted(&mut self) {
        // What the link tells may come later than its state: nothing goes by disk before what waits already.
        if self.shared.is_away() && !self.by_disk {
            self.go_by_disk().await;
        }
        let (accepted, probes, closed) = self.shared.take_accepted();
        if !probes.is_empty() {
            self.probes = probes;
        }
        if closed {
            self.closing.get_or_insert_with(Instant::now);
        }
        for Accepted { stamped, at } in accepted {
            let number = self.next_number;
            self.next_number += 1;
            let bytes = stamped.event.footprint();
            if let Some(slot) = stamped.slot {
                self.shared.await_return(number, Waiting { slot: Some(slot), accepted: at });
            }
            let event = Arc::new(stamped.event);
            let shard = self.shared.shard_of(&event.channel);
            let direct = Direct { number, shard, event, accepted: at, bytes, confirmed: false };
            match self.by_disk {
                true => self.to_store.push(direct),
                false => self.window.push_back(direct),
            }
        }
    }

    /// Lets go of what has come back.
    fn forget_returned(&mut self) {
        let has_returned = |direct: &Direct| self.shared.has_returned(direct.shard, direct.number);
        while self.window.front().is_some_and(has_returned) {
            if let Some(direct) = self.window.pop_front() {
                self.shared.release(direct.bytes);
            }
        }
    }

    /// Goes by disk when something has not come back in time. If the bus has confirmed it, it is not written, but
    /// answered and shown early: what its publisher sends next must not be shown before it.
    async fn hedge(&mut self) {
        let (now, patience) = (Instant::now(), self.patience());
        if self.window.front().is_some_and(|direct| direct.accepted + patience <= now) {
            self.go_by_disk().await;
        }
    }

    /// How long a publish waits for the bus.
    fn patience(&self) -> Duration {
        self.pace.patience(self.hedge)
    }

    /// Everything that the bus has not confirmed goes through the outbox from now on, and so does what follows.
    async fn go_by_disk(&mut self) {
        self.by_disk = true;
        for direct in std::mem::take(&mut self.window) {
            if direct.confirmed {
                self.shared.settle(direct.number, Outcome::Confirmed, false);
                self.show_early(&direct).await;
                self.shared.release(direct.bytes);
            } else {
                self.to_store.push(direct);
            }
        }
    }

    async fn lose_link(&mut self) {
        (self.sender, self.sending) = (None, None);
        self.drained = None;
        self.go_by_disk().await;
    }

    /// Writes what gathered while the last write was under way.
    fn store(&mut self) {
        if self.to_store.is_empty() || self.storing.is_some() {
            return;
        }
        let events = std::mem::take(&mut self.to_store);
        let (outbox, origin) = (self.outbox.clone(), self.shared.origin);
        self.storing = Some(tokio::task::spawn_blocking(move || {
            let entries: Vec<_> = events
                .iter()
                .map(|direct| Entry { origin, sequence: direct.number, event: direct.event.clone() })
                .collect();
            let result = outbox.append(&entries);
            (events, result)
        }));
    }

    async fn note_stored(&mut self, events: Vec<Direct>, result: Result<(), AppendError>) {
        let refusal = match &result {
            Ok(()) => None,
            Err(AppendError::Full) => Some(Outcome::QueueFull),
            Err(AppendError::NoRoom) => Some(Outcome::NoRoom),
            Err(AppendError::Io(_)) => Some(Outcome::Unavailable),
        };
        for direct in &events {
            self.shared.settle(direct.number, refusal.unwrap_or(Outcome::Queued), refusal.is_none());
        }
        for direct in events {
            if refusal.is_none() {
                self.show_early(&direct).await;
            }
            self.shared.release(direct.bytes);
        }
        self.note_outbox(result.err());
    }

    fn note_outbox(&self, error: Option<AppendError>) {
        if self.shared.note_outbox(error.is_none()) {
            match error {
                None => tracing::info!("the outbox takes events again"),
                Some(error) => tracing::error!(
                    %error,
                    "the outbox refuses events: while the bus is away publishes are answered 503"
                ),
            }
        }
    }

    async fn show_early(&mut self, direct: &Direct) {
        if direct.event.channel.is_reserved() {
            return;
        }
        let (event, number) = (direct.event.clone(), direct.number);
        let shard = self.shared.shard_of(&event.channel);
        let mut unshown = self.unshown.iter().enumerate();
        if self.began_late && !self.shared.has_returned(shard, 1)
            || !unshown.all(|(shard, number)| self.shared.has_returned(shard, *number))
        {
            self.unshown[shard] = number;
            return;
        }
        self.inflow.push_when_room(Arriving::Early { event, number }).await;
    }

    fn bus_is_well(&self) -> bool {
        !self.pace.is_slow() && self.shared.refused_why().is_none()
    }

    /// Sends what waits, unless something is under way.
    fn send(&mut self) {
        let idle = self.to_store.is_empty() && self.storing.is_none() && self.sending.is_none();
        if self.by_disk && idle && self.outbox.is_empty() && self.bus_is_well() {
            self.by_disk = false;
            self.drained = None;
        }
        if self.sending.is_some() || self.paused_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        let Some(sender) = self.sender.take() else { return };
        let probes: Vec<_> = std::mem::take(&mut self.probes);
        let origin = self.shared.origin;
        let probes = probes.into_iter().map(move |number| Parcel::Probe { origin, number });
        let timeout = self.send_timeout;
        if self.by_disk {
            if self.outbox.is_empty() && probes.len() == 0 {
                self.sender = Some(sender);
                return;
            }
            let stored = StoredBatch {
                outbox: self.outbox.clone(),
                after: self.drained,
                origin,
                confirmed_up_to: self.confirmed_up_to,
                probes: probes.collect(),
            };
            self.sending = Some(Box::pin(async move { stored.send(sender, timeout).await }));
            return;
        }
        let mut numbers = Vec::new();
        let mut parcels = Vec::new();
        let mut bytes = 0;
        for direct in self.window.iter().filter(|direct| !direct.confirmed) {
            if numbers.len() >= BATCH_EVENTS || bytes >= BATCH_BYTES {
                break;
            }
            bytes += direct.bytes as u64;
            numbers.push(direct.number);
            parcels.push(Parcel::Event { event: direct.event.clone(), origin, sequence: direct.number });
        }
        parcels.extend(probes);
        if parcels.is_empty() {
            self.sender = Some(sender);
            return;
        }
        self.sending = Some(Box::pin(async move { send_direct(sender, numbers, parcels, timeout).await }));
    }

    async fn note_sent(&mut self, sent: Sent<S>) {
        let Sent { sender, batch, took, result } = sent;
        if let Some(took) = took {
            match self.pace.note(took, self.hedge, Instant::now()) {
                Some(Change::Slow) => tracing::warn!(
                    ?took,
                    "the bus has been slow to confirm for a while: publishes wait on the disk until it is quick again"
                ),
                Some(Change::QuickAgain) => tracing::info!("the bus is quick again"),
                None => {}
            }
        }
        let confirmed = result.as_ref().map_or_else(|failure| failure.confirmed, |()| usize::MAX);
        match &batch {
            Batch::Direct { numbers } => {
                let confirmed = &numbers[..confirmed.min(numbers.len())];
                if let Some(last) = confirmed.last() {
                    self.confirmed_up_to = self.confirmed_up_to.max(*last);
                    for direct in self.window.iter_mut().take_while(|direct| direct.number <= *last) {
                        direct.confirmed = true;
                    }
                }
            }
            Batch::Stored { already, numbers } => {
                let confirmed = &numbers[..confirmed.min(numbers.len())];
                for number in confirmed.iter().filter_map(|(_, own)| *own) {
                    self.confirmed_up_to = self.confirmed_up_to.max(number);
                }
                if let Some(last) = confirmed.last().map(|(last, _)| *last).or(*already) {
                    self.outbox.settle(last);
                    self.drained = Some(last);
                }
            }
        }
        let Err(failure) = result else {
            self.backoff.reset();
            if self.shared.note_refusing(None) {
                tracing::info!("the bus takes events again");
            }
            self.sender = Some(sender);
            return;
        };
        match failure.error {
            SendError::Lost(why) | SendError::Gone(why) => {
                drop(sender);
                self.shared.report_broken(why);
                self.go_by_disk().await;
            }
            SendError::Refused(why) => {
                self.sender = Some(sender);
                self.paused_until = Some(Instant::now() + self.backoff.next());
                if self.shared.note_refusing(Some(why.clone())) {
                    tracing::warn!(reason = why, "the bus takes no events now: they wait on the disk");
                }
                self.go_by_disk().await;
            }
            SendError::Unfit(why) => {
                self.sender = Some(sender);
                self.leave_out(&batch, failure.confirmed, why).await;
            }
        }
    }

    /// The bus will never take a parcel: it must not keep the others waiting.
    async fn leave_out(&mut self, batch: &Batch, place: usize, why: String) {
        match batch {
            Batch::Direct { numbers } => {
                let Some(number) = numbers.get(place) else { return };
                self.shared.settle(*number, Outcome::TooLarge, false);
                if let Some(at) = self.window.iter().position(|direct| direct.number == *number)
                    && let Some(direct) = self.window.remove(at)
                {
                    self.shared.release(direct.bytes);
                }
            }
            Batch::Stored { numbers, .. } => {
                let Some((number, own)) = numbers.get(place) else { return };
                if let Some(own) = own {
                    self.shared.settle(*own, Outcome::TooLarge, false);
                }
                tracing::error!(
                    reason = why,
                    "the bus will never take an event that was accepted: it is kept in the outbox directory, in rejected.ndjson"
                );
                let (outbox, number) = (self.outbox.clone(), *number);
                let rejected = tokio::task::spawn_blocking(move || outbox.reject(number, &why)).await;
                if let Ok(Err(error)) = rejected {
                    tracing::error!(%error, "an event that the bus does not take cannot be put aside: it is tried again");
                    self.paused_until = Some(Instant::now() + self.backoff.next());
                    return;
                }
                self.drained = Some(number);
            }
        }
    }

    fn is_done(&self) -> bool {
        let Some(closing) = self.closing else { return false };
        let nothing_held = self.window.iter().all(|direct| direct.confirmed)
            && self.to_store.is_empty()
            && self.storing.is_none();
        let sent = self.sending.is_none() && self.outbox.is_empty() && self.window.is_empty();
        let given_up = self.shared.is_away() || closing.elapsed() > LAST_CALL;
        nothing_held && (sent || given_up)
    }

    /// When something is due next without anybody's doing.
    fn deadline(&self) -> Option<Instant> {
        let hedge = self.window.front().map(|direct| direct.accepted + self.patience());
        let closing = self.closing.map(|since| since.max(Instant::now()) + Duration::from_millis(20));
        [hedge, self.paused_until.filter(|_| self.sending.is_none()), closing].into_iter().flatten().min()
    }
}

/// Waits for what may be under way; for ever if nothing is.
async fn wait_for<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[cfg(test)]
mod tests;
