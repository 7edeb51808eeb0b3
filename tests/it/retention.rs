//! How what is kept goes away: by age, by rule of its channel, by bytes; and how readers are told.

use crate::support::{
    Subscription, TestSidecar, Transport, directory_bytes, eventually, number_from_environment, numbers,
    publish_until_taken,
};
use serde_json::{Value, json};

#[tokio::test]
async fn events_go_when_they_are_older_than_the_ttl_and_their_disk_is_given_back() {
    // A small limit makes for small parts: only whole ones are given back.
    let config = "[log]\nttl = \"5s\"\nmax_bytes = \"32MiB\"\ncompress = false\n";
    let sidecar = TestSidecar::with_config(config).await;
    let mut app = sidecar.app();
    let mut largest = 0;
    for batch in 0..40 {
        let events: Vec<Value> = (0..250)
            .map(|n| {
                let noise: String = (0..1_000).map(|_| fastrand::alphanumeric()).collect();
                json!({"channel": "old", "data": {"n": batch * 250 + n, "noise": noise}})
            })
            .collect();
        app.post_json("/v1/publish", &json!(events)).await.success();
        largest = largest.max(directory_bytes(sidecar.data()));
    }
    assert!(largest > 8 << 20, "{largest} bytes are on disk");
    eventually("expired events are not found any more", async || {
        sidecar.last("old").await.is_none().then_some(())
    })
    .await;
    assert!(sidecar.all_events("channel=old").await.is_empty());
    eventually("the disk of expired events is free again", async || {
        // What is left is the space that the log keeps to stay readable on a full disk.
        (directory_bytes(sidecar.data()) < largest / 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_event_may_have_a_ttl_of_its_own() {
    let sidecar = TestSidecar::with_config("[log]\nttl = \"3s\"\n").await;
    sidecar.publish(&json!({"channel": "short", "data": 1, "ttl": 1})).await;
    sidecar.publish(&json!({"channel": "short.text", "data": 1, "ttl": "1s"})).await;
    sidecar.publish(&json!({"channel": "long", "data": 1, "ttl": "24h"})).await;
    sidecar.publish(&json!({"channel": "usual", "data": 1})).await;
    eventually("the short ones go", async || {
        let gone = sidecar.last("short").await.is_none() && sidecar.last("short.text").await.is_none();
        gone.then_some(())
    })
    .await;
    assert!(sidecar.last("usual").await.is_some(), "the others stay for now");
    eventually("the usual one goes with the ttl of the log", async || {
        sidecar.last("usual").await.is_none().then_some(())
    })
    .await;
    assert!(sidecar.last("long").await.is_some(), "who publishes may ask for more");
}

#[tokio::test]
async fn the_first_rule_that_fits_decides() {
    let config = r#"
[[channels]]
pattern = "cursor.>"
store = false

[[channels]]
pattern = "room.vip"
max_events = 100

[[channels]]
pattern = "room.*"
max_events = 5

[[channels]]
pattern = "brief.>"
ttl = "1s"
"#;
    let mut sidecar = TestSidecar::with_config(config).await;
    sidecar.publish_numbers("cursor.page.1", 0..10).await;
    sidecar.publish_numbers("room.vip", 0..20).await;
    sidecar.publish_numbers("room.1", 0..20).await;
    sidecar.publish_numbers("brief.1", 0..3).await;
    sidecar.publish_numbers("usual", 0..3).await;

    assert!(sidecar.last("cursor.page.1").await.is_none());
    assert_eq!(numbers(&sidecar.all_events("channel=room.vip").await), (0..20).collect::<Vec<_>>());
    assert_eq!(numbers(&sidecar.all_events("channel=room.1").await), [15, 16, 17, 18, 19]);
    eventually("the brief ones go", async || sidecar.last("brief.1").await.is_none().then_some(())).await;
    sidecar.kill_and_start_again().await;
    assert_eq!(numbers(&sidecar.all_events("channel=room.1").await), [15, 16, 17, 18, 19]);
    assert_eq!(numbers(&sidecar.all_events("channel=usual").await), [0, 1, 2]);
    assert!(sidecar.last("brief.1").await.is_none(), "nothing comes back");
}

#[tokio::test]
async fn every_transport_says_expired_and_goes_on_with_the_oldest_kept() {
    let sidecar = TestSidecar::with_config("[[channels]]\npattern = \"room.*\"\nmax_events = 5\n").await;
    let begin = sidecar.cursor_now().await;
    sidecar.publish_numbers("room.1", 0..20).await;
    for transport in Transport::ALL {
        let address = sidecar.whereabouts().client();
        let mut late = Subscription::open(transport, &address, "channel=room.1", Some(&begin)).await;
        assert_eq!(late.numbers(5).await, [15, 16, 17, 18, 19], "{transport:?}");
        assert_eq!(late.resume(), "expired", "{transport:?}");
    }
    // A cursor behind which nothing is missing is none the worse for what went away before it.
    let recent = sidecar.all_events("channel=room.1").await[1]["cursor"].as_str().expect("cursor").to_owned();
    for transport in Transport::ALL {
        let address = sidecar.whereabouts().client();
        let mut recent = Subscription::open(transport, &address, "channel=room.1", Some(&recent)).await;
        assert_eq!(recent.numbers(3).await, [17, 18, 19], "{transport:?}");
        assert_eq!(recent.resume(), "ok", "{transport:?}");
    }
}

#[tokio::test]
async fn a_cursor_older_than_the_ttl_is_expired_on_every_transport() {
    let sidecar = TestSidecar::with_config("[log]\nttl = \"1s\"\n").await;
    let begin = sidecar.cursor_now().await;
    sidecar.publish_numbers("old", 0..20).await;
    eventually("they are gone", async || sidecar.last("old").await.is_none().then_some(())).await;
    for transport in Transport::ALL {
        let name = format!("old.{transport:?}");
        sidecar.publish(&json!({"channel": name, "data": {"n": 20}})).await;
        let address = sidecar.whereabouts().client();
        let query = format!("channel=old,{name}");
        let mut late = Subscription::open(transport, &address, &query, Some(&begin)).await;
        assert_eq!(late.numbers(1).await, [20], "{transport:?}");
        assert_eq!(late.resume(), "expired", "{transport:?}");
    }
}

/// Writes many times what the log may hold; `SIDEWIRE_TEST_LOG_MIB` makes the limit larger.
#[tokio::test]
async fn writing_twenty_times_the_limit_keeps_the_directory_under_twice_the_limit_and_memory_flat() {
    let limit = number_from_environment("SIDEWIRE_TEST_LOG_MIB", 4) << 20;
    let config = format!("[log]\nmax_bytes = {limit}\ncompress = false\n");
    let mut sidecar = TestSidecar::with_config(&config).await;
    let mut app = sidecar.app();
    let (mut written, mut number, mut largest) = (0, 0, 0);
    let mut memory_early = 0;
    while written < 20 * limit {
        let batch: Vec<Value> = (0..250)
            .map(|_| {
                number += 1;
                // Fresh noise for each: equal events would take less room than they should.
                let noise: String = (0..1_000).map(|_| fastrand::alphanumeric()).collect();
                json!({"channel": format!("c.{}", number % 7), "id": number.to_string(), "data": {"n": number, "noise": noise}})
            })
            .collect();
        written += 250 * 1_000;
        publish_until_taken(&mut app, &batch).await;
        largest = largest.max(directory_bytes(sidecar.data()));
        assert!(largest < 2 * limit, "{largest} bytes on disk after {written} written, limit {limit}");
        if memory_early == 0 && written > 5 * limit {
            memory_early = sidecar.resident_kib();
        }
    }
    let memory_late = sidecar.resident_kib();
    assert!(
        memory_late < memory_early + 24 * 1024,
        "memory grew from {memory_early} KiB after a quarter to {memory_late} KiB"
    );
    let kept = numbers(&sidecar.all_events("channel=c.*").await);
    assert_eq!(kept.last(), Some(&number), "the newest is kept");
    assert!(kept.len() as u64 * 1_000 > limit / 4, "much less than the limit is kept: {} events", kept.len());
    assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "what is kept has no holes");
    sidecar.kill_and_start_again().await;
    assert_eq!(numbers(&sidecar.all_events("channel=c.*").await).last(), Some(&number));
}

#[tokio::test]
async fn compression_makes_the_log_less_than_half_as_large() {
    let mut sizes = Vec::new();
    for compress in [true, false] {
        let config = format!("[log]\nmax_bytes = \"32MiB\"\ncompress = {compress}\n");
        let sidecar = TestSidecar::with_config(&config).await;
        let mut app = sidecar.app();
        for batch in 0..160 {
            let events: Vec<Value> = (0..250)
                .map(|n| {
                    let n = batch * 250 + n;
                    json!({
                        "channel": format!("cron.execution.{}", n % 50),
                        "event": "execution-update",
                        "data": {"job_id": n % 50, "execution_id": n, "status": "running", "progress": n % 100,
                            "duration_ms": n * 37 % 20_000, "memory_mb": 14.2, "timestamp": 1_767_052_800 + n},
                    })
                })
                .collect();
            app.post_json("/v1/publish", &json!(events)).await.success();
        }
        eventually("everything but the last journal is packed", async || {
            (sidecar.metrics().await.sum("sidewire_log_waiting_journals", &[]) == 0.0).then_some(())
        })
        .await;
        sizes.push(directory_bytes(sidecar.data()));
    }
    let [compressed, plain] = sizes[..] else { unreachable!("two runs") };
    eprintln!("{compressed} bytes with compression, {plain} without");
    assert!(compressed * 2 < plain, "{compressed} bytes with compression, {plain} without");
}
