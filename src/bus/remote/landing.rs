//! What a remote bus needs of the node behind the inflow.

use crate::event::{Channel, Epoch, Expiry, Origin, Position, Sender};
use std::io;

/// Where events from the bus land: the log and what shows it.
pub trait Landing: Send + Sync + 'static {
    /// The log of the bus that this node is on, and how far it has come on it.
    fn on_bus(&self) -> Option<(Epoch, Position)>;

    /// How far it came on the log of a bus that it was on before and left.
    fn came_to(&self, epoch: Epoch) -> Option<Position>;

    /// The newest position in the log of this node.
    fn head(&self) -> Position;

    /// The position in the log of this node of a position on the bus.
    fn local(&self, position: Position) -> Position;

    /// Until when this node keeps an event that says nothing of it.
    fn expiry(&self, channel: &Channel) -> Expiry;

    /// From now on events are those of another log, which come after its position `after`. With `lost`, clients
    /// are told that they may have missed something. Called only while nothing is on its way; returns the head.
    fn begin_era(&self, epoch: Epoch, after: Position, lost: bool) -> io::Result<Position>;

    /// What is up to this position of the bus cannot be had. As above.
    fn skip_to(&self, up_to: Position) -> io::Result<Position>;

    /// Something may be missing here, on a bus without order. As above.
    fn note_gap(&self) -> io::Result<Position>;

    /// This node sends its events as this run, over so many shards. Said once, before any is sent.
    fn begin_run(&self, origin: Origin, shards: usize);

    /// An event that was read again stands in the log, or all up to it by its sender do.
    fn note_in_log(&self, sender: Sender);
}
