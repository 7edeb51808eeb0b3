//! The thread that waits for the disk. Whatever has gathered while one `fdatasync` ran shares the next.

use super::{Health, SyncPolicy};
use crate::bus::{Outcome, Slot};
use crate::log::Log;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long events that nobody waits for may stay in the page cache with [`SyncPolicy::Always`].
const UNAWAITED: Duration = Duration::from_millis(50);

/// What waits for the disk.
pub struct Settler {
    log: Log,
    policy: SyncPolicy,
    health: Arc<Health>,
    /// Where slots are settled: by a task, which wakes all the publishers of a sync without leaving its thread.
    /// From here each wake-up would be a switch of threads; measured, that was a third of a publish.
    settled: mpsc::Sender<Settled>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Slots with their outcomes.
pub(super) type Settled = Vec<(Slot, Outcome)>;

/// Settles what the disk has.
pub(super) async fn settle_all(mut settled: mpsc::Receiver<Settled>) {
    while let Some(slots) = settled.recv().await {
        for (slot, outcome) in slots {
            slot.settle(outcome);
        }
    }
}

#[derive(Default)]
struct State {
    waiting: Vec<(Slot, Outcome)>,
    /// A publisher waits, here or for the sync that runs.
    awaited: bool,
    /// Something was appended since the last sync.
    dirty: bool,
    closed: bool,
    asleep: bool,
}

impl Settler {
    pub(super) fn new(
        log: Log,
        policy: SyncPolicy,
        health: Arc<Health>,
        settled: mpsc::Sender<Settled>,
    ) -> Self {
        Self { log, policy, health, settled, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Takes slots whose events have been appended, to be settled once the disk has them.
    pub(super) fn add(&self, slots: Vec<(Slot, Outcome)>, appended: bool) {
        let slots = if self.policy == SyncPolicy::Always {
            slots
        } else {
            for (slot, outcome) in slots {
                slot.settle(outcome);
            }
            Vec::new()
        };
        let mut state = self.lock();
        let newly_dirty = appended && self.policy != SyncPolicy::Never && !state.dirty;
        state.dirty |= newly_dirty;
        let wake = state.asleep && (newly_dirty || !slots.is_empty());
        if !slots.is_empty() && !state.awaited {
            state.awaited = true;
            self.health.note_awaited(Some(Instant::now()));
        }
        if state.waiting.is_empty() {
            state.waiting = slots;
        } else {
            state.waiting.extend(slots);
        }
        drop(state);
        if wake {
            self.changed.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Runs until it is closed and nothing waits.
    pub(super) fn run(&self) {
        loop {
            let mut state = self.wait_for_work();
            let waiting = std::mem::take(&mut state.waiting);
            let dirty = std::mem::take(&mut state.dirty);
            let closed = state.closed;
            drop(state);
            if dirty || !waiting.is_empty() {
                self.sync(waiting);
                let mut state = self.lock();
                // Who came meanwhile waits from now on.
                state.awaited = !state.waiting.is_empty();
                self.health.note_awaited(state.awaited.then(Instant::now));
            } else if closed {
                return;
            }
        }
    }

    /// Returns when somebody waits, when what nobody waits for has been in the page cache long enough, or
    /// when it is closed.
    fn wait_for_work(&self) -> MutexGuard<'_, State> {
        let pause = match self.policy {
            SyncPolicy::Every(interval) => interval,
            SyncPolicy::Always | SyncPolicy::Never => UNAWAITED,
        };
        let mut state = self.lock();
        while state.waiting.is_empty() && !state.closed {
            state.asleep = true;
            if state.dirty {
                let (woken, timeout) =
                    self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                if timeout.timed_out() {
                    break;
                }
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        state.asleep = false;
        state
    }

    fn sync(&self, waiting: Vec<(Slot, Outcome)>) {
        self.health.syncing.store(true, Ordering::Relaxed);
        let synced = self.log.sync();
        self.health.syncing.store(false, Ordering::Relaxed);
        match synced {
            Ok(_) if waiting.is_empty() => {}
            Ok(_) => {
                // The task lives until this thread has ended; without it the slots settle as they are dropped.
                let _ = self.settled.blocking_send(waiting);
            }
            Err(error) => {
                if self.health.note(false) {
                    tracing::error!(%error, "the disk did not take the log: publishes are answered 503 until this is mended");
                }
                for (slot, _) in waiting {
                    slot.settle(Outcome::Unavailable);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
