//! A node that moves from one bus to another keeps its history, and answers cursors of before truthfully.

use crate::servers::{NatsServer, RedisServer};
use crate::support::{Subscription, TestSidecar, Transport, bus_config_at};

#[tokio::test]
async fn history_stays_complete_from_bus_to_bus_and_back() {
    let redis = RedisServer::start().await;
    let nats = NatsServer::start().await;
    let memory = "[bus]\nurl = \"memory:\"\n".to_owned();
    let on_redis = bus_config_at(&redis.url(), "stream", "", "");
    let on_nats = bus_config_at(&nats.url(), "jetstream", "", "");
    let on_pubsub = bus_config_at(&redis.url(), "pubsub", "", "");
    let stays = [&memory, &on_redis, &on_nats, &memory, &on_pubsub, &on_redis, &memory];

    let mut sidecar = TestSidecar::with_config(&memory).await;
    let mut cursors: Vec<(u64, String)> = Vec::new();
    for (stay, config) in (0_u64..).zip(stays) {
        if stay > 0 {
            // By turns a clean end and a hard one.
            if stay % 2 == 0 {
                assert!(sidecar.terminate().await.success());
            } else {
                sidecar.kill();
            }
            sidecar.rewrite_config(config);
            sidecar.start_again().await;
        }
        sidecar.ready().await;
        let address = sidecar.whereabouts().client();
        for (older, cursor) in &cursors {
            let mut opened =
                Subscription::open(Transport::WebSocket, &address, "channel=moves", Some(cursor)).await;
            let told = opened.resume().to_owned();
            // Back on the log of the cursor it may be good again: then everything after it on that log comes.
            if told == "ok" && numbered_by(stays[*older as usize]) == numbered_by(config) {
                let there: Vec<u64> = (older * 10..older * 10 + 10).collect();
                assert_eq!(opened.numbers(10).await, there, "from stay {older} on, at stay {stay}");
            } else {
                assert_eq!(told, "reset", "a cursor of stay {older}, asked for at stay {stay}");
            }
        }
        let begin = sidecar.cursor_now().await;
        sidecar.publish_numbers("moves", stay * 10..stay * 10 + 10).await;
        let count = stay as usize * 10 + 10;
        let kept = sidecar.wait_for_events("channel=moves", count).await;
        assert_eq!(crate::support::numbers(&kept), (0..count as u64).collect::<Vec<_>>(), "stay {stay}");
        // Small pages cross every border, both ways.
        for order in ["asc", "desc"] {
            assert_eq!(by_pages(&sidecar, order).await, sorted(count as u64, order), "stay {stay}, {order}");
        }
        let mut client =
            Subscription::open(Transport::WebSocket, &address, "channel=moves", Some(&begin)).await;
        assert_eq!(client.resume(), "ok", "stay {stay}: a cursor of now is good");
        assert_eq!(client.numbers(10).await, (stay * 10..stay * 10 + 10).collect::<Vec<_>>(), "stay {stay}");
        let mut client =
            Subscription::open(Transport::Poll, &address, "channel=moves&history=1000", None).await;
        assert_eq!(client.numbers(count).await, (0..count as u64).collect::<Vec<_>>(), "stay {stay}");
        cursors.push((stay, begin));
    }
    sidecar.still_healthy().await;
}

/// Who gives positions: one of the servers, or the node.
fn numbered_by(config: &str) -> &str {
    ["\"stream\"", "\"jetstream\""].into_iter().find(|mode| config.contains(mode)).unwrap_or("the node")
}

fn sorted(count: u64, order: &str) -> Vec<u64> {
    if order == "asc" { (0..count).collect() } else { (0..count).rev().collect() }
}

/// The whole history of the channel in pages of seven.
async fn by_pages(sidecar: &TestSidecar, order: &str) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut from = String::new();
    loop {
        let page = sidecar.events(&format!("channel=moves&order={order}&limit=7{from}")).await;
        numbers.extend(crate::support::numbers(page["events"].as_array().expect("events")));
        if page["more"] == false {
            return numbers;
        }
        assert!(numbers.len() < 1_000, "it comes to an end");
        let cursor = page["cursor"].as_str().expect("a cursor");
        let side = if order == "asc" { "after" } else { "before" };
        from = format!("&{side}={cursor}");
    }
}
