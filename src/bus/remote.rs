//! A bus that is elsewhere: Redis or NATS. What is the same for all of them stands here; what differs is a
//! [`Backend`].
//!
//! Two tasks: the *carrier* puts on the bus what was published here, or on the disk while the bus is away; the
//! *link* reads what is on the bus and hands it to the replica. An event of this node, too, reaches its clients
//! by the way over the bus, so that all nodes show all events in one order.

mod backoff;
mod carrier;
mod checkpoint;
mod landing;
mod link;
mod reader;
mod seen;
mod shards;
mod shared;

pub use landing::Landing;
pub use shared::State;

use super::backend::{Backend, Origin};
use super::{Bus, BusStatus, Inflow, OffBus, Refused, Stamped};
use crate::event::{EventId, Interest, Position};
use crate::metrics::Metrics;
use crate::outbox::{Outbox, ReadError};
use carrier::Carrier;
use link::Link;
use reader::Reader;
use shards::Shards;
use shared::Shared;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How a remote bus is used.
pub struct RemoteOptions {
    /// How long a publish waits for the bus before it goes to the disk.
    pub hedge: Duration,
    /// How long the bus may take to confirm before the link is given up.
    pub send_timeout: Duration,
    /// How often probes are sent.
    pub probe_interval: Duration,
    /// Which channels this node takes; none for all.
    pub interest: Option<Interest>,
    /// Where the checkpoint is kept.
    pub dir: PathBuf,
}

/// The bus, as publishers see it.
pub struct Remote {
    name: String,
    shared: Arc<Shared>,
    outbox: Outbox,
}

impl Remote {
    /// Starts the tasks; they end after [`Bus::close`], and close the inflow when all that came is in it. There is
    /// one backend for each shard of the bus, and at least one.
    pub fn start<B: Backend>(
        shards: Vec<B>,
        options: RemoteOptions,
        inflow: Arc<Inflow>,
        outbox: Outbox,
        landing: Arc<dyn Landing>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let shards = Shards::new(shards);
        let name = shards.to_string();
        let origin =
            Origin(uuid::Uuid::now_v7().as_u64_pair().1.rotate_left(2) ^ u64::from(std::process::id()));
        landing.begin_run(origin, shards.count());
        let shared = Arc::new(Shared::new(origin, shards.count(), metrics));
        let (to_carrier, links) = mpsc::channel(1);
        let RemoteOptions { hedge, send_timeout, probe_interval, interest, dir } = options;
        let carrier =
            Carrier::new(shared.clone(), inflow.clone(), outbox.clone(), hedge, send_timeout, links);
        tokio::spawn(carrier.run());
        let reader = Reader::restore(&*landing, &dir, shards.count());
        let link = Link {
            shards,
            shared: shared.clone(),
            inflow,
            landing,
            carrier: to_carrier,
            interest,
            longest_silence: probe_interval * 2,
            dir,
            reader,
            complained: None,
        };
        tokio::spawn(link.run());
        Arc::new(Self { name, shared, outbox })
    }
}

impl Bus for Remote {
    fn publish(&self, events: Vec<Stamped>) -> Result<Vec<Position>, Refused> {
        self.shared.accept(events).map(|()| Vec::new())
    }

    fn probe(&self, returned: oneshot::Sender<()>) -> Result<(), Refused> {
        self.shared.probe(returned)
    }

    fn close(&self) {
        self.shared.close();
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn status(&self) -> BusStatus {
        let outbox = self.outbox.status();
        let (held_events, held_bytes) = self.shared.held();
        BusStatus {
            trouble: match self.shared.state() {
                State::Connecting => Some(format!("connecting to {}", self.name)),
                State::Connected => {
                    self.shared.refused_why().map(|why| format!("{} takes no events: {why}", self.name))
                }
                State::Away(why) => Some(format!("{}: {why}", self.name)),
            },
            outbox_takes: self.shared.outbox_takes(),
            outbox_events: outbox.events,
            outbox_bytes: outbox.bytes,
            outbox_oldest_ms: outbox.oldest_ms,
            held_events,
            held_bytes,
            lag: self.shared.lag(),
        }
    }

    fn seek(&self, id: &EventId) -> Result<OffBus, ReadError> {
        Ok(OffBus { sought: self.outbox.seek(id)?, origin: Some(self.shared.origin) })
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
