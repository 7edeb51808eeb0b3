//! The bus gives every event its place in the one log that all nodes on it agree on.
//!
//! Whatever the backend, what it has ordered arrives in the [`Inflow`], from where the replica takes it. In
//! this version there is one backend: [`Memory`], where this node's own log is the bus.

pub mod backend;
pub mod envelope;
mod inflow;
mod memory;
mod receipt;

pub use inflow::{Arriving, Inflow};
pub use memory::Memory;
pub use receipt::{Outcome, Receipt, Slot};

use crate::event::{Event, Position};
use std::fmt;
use tokio::sync::oneshot;

/// What a backend owes its callers.
///
/// - *Order*: events that one caller publishes on one channel one after the other keep that order. A position
///   grows within an epoch and is never used twice.
/// - *Arrival*: everything that `publish` accepted arrives in the [`Inflow`] with its position, each event at
///   least once and in the order of positions; the replica drops repetitions by id.
/// - *Settlement*: the slot of an event is settled exactly once: by whoever knows first that it is safe.
/// - *Refusal*: an event that cannot be taken is refused at once and leaves no trace.
/// - *Proof*: a probe goes the way of an event and comes back when it has been shown to clients.
///
/// No call blocks.
pub trait Bus: Send + Sync + fmt::Display {
    /// Takes events in order. Returns their positions where the bus orders them at once, else nothing.
    fn publish(&self, events: Vec<Stamped>) -> Result<Vec<Position>, Refused>;

    /// Sends a probe the way of an event.
    fn probe(&self, returned: oneshot::Sender<()>) -> Result<(), Refused>;

    /// Whether the link to what orders events stands. Within this process there is none that could break.
    fn is_connected(&self) -> bool {
        true
    }

    /// Takes nothing more; what was accepted still arrives.
    fn close(&self);
}

/// An event on its way to the bus: complete but for its position.
pub struct Stamped {
    /// The event; its position is given by the bus.
    pub event: Event,
    /// Who waits for it, if anybody does.
    pub slot: Option<Slot>,
}

/// Why the bus takes nothing now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Too much is waiting already: try again later.
    QueueFull,
    /// It is being shut down.
    Closed,
}
