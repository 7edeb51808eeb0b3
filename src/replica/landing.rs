//! Where events from a remote bus land: what they change in the log and the hub besides being appended.

use crate::bus::remote::Landing;
use crate::control::{Control, Controlled};
use crate::event::{Channel, Epoch, Event, Expiry, Position, Ttl};
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
    fn on_bus(&self) -> Option<(Epoch, Position)> {
        self.log.on_bus()
    }

    fn came_to(&self, epoch: Epoch) -> Option<Position> {
        self.log.came_to(epoch)
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

    fn begin_era(&self, epoch: Epoch, after: Position, lost: bool) -> io::Result<Position> {
        let head = self.log.begin_era(epoch, after, lost)?;
        self.hub.advance(head, lost);
        Ok(head)
    }

    fn skip_to(&self, up_to: Position) -> io::Result<Position> {
        let head = self.log.skip_to(up_to)?;
        self.hub.advance(head, true);
        Ok(head)
    }

    fn note_gap(&self) -> io::Result<Position> {
        self.skip_to(self.log.head().next())
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

    fn note_early_return(&self, number: u64, place: Position) {
        self.hub.early().note_return(number, place);
    }
}
