//! A disk that hangs, or fails once: the node says so, acknowledges nothing that is not there, and goes on afterwards.

use crate::support::{Publishers, Setup, TestSidecar, WebSocketClient, eventually};
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// A node on a disk that does what it is told.
struct Troubled {
    sidecar: TestSidecar,
    directory: TempDir,
}

impl Troubled {
    async fn start(config: &str) -> Self {
        let directory = TempDir::with_prefix("sidewire-test-disk-").expect("a temporary directory");
        let library = directory.path().join("disk.so");
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/bad_disk/disk.c");
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .expect("a C compiler is installed (tests/setup.sh installs it)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let sidecar = Setup::new()
            .config(&format!("[bus]\nprobe_interval = \"500ms\"\n{config}"))
            .environment("LD_PRELOAD", library.to_str().expect("a temporary path is UTF-8"))
            .environment("DISK_TROUBLE", directory.path().to_str().expect("a temporary path is UTF-8"))
            .start()
            .await;
        sidecar.ready().await;
        Self { sidecar, directory }
    }

    fn begin(&self, trouble: &str) {
        std::fs::write(self.directory.path().join(trouble), "").expect("the directory can be written");
    }

    fn end(&self, trouble: &str) {
        std::fs::remove_file(self.directory.path().join(trouble)).expect("it was there");
    }

    /// Waits until the trouble has happened.
    async fn happened(&self, trouble: &str) {
        let path = self.directory.path().join(trouble);
        eventually("the disk has failed once", async || (!path.exists()).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_is_told_by_readiness_and_nothing_is_lost_when_it_goes_on() {
    for trouble in ["hang-write", "hang-sync"] {
        let node = Troubled::start("").await;
        let address = node.sidecar.whereabouts().client();
        let mut client = WebSocketClient::open(&address, "/v1/ws?channel=load.%3E").await;
        client.expect("subscribed").await;
        let publishers =
            Publishers { name: "load".to_owned(), count: 4, per_second: 200, node_is_killed: false };
        let load = publishers.start(node.sidecar.whereabouts());
        load.go_on_for(20).await;
        node.begin(trouble);
        let begin = Instant::now();
        eventually("readiness is off", async || {
            let answer = node.sidecar.admin().get("/readyz").await;
            (answer.status() == 503).then_some(())
        })
        .await;
        assert!(begin.elapsed() < Duration::from_secs(8), "{trouble}: {:?}", begin.elapsed());
        assert_eq!(node.sidecar.admin().get("/healthz").await.status(), 200, "{trouble}: alive, and asked");
        let acknowledged = load.acknowledged();
        node.end(trouble);
        load.go_on_for(20).await;
        let report = load.stop().await;
        assert!(report.total() > acknowledged, "{trouble}: it goes on");
        node.sidecar.ready().await;
        let kept = node.sidecar.wait_for_events("channel=load.%3E", report.total() as usize).await;
        for (channel, count) in &report.channels {
            let of_channel: Vec<_> =
                kept.iter().filter(|event| event["channel"] == **channel).cloned().collect();
            assert_eq!(crate::support::numbers(&of_channel), (0..*count).collect::<Vec<_>>(), "{trouble}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_disk_failed_to_take_is_not_acknowledged_and_later_events_are() {
    for trouble in ["fail-write", "fail-sync"] {
        let mut node = Troubled::start("").await;
        let mut acknowledged = Vec::new();
        for n in 0..60 {
            if n == 20 {
                node.begin(trouble);
            }
            let event = json!({"channel": "once", "id": format!("once-{n}"), "data": {"n": n}});
            let answer = node.sidecar.app().post_json("/v1/publish", &event).await;
            match answer.status() {
                200 => acknowledged.push(n),
                503 => {}
                _ => panic!("{trouble}: {}", answer.text()),
            }
        }
        node.happened(trouble).await;
        assert!(acknowledged.len() >= 40, "{trouble}: it goes on: {acknowledged:?}");
        node.sidecar.kill_and_start_again().await;
        let kept = crate::support::numbers(&node.sidecar.all_events("channel=once").await);
        assert!(kept.is_sorted_by(|one, two| one < two), "{trouble}: in order and once: {kept:?}");
        for n in &acknowledged {
            assert!(kept.contains(n), "{trouble}: {n} was acknowledged and is lost: {kept:?}");
        }
        node.sidecar.still_healthy().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_for_long_is_answered_with_503_and_clients_are_served() {
    let node = Troubled::start("").await;
    node.sidecar.publish_numbers("before", 0..5).await;
    node.begin("hang-write");
    // One that is under way, and holds up those behind it.
    let app = node.sidecar.whereabouts();
    let stuck = tokio::spawn(async move {
        let mut app = crate::support::HttpClient::new(app.app());
        app.try_request("POST", "/v1/publish", &[], br#"{"channel":"stuck","data":1}"#).await
    });
    let refused = eventually("publishes are refused", async || {
        let begin = Instant::now();
        let event = json!({"channel": "stuck", "data": 2});
        let answer = node.sidecar.app().post_json("/v1/publish?ack=none", &event).await;
        assert!(begin.elapsed() < Duration::from_secs(12), "an answer in {:?}", begin.elapsed());
        (answer.status() == 503).then_some(answer)
    })
    .await;
    assert!(refused.header("retry-after").is_some(), "{}", refused.text());
    // What is there is served: it is read beside.
    let address = node.sidecar.whereabouts().client();
    let mut client = WebSocketClient::open(&address, "/v1/ws?channel=before&history=5").await;
    client.expect("subscribed").await;
    assert_eq!(client.next_numbers(5).await, [0, 1, 2, 3, 4]);
    node.end("hang-write");
    stuck.await.expect("no panic").expect("it is answered");
    node.sidecar.ready().await;
    node.sidecar.publish_numbers("after", 0..5).await;
}
