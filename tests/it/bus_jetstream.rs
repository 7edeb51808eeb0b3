//! JetStream while many publish: its consumers are taken away, its stream gets another leader, it starts again.

use crate::servers::NatsCluster;
use crate::support::{
    BusKind, Fleet, Publishers, RunningPublishers, TestSidecar, Watcher, eventually, two_nodes_at,
};
use futures_util::StreamExt as _;

const STREAM: &str = "SIDEWIRE_default";
/// What is published on.
const LOAD: &str = "channel=load.%3E";

/// Publishers on every node, and a client of each.
async fn busy(nodes: &[TestSidecar]) -> (Vec<RunningPublishers>, Vec<Watcher>) {
    let watchers = Watcher::start_on_each(nodes, LOAD).await;
    let load = Publishers { name: "load".to_owned(), count: 5, per_second: 200, node_is_killed: false }
        .start_on_each(nodes);
    for running in &load {
        running.go_on_for(50).await;
    }
    (load, watchers)
}

/// Every event on every client, once and in the order of its publisher.
async fn nothing_is_missed_or_doubled(load: Vec<RunningPublishers>, watchers: &[Watcher]) -> u64 {
    for running in &load {
        running.go_on_for(50).await;
    }
    let published = RunningPublishers::stop_all(load).await;
    for watcher in watchers {
        watcher.sees_exactly(&published.channels).await;
        assert_eq!(watcher.resumes().len(), 1, "nobody is told of a loss, as there was none");
    }
    published.total()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_are_deleted_while_many_publish() {
    let fleet = Fleet::start(BusKind::JetStream, 2).await;
    let stream = fleet.server.nats().jetstream().await.get_stream(STREAM).await.expect("it is there");
    let (load, watchers) = busy(&fleet.nodes).await;
    for round in 0..4 {
        let mut deleted = Vec::new();
        eventually("both consumers are there, and deleted", async || {
            let names: Vec<_> = stream.consumer_names().collect().await;
            for name in names.into_iter().flatten() {
                if stream.delete_consumer(&name).await.is_ok() {
                    deleted.push(name);
                }
            }
            (deleted.len() >= 2).then_some(())
        })
        .await;
        load[round % 2].go_on_for(100).await;
    }
    let total = nothing_is_missed_or_doubled(load, &watchers).await;
    fleet.agree_on(LOAD, total as usize).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_gets_another_leader_while_many_publish() {
    let cluster = NatsCluster::start().await;
    let nodes = two_nodes_at(&cluster.url(), "jetstream", "replicas = 3").await;
    let (load, watchers) = busy(&nodes).await;
    for round in 0..3 {
        cluster.another_leader(STREAM).await;
        load[round % 2].go_on_for(100).await;
    }
    nothing_is_missed_or_doubled(load, &watchers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_starts_again_with_its_stream_again_and_again() {
    let mut fleet = Fleet::start(BusKind::JetStream, 2).await;
    let (load, watchers) = busy(&fleet.nodes).await;
    for round in 0..3 {
        fleet.server.kill();
        load[round % 2].go_on_for(50).await;
        fleet.server.start_again().await;
        load[round % 2].go_on_for(100).await;
    }
    let total = nothing_is_missed_or_doubled(load, &watchers).await;
    fleet.agree_on(LOAD, total as usize).await;
}
