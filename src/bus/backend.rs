//! What a server that carries events between nodes must offer: put parcels on it in order, and read all that
//! is on it, in the one order that every node sees.
//!
//! The remote bus does with it what is the same for all of them: retries, breaker, outbox, duplicates,
//! probes, epochs. A backend knows its protocol and nothing else: it never retries, and holds no queue.

pub use crate::event::Origin;

use crate::event::{Epoch, Event, Position};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// What is put on the bus.
#[derive(Clone, Debug)]
pub enum Parcel {
    /// An event. A parcel whose fate is unknown is sent again under the same origin and sequence.
    Event {
        /// The event; the bus gives the position.
        event: Arc<Event>,
        /// Who sends it.
        origin: Origin,
        /// Which of its events: 1, 2, 3 and so on.
        sequence: u64,
    },
    /// A sign of life that every node passes over but the one that sent it.
    Probe {
        /// Who sends it.
        origin: Origin,
        /// Which of its probes.
        number: u64,
    },
}

/// What comes from the bus.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its place in the order of the bus, growing from arrival to arrival; none where the bus keeps no order.
    pub position: Option<Position>,
    /// What it is.
    pub content: Content,
}

/// What an arrival is.
#[derive(Clone, Debug)]
pub enum Content {
    /// An event.
    Event {
        /// The event; its own position means nothing yet. Boxed, as the other kinds are small.
        event: Box<Event>,
        /// Who sent it as which of its events; none if it was put there by something else than Sidewire.
        sender: Option<(Origin, u64)>,
    },
    /// A probe of some node.
    Probe {
        /// Who sent it.
        origin: Origin,
        /// Which of its probes.
        number: u64,
    },
    /// From here on it is another log: some node found that the one before was lost.
    Epoch(Epoch),
    /// An entry of a newer version of Sidewire, which this one cannot read.
    Newer(u32),
    /// An entry that nobody can read.
    Malformed(&'static str),
}

/// A server that carries events.
pub trait Backend: fmt::Display + Send + Sync + 'static {
    /// Puts parcels on the bus.
    type Sender: Sender;
    /// Reads what is on the bus.
    type Tail: Tail;

    /// Whether it keeps one order, from which a node can read on where it stood.
    fn is_ordered(&self) -> bool;

    /// Connects, checks or makes what it needs on the server, and says how the log there relates to what this
    /// node has: `known` is the epoch and the position of the last arrival that it took. `known` is `None` on a
    /// node that has never been on a bus. Bounded in time by the backend itself (a few seconds at most).
    ///
    /// A node whose log was lost on the bus begins a new epoch there, unless another did so first.
    fn open(
        &self,
        known: Option<(Epoch, Position)>,
    ) -> impl Future<Output = Result<Opened<Self>, LinkError>> + Send
    where
        Self: Sized;
}

/// An open link.
pub struct Opened<B: Backend> {
    /// For putting parcels on the bus.
    pub sender: B::Sender,
    /// For reading; it begins as `start` says.
    pub tail: B::Tail,
    /// Which log is on the bus. Means nothing where the bus keeps no order.
    pub epoch: Epoch,
    /// Where the tail begins.
    pub start: Start,
}

/// Where a tail begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Right after what the node has.
    Continues,
    /// The bus no longer keeps what follows: everything in (what the node has, `up_to`] is gone. The tail
    /// begins after `up_to`.
    Gap {
        /// The last position that is gone.
        up_to: Position,
    },
    /// It is another log than the one that the node knows: the tail begins with the oldest that is kept,
    /// which comes after `after`.
    Anew {
        /// The position before the oldest that is kept.
        after: Position,
    },
    /// The bus keeps nothing: the tail begins now.
    Now,
}

/// Puts parcels on the bus.
pub trait Sender: Send + 'static {
    /// Puts parcels on the bus in this order and waits until the bus has confirmed them: pipelined, one wait
    /// for all. Bounded in time by the caller, who drops the future; the sender is then not used again.
    fn send(&mut self, parcels: &[Parcel]) -> impl Future<Output = Result<(), SendFailure>> + Send;

    /// Largest event (payload, with channel, name, tags and id) that the bus takes.
    fn max_event_bytes(&self) -> usize;
}

/// A send that did not succeed in full.
#[derive(Clone, Debug)]
pub struct SendFailure {
    /// So many parcels from the first on are confirmed. Of the rest nothing is known.
    pub confirmed: usize,
    /// What happened to the one after them.
    pub error: SendError,
}

/// Why the bus did not take a parcel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SendError {
    /// The link broke: open it anew.
    Lost(String),
    /// The bus takes nothing now (out of memory, read only, loading): try again, perhaps on a new link.
    Refused(String),
    /// The bus will never take this parcel (too large): it must not keep the others waiting.
    Unfit(String),
    /// What was on the bus is gone: open the link anew to see.
    Gone(String),
}

/// Reads what is on the bus.
pub trait Tail: Send + 'static {
    /// Waits until something is there and takes what is there, up to about `most` arrivals. Waits for ever if
    /// nothing comes and the link stands. The caller may drop the future only to drop the tail with it.
    fn next(&mut self, most: usize) -> impl Future<Output = Result<Vec<Arrival>, LinkError>> + Send;
}

/// Why there is no link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkError {
    /// The server cannot be reached, or went away.
    Away(String),
    /// The server is there, but does not let us work: wrong password, missing right, settings that clash with
    /// ours. Retried as well, as an operator may mend it on the server.
    Refused(String),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(why) | Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for LinkError {}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(why) | Self::Refused(why) | Self::Unfit(why) | Self::Gone(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for SendError {}
