//! How a publisher learns what became of its events.

use crate::event::Position;
use smallvec::SmallVec;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What became of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is on the bus, and safe.
    Published(Position),
    /// The same, but it has not come back yet, so that its position is not known.
    Confirmed,
    /// It is safe here and goes out when the bus is back.
    Queued,
    /// Its id is known: nothing new was sent.
    Duplicate(Position),
    /// A newer one came before it could go out, on a channel that takes only the newest of what comes too fast.
    Conflated,
    /// Such a channel has no room to hold it.
    Crowded,
    /// Too much waits for the bus already.
    QueueFull,
    /// The bus does not carry events of this size.
    TooLarge,
    /// There is no room on the disk.
    NoRoom,
    /// The log takes nothing now.
    Unavailable,
    /// Nobody could say in time whether it is safe.
    TimedOut,
}

/// The outcomes of one request's events.
pub struct Receipt(Arc<Shared>);

/// The place where the outcome of one event goes. A slot that is dropped without an outcome settles as
/// [`Outcome::Unavailable`], so that no publisher waits for nobody.
pub struct Slot {
    shared: Arc<Shared>,
    index: usize,
    settled: bool,
    insists_on_bus: bool,
}

struct Shared(Mutex<State>);

struct State {
    outcomes: SmallVec<[Option<Outcome>; 2]>,
    missing: usize,
    waker: Option<Waker>,
}

impl Receipt {
    /// A receipt for so many events.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Shared(Mutex::new(State {
            outcomes: smallvec::smallvec![None; count],
            missing: count,
            waker: None,
        }))))
    }

    /// The slot of one event. Each index is asked for once.
    pub fn slot(&self, index: usize) -> Slot {
        Slot { shared: self.0.clone(), index, settled: false, insists_on_bus: false }
    }

    /// Waits for all of them; what is not known in time is [`Outcome::TimedOut`].
    pub async fn outcomes(self, timeout: Duration) -> Vec<Outcome> {
        let _ = tokio::time::timeout(timeout, Settled(&self.0)).await;
        let state = self.0.lock();
        state.outcomes.iter().map(|outcome| outcome.unwrap_or(Outcome::TimedOut)).collect()
    }
}

impl Slot {
    /// The same for a publisher that is not content with the event being safe on this disk.
    pub fn insisting_on_bus(mut self) -> Self {
        self.insists_on_bus = true;
        self
    }

    /// Whether its publisher waits for the bus, however safe the event is here.
    pub fn insists_on_bus(&self) -> bool {
        self.insists_on_bus
    }

    /// Says what became of the event.
    pub fn settle(mut self, outcome: Outcome) {
        self.set(outcome);
    }

    fn set(&mut self, outcome: Outcome) {
        self.settled = true;
        let mut state = self.shared.lock();
        state.outcomes[self.index] = Some(outcome);
        state.missing -= 1;
        if state.missing == 0 {
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.settled {
            self.set(Outcome::Unavailable);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ready when nothing is missing.
struct Settled<'a>(&'a Shared);

impl Future for Settled<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.missing == 0 {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_slot_is_settled_however_it_ends() {
        let receipt = Receipt::new(3);
        receipt.slot(2).settle(Outcome::Published(Position(7)));
        drop(receipt.slot(0));
        let last = receipt.slot(1);
        let waiting = tokio::spawn(receipt.outcomes(Duration::from_secs(60)));
        last.settle(Outcome::Duplicate(Position(1)));
        let outcomes = waiting.await.unwrap();
        assert_eq!(
            outcomes,
            [Outcome::Unavailable, Outcome::Duplicate(Position(1)), Outcome::Published(Position(7))]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let receipt = Receipt::new(1);
        let _slot = receipt.slot(0);
        assert_eq!(receipt.outcomes(Duration::from_secs(2)).await, [Outcome::TimedOut]);
    }
}
