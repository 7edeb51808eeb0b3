//! What becomes of the bus of a fleet.

use super::bus::Fleet;
use crate::servers::{Flow, Towards};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// Connections are reset and refused.
    Gone,
    /// The server is killed, and started again.
    Killed,
    /// The server does not run, while its sockets stay open.
    Frozen,
    /// Nothing passes the network, while connections stay open and new ones are accepted.
    Swallowed,
    /// It answers, but late.
    Late,
    /// It answers so late that the link is given up.
    Slow,
}

impl Trouble {
    pub(crate) async fn begin(self, fleet: &mut Fleet) {
        match self {
            Trouble::Gone => fleet.proxy.cut().await,
            Trouble::Killed => fleet.server.kill(),
            Trouble::Frozen => fleet.server.freeze(),
            Trouble::Swallowed => fleet.proxy.blackhole(),
            Trouble::Late => {
                let late = Flow { delay: Duration::from_millis(200), ..Flow::default() };
                fleet.proxy.set(Towards::Client, late);
            }
            Trouble::Slow => {
                let late = Flow { delay: Duration::from_millis(700), ..Flow::default() };
                for towards in Towards::BOTH {
                    fleet.proxy.set(towards, late);
                }
            }
        }
    }

    pub(crate) async fn end(self, fleet: &mut Fleet) {
        match self {
            Trouble::Gone | Trouble::Swallowed | Trouble::Late | Trouble::Slow => fleet.proxy.restore().await,
            Trouble::Killed => fleet.server.start_again().await,
            Trouble::Frozen => fleet.server.thaw(),
        }
    }
}
