//! The bus between nodes: which one a test runs on, its server behind a proxy, and the nodes on it.

use super::sidecar::TestSidecar;
use super::wait::eventually;
use crate::servers::{NatsServer, Proxy, RedisServer, RedisSetup, ServerProcess};
use serde_json::Value;
use std::net::SocketAddr;

/// The hedge of the section `[bus]` as it is by default: see [`bus_config_at`].
pub(crate) const DEFAULT_HEDGE: &str = "hedge = \"50ms\"";

/// Keys of the section `[bus]` under which a bus is never called away that only a busy machine keeps waiting: for what
/// holds while it is there, and not in an outage.
pub(crate) const PATIENT: &str = "hedge = \"20s\"\nprobe_interval = \"10s\"";

/// A bus and its mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BusKind {
    RedisStream,
    JetStream,
    RedisPubSub,
    NatsCore,
}

impl BusKind {
    /// Those that promise one order and exact resume.
    pub(crate) const ORDERED: [BusKind; 2] = [BusKind::RedisStream, BusKind::JetStream];
    /// Those that promise neither.
    pub(crate) const PLAIN: [BusKind; 2] = [BusKind::RedisPubSub, BusKind::NatsCore];

    pub(crate) fn mode(self) -> &'static str {
        match self {
            BusKind::RedisStream => "stream",
            BusKind::JetStream => "jetstream",
            BusKind::RedisPubSub => "pubsub",
            BusKind::NatsCore => "core",
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            BusKind::RedisStream | BusKind::RedisPubSub => "redis",
            BusKind::JetStream | BusKind::NatsCore => "nats",
        }
    }

    /// The words in what a client sends by which the proxy knows a connection that reads from the bus.
    pub(crate) fn reads(self) -> &'static [&'static str] {
        match self {
            BusKind::RedisStream => &["XREAD"],
            BusKind::RedisPubSub => &["PSUBSCRIBE"],
            BusKind::JetStream => &["CONSUMER.CREATE", "CONSUMER.MSG.NEXT"],
            BusKind::NatsCore => &["SUB "],
        }
    }
}

/// The server of a bus.
pub(crate) enum BusServer {
    Redis(RedisServer),
    Nats(NatsServer),
}

impl BusServer {
    /// One that keeps what it has confirmed.
    pub(crate) async fn start(kind: BusKind) -> Self {
        match kind.scheme() {
            "redis" => Self::Redis(RedisSetup::new().append_only().start().await),
            _ => Self::Nats(NatsServer::start().await),
        }
    }

    fn process(&self) -> &ServerProcess {
        match self {
            Self::Redis(server) => server.process(),
            Self::Nats(server) => server.process(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process().address()
    }

    pub(crate) fn freeze(&self) {
        self.process().freeze();
    }

    pub(crate) fn thaw(&self) {
        self.process().thaw();
    }

    pub(crate) fn kill(&mut self) {
        match self {
            Self::Redis(server) => server.kill(),
            Self::Nats(server) => server.kill(),
        }
    }

    pub(crate) async fn start_again(&mut self) {
        match self {
            Self::Redis(server) => server.start_again().await,
            Self::Nats(server) => server.start_again().await,
        }
    }

    pub(crate) fn redis(&self) -> &RedisServer {
        match self {
            Self::Redis(server) => server,
            Self::Nats(_) => panic!("the bus of this test is Redis"),
        }
    }

    pub(crate) fn nats(&self) -> &NatsServer {
        match self {
            Self::Nats(server) => server,
            Self::Redis(_) => panic!("the bus of this test is NATS"),
        }
    }
}

/// Nodes on one bus, which they reach through a proxy.
pub(crate) struct Fleet {
    pub(crate) kind: BusKind,
    pub(crate) nodes: Vec<TestSidecar>,
    pub(crate) proxy: Proxy,
    pub(crate) server: BusServer,
}

impl Fleet {
    pub(crate) async fn start(kind: BusKind, count: usize) -> Self {
        Self::with_config(kind, count, "", "").await
    }

    /// The same with more keys of the section `[bus]`, and with more sections.
    pub(crate) async fn with_config(kind: BusKind, count: usize, bus: &str, more: &str) -> Self {
        let server = BusServer::start(kind).await;
        let proxy = Proxy::start(server.address()).await;
        let config = bus_config(kind, proxy.address(), bus, more);
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(TestSidecar::with_config(&config).await);
        }
        let fleet = Self { kind, nodes, proxy, server };
        fleet.ready().await;
        fleet
    }

    /// The configuration of its nodes, for one more.
    pub(crate) fn config(&self) -> String {
        bus_config(self.kind, self.proxy.address(), "", "")
    }

    /// Waits until every node is ready.
    pub(crate) async fn ready(&self) {
        for node in &self.nodes {
            node.ready().await;
        }
    }

    /// Waits until every node says that the bus is away.
    pub(crate) async fn notices_that_the_bus_is_away(&self) {
        for node in &self.nodes {
            eventually("a node that notices that the bus is away", async || {
                (node.admin().get("/readyz").await.status() == 503).then_some(())
            })
            .await;
        }
    }

    /// Waits until the history of every node finds the same `count` events in one order, and gives it.
    pub(crate) async fn agree_on(&self, query: &str, count: usize) -> Vec<Value> {
        let mut histories = Vec::new();
        for node in &self.nodes {
            histories.push(node.wait_for_events(query, count).await);
        }
        let first = identities(&histories[0]);
        for (at, history) in histories.iter().enumerate().skip(1) {
            assert_eq!(first, identities(history), "nodes 0 and {at} disagree");
        }
        histories.swap_remove(0)
    }
}

/// What must be the same on every node.
fn identities(events: &[Value]) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    events
        .iter()
        .map(|event| (text(&event["channel"]), text(&event["id"]), event["data"].to_string()))
        .collect()
}

fn bus_config(kind: BusKind, address: SocketAddr, bus: &str, more: &str) -> String {
    bus_config_at(&format!("{}://{address}", kind.scheme()), kind.mode(), bus, more)
}

/// The configuration of a node on a bus, where a test does not say otherwise: probes are frequent, so that it need not
/// wait for them, and the hedge is long, as a bus that is well must not look slow on a busy machine.
pub(crate) fn bus_config_at(url: &str, mode: &str, bus: &str, more: &str) -> String {
    let mut config = format!("[bus]\nurl = \"{url}\"\nmode = \"{mode}\"\n{bus}\n");
    for (key, value) in [("hedge", "1s"), ("probe_interval", "500ms")] {
        if !bus.contains(key) {
            config += &format!("{key} = \"{value}\"\n");
        }
    }
    config + more + "\n"
}

/// Two nodes on a bus that a test has started itself, with more keys of the section `[bus]`: ready, and publishing.
pub(crate) async fn two_nodes_at(url: &str, mode: &str, bus: &str) -> Vec<TestSidecar> {
    let config = bus_config_at(url, mode, bus, "");
    let nodes = vec![TestSidecar::with_config(&config).await, TestSidecar::with_config(&config).await];
    for node in &nodes {
        node.ready().await;
        node.publish_until("published", "ready").await;
    }
    nodes
}

impl TestSidecar {
    /// Waits until the history finds `count` events, and gives them; more are too many.
    pub(crate) async fn wait_for_events(&self, query: &str, count: usize) -> Vec<Value> {
        let events = eventually(&format!("{count} events for {query}"), async || {
            let events = self.all_events(query).await;
            (events.len() >= count).then_some(events)
        })
        .await;
        assert_eq!(events.len(), count, "too many events for {query}");
        events
    }

    /// Publishes until the answer has that status.
    pub(crate) async fn publish_until(&self, status: &str, channel: &str) -> Value {
        eventually(&format!("a publish that is {status}"), async || {
            let answer = self.publish(&serde_json::json!({"channel": channel, "data": 1})).await;
            (answer["status"] == status).then_some(answer)
        })
        .await
    }
}
