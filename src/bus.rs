//! The bus gives every event its place in the one log that all nodes on it agree on.
//!
//! Whatever the bus, what it has ordered arrives in the [`Inflow`], from where the replica takes it. With
//! [`Memory`] this node's own log is the bus; a [`remote::Remote`] one is elsewhere.

pub mod backend;
pub mod envelope;
mod inflow;
mod memory;
pub mod nats;
pub mod plain;
mod receipt;
pub mod redis;
pub mod remote;
pub mod survey;

pub use inflow::{Arriving, Inflow};
pub use memory::Memory;
pub use receipt::{Outcome, Receipt, Slot};

use crate::event::{Event, EventId, Position, UnixMs};
use crate::outbox::{ReadError, Sought};
use backend::Origin;
use std::fmt;
use std::time::Duration;
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
/// No call blocks but `seek`.
pub trait Bus: Send + Sync + fmt::Display {
    /// Takes events in order. Returns their positions where the bus orders them at once, else nothing.
    fn publish(&self, events: Vec<Stamped>) -> Result<Vec<Position>, Refused>;

    /// Sends a probe the way of an event.
    fn probe(&self, returned: oneshot::Sender<()>) -> Result<(), Refused>;

    /// Takes nothing more; what was accepted still arrives, or waits on the disk for the next start.
    fn close(&self);

    /// Whether other nodes may be on it.
    fn is_shared(&self) -> bool {
        false
    }

    /// How it is. For whoever asks now and then.
    fn status(&self) -> BusStatus {
        BusStatus { outbox_takes: true, ..BusStatus::default() }
    }

    /// What waits here for the bus, or was refused by it, under an id. Reads the disk.
    fn seek(&self, _id: &EventId) -> Result<OffBus, ReadError> {
        Ok(OffBus::default())
    }
}

/// Events that were accepted here and are not on the bus.
#[derive(Clone, Default, Debug)]
pub struct OffBus {
    /// What is found in the outbox.
    pub sought: Sought,
    /// Which run of this node it is: events of another were not shown early by this one.
    pub origin: Option<Origin>,
}

/// How a bus is.
#[derive(Clone, Default, Debug)]
pub struct BusStatus {
    /// Why events do not get through at the moment, if they do not.
    pub trouble: Option<String>,
    /// Whether publishes are accepted while it is away.
    pub outbox_takes: bool,
    /// Events that wait on the disk until it is back.
    pub outbox_events: u64,
    /// The same in bytes on the disk.
    pub outbox_bytes: u64,
    /// When the oldest of them was accepted.
    pub outbox_oldest_ms: Option<UnixMs>,
    /// Events of this node that are on their way, in memory.
    pub held_events: usize,
    /// The same in bytes.
    pub held_bytes: usize,
    /// For how long this node has not read everything that is on the bus.
    pub lag: Duration,
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
    /// The bus does not carry events of this size.
    TooLarge,
    /// It is being shut down.
    Closed,
}
