//! Many at once: replays while others publish, channels with one event each. What it must not cost is the time of
//! publishers, and memory that stays.

use crate::support::{
    Connection, NumberedLoad, TestSidecar, WebSocketClient, Whereabouts, eventually, number_from_environment,
    publish_until_taken, within,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncBufReadExt as _;
use tokio::task::JoinSet;

const REPLAYS: usize = 50;
/// Far above what is needed: a busy build machine must not fail a test that is right.
const SLOWEST_PUBLISH: Duration = Duration::from_secs(3);
const REPLAY_KIB: u64 = 128 << 10;
/// Three rounds of channels that stayed would take several times as much.
const CHANNELS_KIB: u64 = 12 << 10;

/// Reads so many numbered events from the log. Every hundredth is looked at: one that is missing or there twice
/// moves all that follow.
async fn replay(whereabouts: Whereabouts, cursor: String, total: u64) {
    let address = whereabouts.client();
    let mut connection = Connection::open(&address).await.expect("connected");
    let target = format!("/v1/stream?channel=replay.*&cursor={cursor}");
    let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", address.host());
    connection.write(request.as_bytes()).await.expect("written");
    assert_eq!(within("an answer", connection.read_head()).await.expect("a head").status, 200);
    let mut stream = connection.into_stream();
    let mut line = Vec::new();
    let mut read = 0;
    while read < total {
        line.clear();
        within("a line", stream.read_until(b'\n', &mut line)).await.expect("read");
        if read % 100 == 0 || read + 1 == total || !line.starts_with(b"{\"type\":\"event\"") {
            let event: Value = serde_json::from_slice(&line).expect("a line is JSON");
            if event["type"] != "event" {
                assert_eq!(event["type"], "heartbeat", "{event}");
                continue;
            }
            assert_eq!(event["data"]["n"], read, "{event}");
        }
        read += 1;
    }
}

/// How long 99 of 100 publishes take at most, while `busy` says so.
async fn slowest_of_most(sidecar: &TestSidecar, mut busy: impl FnMut(usize) -> bool) -> Duration {
    let mut app = sidecar.app();
    let mut took = Vec::new();
    while busy(took.len()) {
        let begin = Instant::now();
        app.post_json("/v1/publish?ack=log", &json!({"channel": "other", "data": 1})).await.success();
        took.push(begin.elapsed());
    }
    took.sort();
    took[(took.len() * 99 / 100).min(took.len() - 1)]
}

/// `SIDEWIRE_TEST_REPLAY_EVENTS` sets how many events each of the clients reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_replays_at_once_hold_up_no_publisher_and_take_little_memory() {
    let total = number_from_environment("SIDEWIRE_TEST_REPLAY_EVENTS", 50_000);
    let sidecar = TestSidecar::start().await;
    let begin = sidecar.cursor_now().await;
    let load = NumberedLoad {
        channels: (0..10).map(|at| format!("replay.{at}")).collect(),
        run: "replay".into(),
        total,
        batch: 500,
        per_second: 1_000_000,
        padding: 100,
    };
    load.start(sidecar.whereabouts()).done().await;
    let alone = slowest_of_most(&sidecar, |count| count < 200).await;
    let before = sidecar.resident_kib();

    let mut readers = JoinSet::new();
    for _ in 0..REPLAYS {
        readers.spawn(replay(sidecar.whereabouts(), begin.clone(), total));
    }
    let mut peak = 0;
    let started = Instant::now();
    let beside = slowest_of_most(&sidecar, |_| {
        peak = peak.max(sidecar.resident_kib());
        while let Some(ended) = readers.try_join_next() {
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        !readers.is_empty()
    })
    .await;
    eprintln!(
        "{REPLAYS} replays of {total} events in {:?}; p99 of a publish {alone:?} alone, {beside:?} beside them; \
         {before} KiB before, {peak} KiB at most",
        started.elapsed()
    );
    assert!(beside < SLOWEST_PUBLISH, "{beside:?}");
    assert!(peak < before + REPLAY_KIB, "{before} KiB before, {peak} KiB at most");
}

/// `SIDEWIRE_TEST_CHANNELS` sets how many channels each round has. What the first rounds took is used again by those
/// that follow: the allocator keeps it, so it is looked at from within.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_are_idle_take_no_memory() {
    let channels = number_from_environment("SIDEWIRE_TEST_CHANNELS", 50_000);
    // A small log and few ids, so that what is kept on purpose counts little.
    let config = "[log]\nmax_bytes = \"32MiB\"\nid_limit = 10000\n";
    let sidecar = TestSidecar::with_config(config).await;
    let mut resident = Vec::new();
    for round in 0..6 {
        let target = format!("/v1/ws?channel=round{round}.*");
        let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), &target).await;
        client.expect("subscribed").await;
        let mut app = sidecar.app();
        for first in (0..channels).step_by(1_000) {
            let batch: Vec<Value> = (first..channels.min(first + 1_000))
                .map(|n| {
                    let channel = format!("round{round}.{n}");
                    json!({"channel": channel, "id": channel, "data": {"n": n}})
                })
                .collect();
            publish_until_taken(&mut app, &batch).await;
            let numbers = client.next_numbers(batch.len()).await;
            assert_eq!(numbers.first(), Some(&first));
        }
        drop(client);
        sidecar.wait_for_connections(0).await;
        eventually("nobody is subscribed, and what was published is packed", async || {
            let metrics = sidecar.metrics().await;
            let left = ["sidewire_channels", "sidewire_log_waiting_journals"];
            left.iter().all(|name| metrics.sum(name, &[]) == 0.0).then_some(())
        })
        .await;
        resident.push(sidecar.resident_kib());
    }
    eprintln!("KiB after each {channels} channels: {resident:?}");
    assert!(resident[5] < resident[2] + CHANNELS_KIB, "{resident:?}");
}
