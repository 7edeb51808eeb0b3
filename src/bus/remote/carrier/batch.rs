//! One send: what is in it, and what became of it.

use crate::bus::backend::{Origin, Parcel, SendError, SendFailure, Sender};
use crate::outbox::{Entry, Number, Outbox};
use std::time::{Duration, Instant};

/// Most parcels of one send; more would only make the first of them wait.
pub(super) const BATCH_EVENTS: usize = 1024;
/// About the most bytes of one send.
pub(super) const BATCH_BYTES: u64 = 1 << 20;

/// What is being sent.
pub(super) enum Batch {
    /// Events of the window, up to this number, each with its own.
    Direct { numbers: Vec<u64> },
    /// Events of the outbox, each with its number there and, if it is of this run, its own. Those up to `already`
    /// were confirmed after they had been written.
    Stored { already: Option<Number>, numbers: Vec<(Number, Option<u64>)> },
}

/// What became of it.
pub(super) struct Sent<S> {
    pub(super) sender: S,
    pub(super) batch: Batch,
    /// How long the bus took, if it was asked anything.
    pub(super) took: Option<Duration>,
    pub(super) result: Result<(), SendFailure>,
}

/// Sends events of the window, each with its own number.
pub(super) async fn send_direct<S: Sender>(
    mut sender: S,
    numbers: Vec<u64>,
    parcels: Vec<Parcel>,
    timeout: Duration,
) -> Sent<S> {
    let (result, took) = send(&mut sender, &parcels, timeout).await;
    Sent { sender, batch: Batch::Direct { numbers }, took, result }
}

/// The next events of the outbox.
pub(super) struct StoredBatch {
    pub(super) outbox: Outbox,
    /// Up to here the outbox has been sent.
    pub(super) after: Option<Number>,
    pub(super) origin: Origin,
    /// Our own events up to this number are on the bus already.
    pub(super) confirmed_up_to: u64,
    pub(super) probes: Vec<Parcel>,
}

impl StoredBatch {
    /// Reads and sends them.
    pub(super) async fn send<S: Sender>(self, mut sender: S, timeout: Duration) -> Sent<S> {
        let Self { outbox, after, origin, confirmed_up_to, probes } = self;
        let read = tokio::task::spawn_blocking(move || outbox.read(after, BATCH_EVENTS, BATCH_BYTES));
        let entries = match read.await {
            Ok(Ok(entries)) => entries,
            Ok(Err(error)) => {
                tracing::error!(%error, "the outbox cannot be read: what is in it waits");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        let mut already = None;
        let mut numbers = Vec::with_capacity(entries.len());
        let mut parcels = Vec::with_capacity(entries.len() + probes.len());
        for (number, Entry { origin: from, sequence, event }) in entries {
            let own = (from == origin).then_some(sequence);
            if numbers.is_empty() && own.is_some_and(|own| own <= confirmed_up_to) {
                already = Some(number);
                continue;
            }
            parcels.push(Parcel::Event { event, origin: from, sequence });
            numbers.push((number, own));
        }
        parcels.extend(probes);
        let (result, took) = send(&mut sender, &parcels, timeout).await;
        Sent { sender, batch: Batch::Stored { already, numbers }, took, result }
    }
}

async fn send<S: Sender>(
    sender: &mut S,
    parcels: &[Parcel],
    timeout: Duration,
) -> (Result<(), SendFailure>, Option<Duration>) {
    if parcels.is_empty() {
        return (Ok(()), None);
    }
    let started = Instant::now();
    let result = tokio::time::timeout(timeout, sender.send(parcels)).await.unwrap_or_else(|_| {
        let why = format!("the bus did not confirm within {} ms", timeout.as_millis());
        Err(SendFailure { confirmed: 0, error: SendError::Lost(why) })
    });
    (result, Some(started.elapsed()))
}
