//! Buses that keep nothing, with two nodes on them: in an outage apps and the clients of each node notice nothing, and
//! what the clients of the other node may miss they are told of.

use crate::support::{
    BusKind, DEFAULT_HEDGE, Fleet, Publishers, RunningPublishers, Trouble, Watcher, eventually,
};
use serde_json::json;
use tokio::time::{Duration, Instant};

/// How long the bus is away.
const OUTAGE: Duration = Duration::from_secs(4);

async fn nothing_is_missed_silently(kind: BusKind, trouble: Trouble) {
    let what = format!("{kind:?}, {trouble:?}");
    let mut fleet = Fleet::with_config(kind, 2, DEFAULT_HEDGE, "").await;
    let watchers = Watcher::start_on_each(&fleet.nodes, "channel=load.%3E").await;
    let load = Publishers { name: "load".to_owned(), count: 5, per_second: 100, node_is_killed: false }
        .start_on_each(&fleet.nodes);
    for running in &load {
        running.go_on_for(50).await;
    }
    trouble.begin(&mut fleet).await;
    let begin = Instant::now();
    while begin.elapsed() < OUTAGE {
        for running in &load {
            running.go_on_for(20).await;
        }
    }
    trouble.end(&mut fleet).await;
    for running in &load {
        running.go_on_for(20).await;
    }
    let reports = RunningPublishers::stop_each(load).await;
    assert!(reports.iter().all(|report| report.queued > 0), "{what}: it was an outage");
    fleet.ready().await;
    // What a node publishes last comes last: then everything else of that node has come, or never will.
    for (at, node) in fleet.nodes.iter().enumerate() {
        let channel = format!("load.last.{at}");
        eventually("the last event of a node is everywhere", async || {
            node.publish(&json!({"channel": channel, "data": {"n": fastrand::u32(..)}})).await;
            watchers.iter().all(|watcher| !watcher.numbers_of(&channel).is_empty()).then_some(())
        })
        .await;
    }
    for (at, watcher) in watchers.iter().enumerate() {
        let mut missed = 0;
        for (node, report) in reports.iter().enumerate() {
            for (channel, count) in &report.channels {
                let shown = watcher.numbers_of(channel);
                assert!(shown.is_sorted(), "{what}: {channel} in order: {shown:?}");
                if node == at {
                    assert!(shown == (0..*count).collect::<Vec<_>>(), "{what}: of its own node: {shown:?}");
                }
                missed += *count - shown.len() as u64;
            }
        }
        let told = watcher.resumes().iter().filter(|resume| *resume == "expired").count();
        eprintln!("{what}: client {at} missed {missed} of the other node, told {told} times");
        assert!(missed == 0 || told > 0, "{what}: {missed} events are missed, and nobody said so");
        assert!(watcher.shown().iter().all(|shown| shown.connection == 0), "{what}: nobody was cut off");
        let mut ids: Vec<_> = watcher.shown().into_iter().map(|shown| shown.id).collect();
        let shown = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), shown, "{what}: nothing is shown twice");
    }
    for node in &mut fleet.nodes {
        node.still_healthy().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_channels_of_redis_are_gone_for_two_nodes() {
    nothing_is_missed_silently(BusKind::RedisPubSub, Trouble::Gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_channels_of_redis_are_killed_under_two_nodes() {
    nothing_is_missed_silently(BusKind::RedisPubSub, Trouble::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_subjects_of_nats_are_gone_for_two_nodes() {
    nothing_is_missed_silently(BusKind::NatsCore, Trouble::Gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_subjects_of_nats_are_frozen_under_two_nodes() {
    nothing_is_missed_silently(BusKind::NatsCore, Trouble::Frozen).await;
}
