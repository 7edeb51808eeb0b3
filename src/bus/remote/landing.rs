//! What a remote bus needs of the node behind the inflow.

use crate::event::{Channel, Epoch, Event, Expiry, Position};
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

    /// Does what another node asks for on the channel that nodes keep for themselves. Waits for the disk. False if it
    /// is nothing that this node knows.
    fn control(&self, event: &Event) -> bool;

    /// What nodes said on that channel may have been missed: there is a link, but not all that came before it was read.
    fn note_missed_controls(&self);

    /// One of this node's own events has come back, and stands here in the log. Called before it is shown.
    fn note_early_return(&self, number: u64, place: Position);
}
