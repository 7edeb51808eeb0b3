//! The bus has no room: it is named, publishes wait, and nothing is lost once there is room again.

use crate::servers::NatsSetup;
use crate::support::{BusKind, Fleet, TestSidecar, eventually, numbers, two_nodes_at};
use serde_json::json;
use std::time::Duration;

/// Waits until readiness is off for a reason that says so.
async fn says_why(node: &TestSidecar, word: &str) {
    eventually("readiness says why", async || {
        let answer = node.admin().get("/readyz").await;
        let reason = answer.json()["checks"]["bus"].as_str().unwrap_or_default().to_owned();
        (answer.status() == 503 && reason.contains(word)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn redis_without_memory_is_named_and_publishes_wait_until_there_is_some() {
    let fleet = Fleet::start(BusKind::RedisStream, 2).await;
    fleet.nodes[0].publish_numbers("full", 0..5).await;
    let accepted = fleet.proxy.accepted();
    let redis = fleet.server.redis();
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for n in 5..30 {
        let event = json!({"channel": "full", "data": {"n": n}});
        let answer = fleet.nodes[0].publish(&event).await;
        assert_eq!(answer["status"], "queued", "{answer}");
    }
    for node in &fleet.nodes {
        says_why(node, "maxmemory").await;
        node.wait_for_log(&["takes no events now"]).await;
    }
    // The node's own clock is what passes here: longer than it takes to give up a link on which nothing comes back.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fleet.proxy.accepted(), accepted, "the link stands: another would be refused as well");
    for node in &fleet.nodes {
        let told = node.log().lines().filter(|line| line.contains("WARN")).count();
        assert_eq!(told, 1, "one line for one change:\n{}", node.log());
    }
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    fleet.ready().await;
    let kept = fleet.agree_on("channel=full", 30).await;
    assert_eq!(numbers(&kept), (0..30).collect::<Vec<_>>());
    for node in &fleet.nodes {
        node.wait_for_log(&["takes events again"]).await;
        node.publish_until("published", "after").await;
    }
}

#[tokio::test]
async fn a_jetstream_that_is_full_is_named_and_publishes_wait_until_there_is_room() {
    let nats = NatsSetup::new().most_stored("2MB").start().await;
    let nodes = two_nodes_at(&nats.url(), "jetstream", "").await;
    let mut published = 0;
    let mut queued = 0;
    while queued < 20 {
        assert!(published < 1_000, "2 MB hold no {published} events of 10 kB");
        let event = json!({"channel": "full", "data": {"n": published, "x": "y".repeat(10_000)}});
        queued += u64::from(nodes[0].publish(&event).await["status"] == "queued");
        published += 1;
    }
    says_why(&nodes[0], "takes nothing now").await;
    let stream = nats.jetstream().await.get_stream("SIDEWIRE_default").await.expect("it is there");
    stream.purge().await.expect("it can be purged");
    for node in &nodes {
        let kept = node.wait_for_events("channel=full", published as usize).await;
        assert_eq!(numbers(&kept), (0..published).collect::<Vec<_>>());
        node.ready().await;
    }
}
