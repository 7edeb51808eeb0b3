//! NATS servers of a test's own, and the backends that the configuration makes for them.

pub(crate) use crate::servers::{Certificates, Nats, NatsCluster, NatsServer, NatsSetup, free_port};

use crate::servers::wait;
use futures_util::StreamExt as _;
use sidewire::bus::nats::{Core, JetStream};
use sidewire::config::{BusConfig, Config, Sources};
use sidewire::sidecar::{nats_kept, nats_options, nats_patterns};

fn bus(text: &str) -> BusConfig {
    Config::from_toml(&format!("[bus]\n{text}"), Sources::default()).unwrap().bus
}

/// What speaks to JetStream as a configuration of `[bus]` says.
pub(crate) fn jetstream(text: &str) -> JetStream {
    let bus = bus(text);
    JetStream::new(nats_options(&bus).unwrap(), nats_kept(&bus))
}

/// What speaks to plain subjects as a configuration of `[bus]` says.
pub(crate) fn core(text: &str) -> Core {
    let bus = bus(text);
    Core::new(nats_options(&bus).unwrap(), &nats_patterns(&bus))
}

/// Waits until the server has handled all that this client did: it works in order, and so it has once a message
/// to ourselves comes back.
pub(crate) async fn settle(client: &async_nats::Client) {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    wait::within("an echo", echo.next()).await.unwrap();
}
