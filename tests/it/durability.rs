//! What was acknowledged with `ack=log` survives: `kill -9` at any moment, and a disk that is full.

mod small_disk;

use crate::support::{
    HttpClient, TestSidecar, WebSocketClient, Whereabouts, eventually, joined, number_from_environment,
    publish_until_taken, random_seed,
};
use fastrand::Rng;
use serde_json::{Value, json};
use small_disk::SmallDisk;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The numbers that were acknowledged to one publisher, in their order.
type Acknowledged = Arc<Mutex<Vec<u64>>>;

/// Publishes numbers from `next` on, to a channel of its own, one or several at a time, until the node is gone.
/// A number whose fate is unknown is left behind: it may be in the log or not, but only once.
async fn publish_until_lost(
    whereabouts: Whereabouts,
    who: u64,
    mut next: u64,
    acknowledged: Acknowledged,
) -> u64 {
    let mut random = Rng::with_seed(who ^ next);
    let mut client = HttpClient::new(whereabouts.app());
    loop {
        let count = if random.bool() { 1 } else { random.u64(2..40) };
        let batch: Vec<Value> = (next..next + count)
            .map(|n| {
                let noise = "x".repeat(random.usize(0..600));
                json!({"channel": format!("safe.{who}"), "id": format!("{who}-{n}"), "data": {"n": n, "noise": noise}})
            })
            .collect();
        next += count;
        let body = Value::Array(batch).to_string();
        let headers = [("Content-Type", "application/json")];
        match client.try_request("POST", "/v1/publish?ack=log", &headers, body.as_bytes()).await {
            Ok(response) if response.status() == 200 => {
                let answer = response.json();
                let entries = answer["results"].as_array().expect("results");
                let taken = |entry: &Value| entry["status"] == "published";
                let mut known = acknowledged.lock().expect("no panic inside");
                known.extend((next - count..next).zip(entries).filter(|(_, e)| taken(e)).map(|(n, _)| n));
            }
            // A log that is behind with its work says "later": what was in the batch has not been acknowledged. The
            // load goes on at a gentler pace.
            Ok(response) => {
                response.refusal(503);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(_) => return next,
        }
    }
}

/// Every acknowledged number is there, none is there twice, and each publisher's are in order.
async fn check_log(sidecar: &TestSidecar, acknowledged: &HashMap<u64, Acknowledged>) {
    for (who, acknowledged) in acknowledged {
        let kept = crate::support::numbers(&sidecar.all_events(&format!("channel=safe.{who}")).await);
        assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "out of order or doubled on safe.{who}");
        let kept: HashSet<u64> = kept.into_iter().collect();
        let lost: Vec<u64> = acknowledged
            .lock()
            .expect("no panic inside")
            .iter()
            .copied()
            .filter(|n| !kept.contains(n))
            .collect();
        assert!(lost.is_empty(), "acknowledged to {who} and lost: {lost:?}");
    }
}

/// `SIDEWIRE_TEST_ROUNDS` sets how often the node is killed, `SIDEWIRE_TEST_LOG_EVENTS` how many events the log
/// has before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_under_load_loses_nothing_that_was_acknowledged_and_doubles_nothing() {
    let rounds = number_from_environment("SIDEWIRE_TEST_ROUNDS", 20);
    let before = number_from_environment("SIDEWIRE_TEST_LOG_EVENTS", 20_000);
    let mut random = Rng::with_seed(random_seed("kill -9"));
    let mut sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("before", 0..before).await;

    let publishers = 6;
    let mut next = vec![0; publishers as usize];
    let acknowledged: HashMap<u64, Acknowledged> =
        (0..publishers).map(|who| (who, Acknowledged::default())).collect();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let tasks: Vec<_> = (0..publishers)
            .map(|who| {
                let known = Arc::clone(&acknowledged[&who]);
                tokio::spawn(publish_until_lost(sidecar.whereabouts(), who, next[who as usize], known))
            })
            .collect();
        // The moment of the kill is the point of the test: anywhere from the first request on.
        tokio::time::sleep(Duration::from_millis(random.u64(1..250))).await;
        sidecar.kill();
        for (task, next) in tasks.into_iter().zip(&mut next) {
            *next = joined(task).await;
        }
        let begin = Instant::now();
        sidecar.start_again().await;
        let event = json!({"channel": "round", "id": format!("round-{round}"), "data": round});
        publish_until_taken(&mut sidecar.app(), &[event]).await;
        slowest = slowest.max(begin.elapsed());
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "round {round}: it took {:?} to serve",
            begin.elapsed()
        );
        if round % 5 == 4 || round + 1 == rounds {
            check_log(&sidecar, &acknowledged).await;
        }
    }
    let total: usize = acknowledged.values().map(|known| known.lock().expect("no panic inside").len()).sum();
    eprintln!("{total} events acknowledged over {rounds} rounds, slowest start {slowest:?}");
    assert!(total as u64 > rounds, "the load was a load: {total}");
    assert_eq!(sidecar.all_events("channel=before").await.len() as u64, before);
    assert_eq!(sidecar.all_events("channel=round").await.len() as u64, rounds);
    assert!(!sidecar.log().contains("panicked"), "{}", sidecar.log());
}

#[tokio::test]
async fn a_node_that_is_killed_while_it_starts_starts_the_next_time() {
    let mut random = Rng::with_seed(random_seed("kill while starting"));
    let mut sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("kept", 0..2_000).await;
    for _ in 0..number_from_environment("SIDEWIRE_TEST_ROUNDS", 20) {
        sidecar.kill();
        sidecar.start_and_kill_after(Duration::from_micros(random.u64(0..60_000))).await;
        sidecar.start_again().await;
    }
    assert_eq!(sidecar.all_events("channel=kept").await.len(), 2_000);
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn a_full_disk_is_answered_with_503_and_the_node_recovers_when_there_is_room() {
    let disk = SmallDisk::new();
    let mut sidecar = disk.sidecar().await;
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws?channel=live").await;
    client.expect("subscribed").await;
    disk.fill(&sidecar);

    let mut acknowledged = Vec::new();
    let mut app = sidecar.app();
    let refused = eventually("a publish that finds no room", async || {
        let n = acknowledged.len() as u64 + 1;
        let noise: String = (0..60_000).map(|_| fastrand::alphanumeric()).collect();
        let body = json!({"channel": "full", "id": format!("full-{n}"), "data": {"n": n, "noise": noise}});
        let answer = app.post_json("/v1/publish?ack=log", &body).await;
        if answer.status() == 200 {
            acknowledged.push(n);
            return None;
        }
        Some(answer)
    })
    .await;
    let code = refused.refusal(503);
    assert!(code == "unavailable" || code == "queue_full", "{code}");
    assert!(refused.header("retry-after").is_some(), "a 503 says when to come back");
    assert!(sidecar.runs(), "{}", sidecar.log());
    assert_eq!(sidecar.admin().get("/healthz").await.status(), 200, "it is alive");
    eventually("readiness is off", async || {
        (sidecar.admin().get("/readyz").await.status() == 503).then_some(())
    })
    .await;
    eventually("a log line tells of it", async || {
        let log = sidecar.log().to_lowercase();
        (log.contains("warn") || log.contains("error")).then_some(())
    })
    .await;
    eventually("what was acknowledged can be read while the disk is full", async || {
        (sidecar.app().get("/v1/events?channel=full").await.status() == 200).then_some(())
    })
    .await;
    // Page by page: a limit on the size of files leaves room for more than one.
    let kept = crate::support::numbers(&sidecar.all_events("channel=full").await);
    assert!(
        acknowledged.iter().all(|n| kept.contains(n)),
        "{acknowledged:?} were acknowledged, {kept:?} are kept"
    );

    disk.make_room(&sidecar);
    // By itself: whoever sends publishes only to a node that is ready would never send one again.
    sidecar.ready().await;
    eventually("publishes are accepted again, without a restart", async || {
        let body = json!({"channel": "live", "id": "after", "data": {"n": 1}});
        (app.post_json("/v1/publish?ack=log", &body).await.status() == 200).then_some(())
    })
    .await;
    assert_eq!(client.next_numbers(1).await, [1], "clients are still connected");
    sidecar.kill_and_start_again().await;
    let kept = crate::support::numbers(&sidecar.all_events("channel=full").await);
    let lost: Vec<_> = acknowledged.iter().filter(|n| !kept.contains(n)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "out of order or doubled: {kept:?}");
}
