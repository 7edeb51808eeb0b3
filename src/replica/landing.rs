//! Where events from a remote bus land: what they change in the log and the hub besides being appended.

use crate::bus::remote::Landing;
use crate::control::{Control, Controlled};
use crate::event::{Channel, Epoch, Event, Expiry, Origin, Position, Sender, Ttl};
use crate::hub::Hub;
use crate::log::Log;
use crate::publish::unix_ms;
use std::io;
use std::sync::Arc;

/// The log and the hub of this node, and what does what other nodes ask for.
pub struct Shore {
    log: Log,
    hub: Arc<Hub>,
    controlled: Arc<dyn Controlled>,
}

impl Shore {
    /// The shore of a node.
    pub fn new(log: Log, hub: Arc<Hub>, controlled: Arc<dyn Controlled>) -> Arc<Self> {
        Arc::new(Self { log, hub, controlled })
    }
}

impl Landing for Shore {
    fn on_bus(&self) -> Option<Vec<(Epoch, Position)>> {
        self.log.on_bus()
    }

    fn came_to(&self, epochs: &[Epoch]) -> Option<Vec<Position>> {
        self.log.came_to(epochs)
    }

    fn epoch(&self) -> Epoch {
        self.log.epoch()
    }

    fn head(&self) -> Position {
        self.log.head()
    }

    fn local(&self, position: Position) -> Position {
        self.log.at_bus(position)
    }

    fn expiry(&self, channel: &Channel) -> Expiry {
        self.log.expiry(channel, Ttl::Default, unix_ms())
    }

    fn begin_era(&self, shards: &[(Epoch, Position)], lost: bool) -> io::Result<Position> {
        let head = self.log.begin_era(shards, lost)?;
        self.hub.advance(head, lost);
        Ok(head)
    }

    fn skip_to(&self, marks: &[Position]) -> io::Result<Position> {
        let head = self.log.skip_to(marks)?;
        self.hub.advance(head, true);
        Ok(head)
    }

    fn note_gap(&self) -> io::Result<Position> {
        self.skip_to(&[self.log.head().next()])
    }

    fn control(&self, event: &Event) -> bool {
        match Control::read(event) {
            Some(control) => {
                self.controlled.apply(control);
                true
            }
            None => false,
        }
    }

    fn note_missed_controls(&self) {
        self.controlled.note_missed();
    }

    fn begin_run(&self, origin: Origin, shards: usize) {
        self.hub.begin_run(origin, shards);
    }

    fn note_in_log(&self, sender: Sender, shard: usize) {
        self.hub.note_in_log(sender, shard);
    }

    fn note_read(&self, marks: &[Position]) {
        self.log.note_read(marks);
    }
}
