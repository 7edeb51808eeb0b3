//! `memory:`: one node alone. Its own log is the bus: events get their positions in the order in which they
//! are accepted.

use super::{Bus, Inflow, Refused, Stamped};
use crate::event::Position;
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The bus of a node that is alone.
pub struct Memory {
    inflow: Arc<Inflow>,
}

impl Memory {
    /// A bus that hands what it orders to `inflow`.
    pub fn new(inflow: Arc<Inflow>) -> Self {
        Self { inflow }
    }
}

impl Bus for Memory {
    fn publish(&self, events: Vec<Stamped>) -> Result<Vec<Position>, Refused> {
        self.inflow.push_numbered(events)
    }

    fn probe(&self, returned: oneshot::Sender<()>) -> Result<(), Refused> {
        self.inflow.push_probe(returned)
    }

    fn close(&self) {
        self.inflow.close();
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory:")
    }
}
