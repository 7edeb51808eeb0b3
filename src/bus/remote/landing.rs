//! What a remote bus needs of the node behind the inflow.

use crate::event::{Channel, Epoch, Event, Expiry, Origin, Position, Sender};
use std::io;

/// Where events from the bus land: the log and what shows it.
pub trait Landing: Send + Sync + 'static {
    /// The logs of the bus that this node is on, one for each shard, and how far it has come on each.
    fn on_bus(&self) -> Option<Vec<(Epoch, Position)>>;

    /// How far it came on the logs of a bus that it was on before and left.
    fn came_to(&self, epochs: &[Epoch]) -> Option<Vec<Position>>;

    /// Which log that of this node is now.
    fn epoch(&self) -> Epoch;

    /// The newest position in the log of this node.
    fn head(&self) -> Position;

    /// The position in the log of this node of a position on a bus with one order.
    fn local(&self, position: Position) -> Position;

    /// Until when this node keeps an event that says nothing of it.
    fn expiry(&self, channel: &Channel) -> Expiry;

    /// From now on events are those of other logs: on each shard what comes after its position. With `lost`,
    /// clients are told that they may have missed something. Called only while nothing is on its way; returns the
    /// head.
    fn begin_era(&self, shards: &[(Epoch, Position)], lost: bool) -> io::Result<Position>;

    /// What is up to these positions of the shards cannot be had. As above.
    fn skip_to(&self, marks: &[Position]) -> io::Result<Position>;

    /// Something may be missing here, on a bus without order. As above.
    fn note_gap(&self) -> io::Result<Position>;

    /// Does what another node asks for on the channel that nodes keep for themselves. Waits for the disk. False if it
    /// is nothing that this node knows.
    fn control(&self, event: &Event) -> bool;

    /// What nodes said on that channel may have been missed: there is a link, but not all that came before it was read.
    fn note_missed_controls(&self);

    /// This node sends its events as this run, over so many shards. Said once, before any is sent.
    fn begin_run(&self, origin: Origin, shards: usize);

    /// An event that was read again on a shard stands in the log, or all up to it there by its sender do.
    fn note_in_log(&self, sender: Sender, shard: usize);

    /// The shards have been read up to here, with whatever was no event.
    fn note_read(&self, marks: &[Position]);
}
