//! A wall clock that jumps while the node runs, as after a suspend or by the hand of an operator.

use crate::support::{Setup, Subscription, TestSidecar, Transport, numbers};
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

const HOUR: i64 = 3_600;

/// The clock of one node: `libfaketime` adds to the true time what stands in a file.
struct Clock(TempDir);

impl Clock {
    fn new() -> Self {
        let clock = Self(TempDir::with_prefix("sidewire-clock-").expect("a temporary directory"));
        clock.jump_to(0);
        clock
    }

    /// A node that goes by this clock.
    fn setup(&self) -> Setup {
        Setup::new()
            .environment("LD_PRELOAD", &library().to_string_lossy())
            .environment("FAKETIME_TIMESTAMP_FILE", &self.file().to_string_lossy())
            .environment("FAKETIME_NO_CACHE", "1")
            // A suspend or an operator moves the wall clock only.
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .environment("NO_FAKE_STAT", "1")
    }

    /// From now on the clock is so many seconds ahead, or behind.
    fn jump_to(&self, seconds: i64) {
        let next = self.0.path().join("next");
        std::fs::write(&next, format!("{seconds:+}")).expect("written");
        std::fs::rename(next, self.file()).expect("renamed");
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("offset")
    }
}

/// The package `faketime` of Debian; `tests/setup.sh` installs it.
fn library() -> PathBuf {
    std::fs::read_dir("/usr/lib")
        .expect("/usr/lib")
        .flatten()
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
        .expect("libfaketime is installed: run tests/setup.sh")
}

/// The time that the node gives to an event, in seconds before or after the true one.
async fn offset(sidecar: &TestSidecar) -> i64 {
    sidecar.publish(&json!({"channel": "time", "data": 1})).await;
    let event = sidecar.last("time").await.expect("kept");
    let time = event["time"].as_i64().unwrap_or_else(|| panic!("a time in ms: {event}")) / 1_000;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    time - i64::try_from(now.as_secs()).expect("seconds")
}

async fn publish(sidecar: &TestSidecar, numbers: std::ops::Range<u64>) -> Vec<Value> {
    let batch: Vec<Value> =
        numbers.map(|n| json!({"channel": "a", "id": format!("id-{n}"), "data": {"n": n}})).collect();
    let answer = sidecar.publish(&Value::Array(batch)).await;
    answer["results"].as_array().expect("results").clone()
}

#[tokio::test]
async fn order_resume_and_ids_do_not_go_by_the_clock() {
    let clock = Clock::new();
    // How old an id is that was used before a restart, only the wall clock can tell: longer than all the jumps.
    let mut sidecar = clock.setup().config("[log]\nid_window = \"6h\"\n").start().await;
    let begin = sidecar.cursor_now().await;
    let mut published = 0;
    for (at, hours) in [0, 1, -1, 0, -1, 1, -1].into_iter().enumerate() {
        let transport = Transport::ALL[at % Transport::ALL.len()];
        let mut live =
            Subscription::open(transport, &sidecar.whereabouts().client(), "channel=a", Some(&begin)).await;
        clock.jump_to(hours * HOUR);
        // Some of the jumps happen while the node is down.
        if at >= 3 {
            sidecar.kill_and_start_again().await;
            live = Subscription::open(transport, &sidecar.whereabouts().client(), "channel=a", Some(&begin))
                .await;
        }
        assert!((offset(&sidecar).await - hours * HOUR).abs() < 60, "the node goes by our clock");
        for entry in publish(&sidecar, published..published + 10).await {
            assert_eq!(entry["status"], "published", "{entry}");
        }
        published += 10;
        for entry in publish(&sidecar, 0..published).await {
            assert_eq!(entry["status"], "duplicate", "jump {at} to {hours} h: {entry}");
        }
        let all: Vec<u64> = (0..published).collect();
        assert_eq!(live.numbers(all.len()).await, all, "{transport:?}, {hours} h");
        assert_eq!(numbers(&sidecar.all_events("channel=a").await), all, "{hours} h");
    }
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn nothing_lives_for_ever_after_the_clock_was_wrong() {
    let clock = Clock::new();
    let sidecar = clock.setup().start().await;
    for (channel, hours) in [("behind", -1), ("ahead", 1), ("right", 0)] {
        clock.jump_to(hours * HOUR);
        sidecar.publish(&json!({"channel": channel, "data": 1, "ttl": "10m"})).await;
        sidecar.publish(&json!({"channel": format!("long.{channel}"), "data": 1, "ttl": "12h"})).await;
    }
    assert!(sidecar.last("right").await.is_some() && sidecar.last("ahead").await.is_some());
    assert!(sidecar.last("behind").await.is_none(), "it is an hour old by the clock");
    // As long as the clock was wrong, and no longer.
    clock.jump_to(HOUR + 900);
    for channel in ["behind", "right", "ahead"] {
        assert!(sidecar.last(channel).await.is_none(), "{channel}");
        assert!(sidecar.last(&format!("long.{channel}")).await.is_some(), "{channel}");
    }
    clock.jump_to(14 * HOUR);
    for channel in ["behind", "right", "ahead"] {
        assert!(sidecar.last(&format!("long.{channel}")).await.is_none(), "{channel}");
    }
}
