//! A Redis Cluster of three masters.

use super::super::process::free_port;
use super::super::wait::eventually;
use super::{RedisServer, RedisSetup};

/// Hash slots of a cluster.
const SLOTS: usize = 16_384;

pub(crate) struct RedisCluster {
    pub(crate) masters: Vec<RedisServer>,
}

impl RedisCluster {
    pub(crate) async fn start() -> Self {
        let mut masters = Vec::new();
        let mut gossip_ports = Vec::new();
        for _ in 0..3 {
            // By default it is the port plus 10,000, which may be taken.
            let gossip_port = free_port();
            let setup = RedisSetup::new()
                .line("cluster-enabled yes")
                .line(&format!("cluster-port {gossip_port}"))
                .line("cluster-node-timeout 2000");
            masters.push(setup.start().await);
            gossip_ports.push(gossip_port);
        }
        let share = SLOTS / 3 + 1;
        for (at, master) in masters.iter().enumerate() {
            let (first, last) = (at * share, ((at + 1) * share).min(SLOTS) - 1);
            let range = [first.to_string(), last.to_string()];
            master.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).await;
            master.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]).await;
        }
        for (other, gossip_port) in masters.iter().zip(&gossip_ports).skip(1) {
            let ports = [other.port().to_string(), gossip_port.to_string()];
            masters[0].command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &ports[0], &ports[1]]).await;
        }
        let all = Self { masters };
        eventually("the cluster is whole", async || {
            for master in &all.masters {
                let told: String = master.command(&["CLUSTER", "INFO"]).await;
                let nodes: String = master.command(&["CLUSTER", "NODES"]).await;
                // One that still shakes hands counts as known too, and yet nothing that it publishes is passed on.
                let met = |line: &str| line.contains(" connected") && !line.contains("handshake");
                if !told.contains("cluster_state:ok") || nodes.lines().filter(|line| met(line)).count() < 3 {
                    return None;
                }
            }
            Some(())
        })
        .await;
        all
    }

    /// As a node's `bus.url`.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self.masters.iter().map(|one| one.address().to_string()).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The slot of a key.
    pub(crate) async fn slot(&self, key: &str) -> usize {
        self.masters[0].command(&["CLUSTER", "KEYSLOT", key]).await
    }

    /// Which master serves a slot, as it says itself.
    pub(crate) async fn owner(&self, slot: usize) -> usize {
        eventually("a master serves the slot", async || {
            for (at, master) in self.masters.iter().enumerate() {
                let nodes: String = master.command(&["CLUSTER", "NODES"]).await;
                let own = nodes.lines().find(|line| line.contains("myself")).expect("a node knows itself");
                if own.split(' ').skip(8).any(|range| holds(range, slot)) {
                    return Some(at);
                }
            }
            None
        })
        .await
    }

    /// Moves a slot with all its keys, as an operator would who adds a server.
    pub(crate) async fn move_slot(&self, slot: usize, to: usize) {
        let from = &self.masters[self.owner(slot).await];
        let to = &self.masters[to];
        let slot = slot.to_string();
        let from_id: String = from.command(&["CLUSTER", "MYID"]).await;
        let to_id: String = to.command(&["CLUSTER", "MYID"]).await;
        to.command::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
        from.command::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
        let port = to.port().to_string();
        loop {
            let keys: Vec<String> = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await;
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "10000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            from.command::<()>(&words).await;
        }
        to.command::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
        from.command::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
    }
}

/// Whether a range such as `0-5461`, or a single slot, holds `slot`.
fn holds(range: &str, slot: usize) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&slot),
        // A slot that is on its way, in brackets.
        _ => false,
    }
}
