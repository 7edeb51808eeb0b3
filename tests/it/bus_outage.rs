//! The bus goes away, freezes or becomes slow while apps publish: they notice nothing, and nothing is lost.
//!
//! `SIDEWIRE_TEST_OUTAGE_SECONDS` (60), `SIDEWIRE_TEST_BUS_RATE` (1000 for each node) and
//! `SIDEWIRE_TEST_ANSWER_MS` (20) make it the promise in full, for a release build on a quiet machine.

use crate::servers::{Flow, Towards};
use crate::support::{
    BusKind, Fleet, HttpClient, Publishers, RunningPublishers, SseClient, SseItem, Subscription, Transport,
    Watcher, WebSocketClient, eventually, number_from_environment, within,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How soon everything is where it belongs once the bus is back.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// The default of the configuration, which other tests make longer.
const HEDGE: &str = "hedge = \"50ms\"";

fn outage() -> Duration {
    Duration::from_secs(number_from_environment("SIDEWIRE_TEST_OUTAGE_SECONDS", 6))
}

/// How long 99 % of the answers may take. A debug build among other tests waits for the disk and for its turn.
fn answer_limit() -> Duration {
    Duration::from_millis(number_from_environment("SIDEWIRE_TEST_ANSWER_MS", 500))
}

fn publishers(fleet: &Fleet, node_is_killed: bool) -> Vec<RunningPublishers> {
    fleet
        .nodes
        .iter()
        .enumerate()
        .map(|(at, node)| {
            let publishers = Publishers {
                name: format!("load.{at}"),
                count: 10,
                per_second: number_from_environment("SIDEWIRE_TEST_BUS_RATE", 200),
                node_is_killed,
            };
            publishers.start(node.whereabouts())
        })
        .collect()
}

async fn watchers(fleet: &Fleet) -> Vec<Watcher> {
    let mut watchers = Vec::new();
    for (at, node) in fleet.nodes.iter().enumerate() {
        let who = format!("the client of node {at}");
        watchers.push(Watcher::start(&who, node.whereabouts(), "channel=load.%3E").await);
    }
    watchers
}

/// What becomes of the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    /// Connections are reset and refused.
    Gone,
    /// The server is killed, and started again.
    Killed,
    /// The server does not run, while its sockets stay open.
    Frozen,
    /// Nothing passes the network, while connections stay open and new ones are accepted.
    Swallowed,
    /// It answers, but late.
    Late,
    /// It answers so late that the link is given up.
    Slow,
}

impl Trouble {
    async fn begin(self, fleet: &mut Fleet) {
        match self {
            Trouble::Gone => fleet.proxy.cut().await,
            Trouble::Killed => fleet.server.kill(),
            Trouble::Frozen => fleet.server.freeze(),
            Trouble::Swallowed => fleet.proxy.blackhole(),
            Trouble::Late => {
                let late = Flow { delay: Duration::from_millis(200), ..Flow::default() };
                fleet.proxy.set(Towards::Client, late);
            }
            Trouble::Slow => {
                let late = Flow { delay: Duration::from_millis(700), ..Flow::default() };
                for towards in Towards::BOTH {
                    fleet.proxy.set(towards, late);
                }
            }
        }
    }

    async fn end(self, fleet: &mut Fleet) {
        match self {
            Trouble::Gone | Trouble::Swallowed | Trouble::Late | Trouble::Slow => fleet.proxy.restore().await,
            Trouble::Killed => fleet.server.start_again().await,
            Trouble::Frozen => fleet.server.thaw(),
        }
    }
}

async fn apps_and_clients_notice_nothing(kind: BusKind, trouble: Trouble) {
    let what = format!("{kind:?}, {trouble:?}");
    // A bus that keeps nothing cannot give to another node what was sent while that one was away.
    let count = if BusKind::PLAIN.contains(&kind) { 1 } else { 2 };
    let mut fleet = Fleet::with_config(kind, count, HEDGE, "").await;
    let watchers = watchers(&fleet).await;
    let load = publishers(&fleet, false);
    for running in &load {
        running.go_on_for(50).await;
    }
    trouble.begin(&mut fleet).await;
    let begin = Instant::now();
    while begin.elapsed() < outage() {
        // Clients of the same node get what is published now, all the time.
        for (running, watcher) in load.iter().zip(&watchers) {
            let published = running.acknowledged();
            let own = async || {
                let shown = watcher.count() as u64;
                (shown >= published).then_some(())
            };
            let late = Instant::now();
            eventually(&format!("{what}: clients of the same node see what it takes"), own).await;
            assert!(late.elapsed() < Duration::from_secs(2), "{what}: live took {:?}", late.elapsed());
        }
        sleep(Duration::from_millis(200)).await;
    }
    let mut reports = Vec::new();
    for running in load {
        reports.push(running.stop().await);
    }
    trouble.end(&mut fleet).await;
    let back = Instant::now();
    let total: u64 = reports.iter().map(|report| report.total()).sum();
    for watcher in &watchers {
        watcher.sees(total as usize).await;
    }
    let took = back.elapsed();
    fleet.agree_on("channel=load.%3E", total as usize).await;
    let channels: Vec<_> = reports.iter().flat_map(|report| report.channels.clone()).collect();
    for watcher in &watchers {
        watcher.check(&channels);
        assert!(watcher.shown().iter().all(|shown| shown.connection == 0), "{what}: nobody was cut off");
        if count == 2 {
            assert_eq!(watcher.resumes().len(), 1, "{what}: nobody is told of a loss, as there was none");
        }
    }
    let queued: u64 = reports.iter().map(|report| report.queued).sum();
    eprintln!("{what}: {total} published, {queued} queued, everywhere {took:?} after its return");
    for report in &reports {
        let (middle, most) = (report.answered_in(500), report.answered_in(990));
        eprintln!("{what}: answers in {middle:?}, 99 % in {most:?}");
        assert!(most < answer_limit(), "{what}: 99 % of the answers in {most:?}");
    }
    assert!(queued > 0, "{what}: it was an outage");
    assert!(took < BACK_WITHIN, "{what}: it took {took:?} from its return");
    for node in &mut fleet.nodes {
        node.publish_until("published", "after").await;
        node.still_healthy().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_gone() {
    apps_and_clients_notice_nothing(BusKind::RedisStream, Trouble::Gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed() {
    apps_and_clients_notice_nothing(BusKind::RedisStream, Trouble::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_frozen() {
    apps_and_clients_notice_nothing(BusKind::RedisStream, Trouble::Frozen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_to_redis_swallows_everything() {
    apps_and_clients_notice_nothing(BusKind::RedisStream, Trouble::Swallowed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_answers_late() {
    apps_and_clients_notice_nothing(BusKind::RedisStream, Trouble::Late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_slow() {
    apps_and_clients_notice_nothing(BusKind::RedisStream, Trouble::Slow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_gone() {
    apps_and_clients_notice_nothing(BusKind::JetStream, Trouble::Gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_killed() {
    apps_and_clients_notice_nothing(BusKind::JetStream, Trouble::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_frozen() {
    apps_and_clients_notice_nothing(BusKind::JetStream, Trouble::Frozen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_to_nats_swallows_everything() {
    apps_and_clients_notice_nothing(BusKind::JetStream, Trouble::Swallowed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_answers_late() {
    apps_and_clients_notice_nothing(BusKind::JetStream, Trouble::Late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_slow() {
    apps_and_clients_notice_nothing(BusKind::JetStream, Trouble::Slow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_channels_of_redis_are_gone() {
    apps_and_clients_notice_nothing(BusKind::RedisPubSub, Trouble::Gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_subjects_of_nats_are_frozen() {
    apps_and_clients_notice_nothing(BusKind::NatsCore, Trouble::Frozen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_in_the_middle_of_an_outage_loses_nothing_it_has_acknowledged() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, HEDGE, "").await;
        let watchers = watchers(&fleet).await;
        let load = publishers(&fleet, true);
        for running in &load {
            running.go_on_for(50).await;
        }
        fleet.proxy.cut().await;
        for _ in 0..2 {
            load[0].go_on_for(300).await;
            fleet.nodes[0].kill_and_start_again().await;
        }
        load[0].go_on_for(100).await;
        fleet.proxy.restore().await;
        let back = Instant::now();
        load[0].go_on_for(100).await;
        let mut reports = Vec::new();
        for running in load {
            reports.push(running.stop().await);
        }
        let total: u64 = reports.iter().map(|report| report.total()).sum();
        for watcher in &watchers {
            watcher.sees(total as usize).await;
        }
        eprintln!("{kind:?}: {total} events, everywhere {:?} after its return", back.elapsed());
        fleet.agree_on("channel=load.%3E", total as usize).await;
        let channels: Vec<_> = reports.iter().flat_map(|report| report.channels.clone()).collect();
        let again = reports.iter().flat_map(|report| report.again.clone()).collect();
        for watcher in &watchers {
            watcher.check_but(&channels, &again);
        }
    }
}

#[tokio::test]
async fn a_node_that_starts_while_the_bus_is_away_takes_publishes_and_shows_them() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, HEDGE, "").await;
        fleet.nodes[0].publish_numbers("early", 0..3).await;
        fleet.agree_on("channel=early", 3).await;
        fleet.proxy.cut().await;
        fleet.nodes[0].kill_and_start_again().await;
        let mut client =
            WebSocketClient::open(&fleet.nodes[0].whereabouts().client(), "/v1/ws?channel=early&history=10")
                .await;
        client.expect("subscribed").await;
        assert_eq!(client.next_numbers(3).await, [0, 1, 2], "{kind:?}: what it has is served");
        let answer = fleet.nodes[0].publish(&json!({"channel": "early", "data": {"n": 3}})).await;
        assert_eq!(answer["status"], "queued", "{kind:?}: {answer}");
        assert_eq!(client.next_numbers(1).await, [3], "{kind:?}");
        fleet.proxy.restore().await;
        fleet.agree_on("channel=early", 4).await;
    }
}

#[tokio::test]
async fn what_is_queued_is_shown_once_on_every_transport_and_has_a_cursor() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 1, HEDGE, "").await;
        let address = fleet.nodes[0].whereabouts().client();
        let mut json = WebSocketClient::open(&address, "/v1/ws?channel=q").await;
        let mut packed = WebSocketClient::open_msgpack(&address, "/v1/ws?channel=q").await;
        json.expect("subscribed").await;
        packed.expect("subscribed").await;
        let mut sse = SseClient::open(&address, "/v1/sse?channel=q", &[]).await;
        fleet.nodes[0].wait_for_subscribers("q", 3).await;
        fleet.proxy.cut().await;
        fleet.notices_that_the_bus_is_away().await;
        for n in 0..5 {
            let answer = fleet.nodes[0]
                .app()
                .post_json("/v1/publish", &json!({"channel": "q", "id": format!("q-{n}"), "data": {"n": n}}))
                .await;
            assert_eq!(answer.status(), 202, "{kind:?}: {}", answer.text());
            let said = answer.json();
            assert_eq!(said["status"], "queued", "{said}");
            assert!(said["cursor"].is_null(), "{kind:?}: it has no place yet: {said}");
        }
        for client in [&mut json, &mut packed] {
            for n in 0..5 {
                let event = client.next_event().await;
                assert_eq!(event["data"]["n"], n, "{kind:?}: {event}");
                assert!(event["cursor"].is_string(), "{kind:?}: {event}");
            }
        }
        let mut seen = Vec::new();
        while seen.len() < 5 {
            let item = within("an event on SSE", sse.try_next()).await.expect("connected");
            if let SseItem::Event { data, last_id, .. } = item {
                let event: Value = serde_json::from_str(&data).expect("data is JSON");
                assert_eq!(event["cursor"], last_id, "{kind:?}: {event}");
                seen.push(event["data"]["n"].clone());
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4], "{kind:?}");

        fleet.proxy.restore().await;
        fleet.agree_on("channel=q", 5).await;
        let later = json!({"channel": "q", "id": "later", "data": {"n": 5}});
        eventually("the bus confirms again", async || {
            let answer = fleet.nodes[0].app().post_json("/v1/publish", &later).await;
            (answer.status() == 200).then_some(())
        })
        .await;
        for client in [&mut json, &mut packed] {
            let event = client.next_event().await;
            assert_eq!(event["id"], "later", "{kind:?}: what was shown early is not shown again");
        }
        let again = Subscription::open(Transport::Poll, &address, "channel=q&history=10", None)
            .await
            .numbers(6)
            .await;
        assert_eq!(again, [0, 1, 2, 3, 4, 5], "{kind:?}: who comes later finds it in the log");
    }
}

#[tokio::test]
async fn the_outbox_is_bounded_and_drops_nothing_at_its_bound() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, "", "[queue]\nmax_bytes = \"256KiB\"\n").await;
        fleet.proxy.cut().await;
        fleet.notices_that_the_bus_is_away().await;
        let mut app = fleet.nodes[0].app();
        let mut taken = 0_u64;
        let refused = eventually("a publish that finds the outbox full", async || {
            let event =
                json!({"channel": "full", "id": format!("full-{taken}"), "data": {"n": taken, "x": "y".repeat(5_000)}});
            let answer = app.post_json("/v1/publish", &event).await;
            if answer.status() != 202 {
                return Some(answer);
            }
            taken += 1;
            None
        })
        .await;
        assert_eq!(refused.refusal(503), "queue_full", "{kind:?}");
        assert!(refused.header("retry-after").is_some(), "{kind:?}: a 503 says when to come back");
        assert!((10..60).contains(&taken), "{kind:?}: {taken} events of 5 kB in 256 KiB");
        let ready = fleet.nodes[0].admin().get("/readyz").await;
        assert_eq!(ready.status(), 503, "{}", ready.text());
        let metrics = fleet.nodes[0].metrics().await;
        let held = metrics.sum("sidewire_outbox_events", &[]);
        assert_eq!(held, taken as f64, "{kind:?}");
        assert!(metrics.sum("sidewire_outbox_bytes", &[]) <= 300_000., "{kind:?}");

        fleet.proxy.restore().await;
        let kept = fleet.agree_on("channel=full", taken as usize).await;
        assert_eq!(crate::support::numbers(&kept), (0..taken).collect::<Vec<_>>(), "{kind:?}");
        fleet.nodes[0].publish_until("published", "after").await;
        eventually("the outbox is empty", async || {
            let metrics = fleet.nodes[0].metrics().await;
            (metrics.sum("sidewire_outbox_events", &[]) == 0.).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_outbox_is_bounded_in_age_too() {
    let kind = BusKind::RedisStream;
    let mut fleet = Fleet::with_config(kind, 1, "", "[queue]\nmax_age = \"2s\"\n").await;
    fleet.proxy.cut().await;
    fleet.notices_that_the_bus_is_away().await;
    let mut app = fleet.nodes[0].app();
    let first = app.post_json("/v1/publish", &json!({"channel": "old", "data": {"n": 0}})).await;
    assert_eq!(first.status(), 202, "{}", first.text());
    let mut taken = 1_u64;
    let refused = eventually("a publish that finds the oldest too old", async || {
        let answer = app.post_json("/v1/publish", &json!({"channel": "old", "data": {"n": taken}})).await;
        if answer.status() == 202 {
            taken += 1;
            return None;
        }
        Some(answer)
    })
    .await;
    assert_eq!(refused.refusal(503), "queue_full");
    fleet.proxy.restore().await;
    let kept = fleet.agree_on("channel=old", taken as usize).await;
    assert_eq!(crate::support::numbers(&kept), (0..taken).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_acknowledgement_says_what_it_means_while_the_bus_is_away() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, HEDGE, "").await;
        let event = |n: u64| json!({"channel": "ack", "id": format!("ack-{n}"), "data": {"n": n}});
        let send = async |app: &mut HttpClient, ack: &str, n| {
            app.post_json(&format!("/v1/publish?ack={ack}"), &event(n)).await
        };
        let mut app = fleet.nodes[0].app();
        let answer = send(&mut app, "bus", 0).await;
        assert_eq!(answer.success()["status"], "published", "{kind:?}");
        fleet.proxy.cut().await;
        fleet.notices_that_the_bus_is_away().await;
        let begin = Instant::now();
        let answer = send(&mut app, "bus", 1).await;
        assert_eq!(answer.refusal(504), "bus_timeout", "{kind:?}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{kind:?}: {:?}", begin.elapsed());
        let answer = send(&mut app, "log", 2).await;
        assert_eq!((answer.status(), &answer.json()["status"]), (202, &json!("queued")), "{kind:?}");
        let answer = send(&mut app, "none", 3).await;
        assert!((200..300).contains(&answer.status()), "{kind:?}: {}", answer.text());
        // Who asks again under the same id is told that it is on its way, not that it failed.
        let answer = send(&mut app, "log", 2).await;
        assert!((200..300).contains(&answer.status()), "{kind:?}: {}", answer.text());

        fleet.proxy.restore().await;
        fleet.nodes[0].wait_for_events("channel=ack", 4).await;
        let answer = send(&mut app, "bus", 1).await;
        assert!((200..300).contains(&answer.status()), "{kind:?}: what timed out can be asked for again");
        let kept = fleet.agree_on("channel=ack", 4).await;
        assert_eq!(crate::support::numbers(&kept), [0, 1, 2, 3], "{kind:?}");
    }
}

/// F14: what comes and goes all the time, late and by halves, neither reorders nor leaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_flaps_costs_nothing_but_time() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, HEDGE, "").await;
        let open = fleet.proxy.open();
        let watchers = watchers(&fleet).await;
        let load = publishers(&fleet, false);
        for flap in 0..12 {
            load[0].go_on_for(20).await;
            match flap % 4 {
                0 => fleet.proxy.reset(),
                1 => fleet.proxy.cut().await,
                2 => fleet.proxy.half_close(),
                _ => {
                    let late = Flow { delay: Duration::from_millis(300), ..Flow::default() };
                    fleet.proxy.set(Towards::Client, late);
                }
            }
            load[1].go_on_for(20).await;
            fleet.proxy.restore().await;
        }
        let mut reports = Vec::new();
        for running in load {
            reports.push(running.stop().await);
        }
        let total: u64 = reports.iter().map(|report| report.total()).sum();
        for watcher in &watchers {
            watcher.sees(total as usize).await;
        }
        fleet.agree_on("channel=load.%3E", total as usize).await;
        let channels: Vec<_> = reports.iter().flat_map(|report| report.channels.clone()).collect();
        for watcher in &watchers {
            watcher.check(&channels);
        }
        fleet.ready().await;
        eventually("no more connections than before", async || (fleet.proxy.open() <= open).then_some(()))
            .await;
    }
}
