//! Clients that come back while the bus is away and after it: to the same node and to others, each event once.

use crate::support::{
    Address, BusKind, DEFAULT_HEDGE, Fleet, Hoppers, HttpClient, Publishers, RunningPublishers, SseClient,
    Subscription, Transport, eventually, number_from_environment, random_seed,
};
use serde_json::{Value, json};

const ALL_KINDS: [BusKind; 4] =
    [BusKind::RedisStream, BusKind::JetStream, BusKind::RedisPubSub, BusKind::NatsCore];

async fn cut(fleet: &mut Fleet) {
    fleet.proxy.cut().await;
    fleet.notices_that_the_bus_is_away().await;
}

async fn publish_queued(app: &mut HttpClient, channel: &str, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let event = json!({"channel": channel, "id": format!("{channel}-{n}"), "data": {"n": n}});
        let answer = app.post_json("/v1/publish", &event).await;
        assert_eq!(answer.status(), 202, "{}", answer.text());
    }
}

/// Publishes until the bus takes it.
async fn publish_on_bus(app: &mut HttpClient, channel: &str, n: u64) {
    let event = json!({"channel": channel, "id": format!("{channel}-{n}"), "data": {"n": n}});
    eventually("the bus confirms again", async || {
        let answer = app.post_json("/v1/publish?ack=bus", &event).await;
        (answer.status() == 200).then_some(())
    })
    .await;
}

/// A client that goes away after every event, and comes back with the cursor of that.
struct Visitor {
    transport: Transport,
    channel: &'static str,
    cursor: String,
    got: Vec<u64>,
}

impl Visitor {
    fn all(channel: &'static str, cursor: &str) -> Vec<Self> {
        let visitor = |transport| Self { transport, channel, cursor: cursor.to_owned(), got: Vec::new() };
        Transport::ALL.into_iter().map(visitor).collect()
    }

    /// Comes so many times, for one event each.
    async fn visit(&mut self, address: &Address, times: usize) {
        let query = format!("channel={}", self.channel);
        for _ in 0..times {
            let mut there = Subscription::open(self.transport, address, &query, Some(&self.cursor)).await;
            let delivery = there.next().await;
            assert!(delivery.cursor.len() <= 200, "{}", delivery.cursor);
            self.got.push(delivery.number());
            self.cursor = delivery.cursor;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_to_its_node_goes_on_where_it_was() {
    for kind in ALL_KINDS {
        let mut fleet = Fleet::with_config(kind, 1, DEFAULT_HEDGE, "").await;
        let address = fleet.nodes[0].whereabouts().client();
        let mut app = fleet.nodes[0].app();
        let mut visitors = Visitor::all("home", &fleet.nodes[0].cursor_now().await);
        cut(&mut fleet).await;
        publish_queued(&mut app, "home", 0..4).await;
        for visitor in &mut visitors {
            visitor.visit(&address, 3).await;
        }
        publish_queued(&mut app, "home", 4..6).await;
        for visitor in &mut visitors {
            visitor.visit(&address, 2).await;
        }
        fleet.proxy.restore().await;
        fleet.nodes[0].wait_for_events("channel=home", 6).await;
        publish_on_bus(&mut app, "home", 6).await;
        for visitor in &mut visitors {
            visitor.visit(&address, 2).await;
            assert_eq!(visitor.got, [0, 1, 2, 3, 4, 5, 6], "{kind:?} {:?}", visitor.transport);
        }
    }
}

/// A long-poll client is one that always comes back: here with the cursors of its answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_polls_through_an_outage_gets_each_event_once() {
    for kind in ALL_KINDS {
        let mut fleet = Fleet::with_config(kind, 1, DEFAULT_HEDGE, "").await;
        let mut client = fleet.nodes[0].client();
        let mut cursor = fleet.nodes[0].cursor_now().await;
        let mut got: Vec<Value> = Vec::new();
        let mut poll = async |most: usize, got: &mut Vec<Value>| {
            let target = format!("/v1/poll?channel=poll&limit={most}&timeout=0&cursor={cursor}");
            let answer = client.get(&target).await.success();
            // A bus that keeps nothing may have lost what others sent meanwhile, and the client is told.
            let may_be_lost = BusKind::PLAIN.contains(&kind) && answer["resume"] == "expired";
            assert!(may_be_lost || answer["resume"] == "ok", "{kind:?}: {answer}");
            let events = answer["events"].as_array().expect("events");
            assert!(events.len() <= most, "{kind:?}: {answer}");
            got.extend(events.iter().map(|event| event["data"]["n"].clone()));
            answer["cursor"].as_str().expect("a cursor").clone_into(&mut cursor);
        };
        let mut app = fleet.nodes[0].app();
        cut(&mut fleet).await;
        for n in 0..10 {
            publish_queued(&mut app, "poll", 2 * n..2 * n + 2).await;
            poll(1 + n as usize % 3, &mut got).await;
            poll(1, &mut got).await;
        }
        fleet.proxy.restore().await;
        fleet.nodes[0].wait_for_events("channel=poll", 20).await;
        publish_on_bus(&mut app, "poll", 20).await;
        eventually("everything", async || {
            poll(5, &mut got).await;
            (got.len() >= 21).then_some(())
        })
        .await;
        assert_eq!(got, (0..21).map(Value::from).collect::<Vec<_>>(), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_to_another_node_gets_nothing_again() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, DEFAULT_HEDGE, "").await;
        let [here, there] = [0, 1].map(|at| fleet.nodes[at].whereabouts().client());
        let [mut app, mut other_app] = [0, 1].map(|at| fleet.nodes[at].app());
        let mut visitors = Visitor::all("away", &fleet.nodes[0].cursor_now().await);
        publish_on_bus(&mut app, "away", 0).await;
        fleet.agree_on("channel=away", 1).await;
        for visitor in &mut visitors {
            visitor.visit(&there, 1).await;
        }
        cut(&mut fleet).await;
        publish_queued(&mut app, "away", 1..4).await;
        publish_queued(&mut other_app, "away", 10..12).await;
        // There, here and there again, while neither knows what the other has.
        for visitor in &mut visitors {
            visitor.visit(&here, 2).await;
            visitor.visit(&there, 2).await;
            visitor.visit(&here, 1).await;
        }
        fleet.proxy.restore().await;
        fleet.agree_on("channel=away", 6).await;
        publish_on_bus(&mut other_app, "away", 12).await;
        for (at, visitor) in visitors.iter_mut().enumerate() {
            visitor.visit([&here, &there][at % 2], 1).await;
            assert_eq!(visitor.got, [0, 1, 2, 10, 11, 3, 12], "{kind:?} {:?}", visitor.transport);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_showed_before_it_was_killed_is_not_shown_again_anywhere() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, DEFAULT_HEDGE, "").await;
        let begin = fleet.nodes[0].cursor_now().await;
        let mut visitors = Visitor::all("kill", &begin);
        cut(&mut fleet).await;
        publish_queued(&mut fleet.nodes[0].app(), "kill", 0..3).await;
        let here = fleet.nodes[0].whereabouts().client();
        for visitor in &mut visitors {
            visitor.visit(&here, 3).await;
        }
        fleet.nodes[0].kill_and_start_again().await;
        // These wait behind what the run before has left.
        publish_queued(&mut fleet.nodes[0].app(), "kill", 3..5).await;
        fleet.proxy.restore().await;
        fleet.agree_on("channel=kill", 5).await;
        let addresses = [0, 1].map(|at| fleet.nodes[at].whereabouts().client());
        for (at, visitor) in visitors.iter_mut().enumerate() {
            visitor.visit(&addresses[at % 2], 2).await;
            assert_eq!(visitor.got, [0, 1, 2, 3, 4], "{kind:?} {:?}", visitor.transport);
        }
        // And who was away all the time misses nothing.
        let mut late = Subscription::open(Transport::Sse, &addresses[0], "channel=kill", Some(&begin)).await;
        assert_eq!(late.numbers(5).await, [0, 1, 2, 3, 4], "{kind:?}");
    }
}

#[tokio::test]
async fn a_browser_that_has_seen_the_end_is_told_to_stop_before_the_end_has_its_place() {
    const ROUTE: &str =
        "[[client.routes]]\npath = \"/job/{id}\"\nchannel = \"job.{id}\"\nclose_on = [\"done\"]\n";
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 1, DEFAULT_HEDGE, ROUTE).await;
        let node = fleet.nodes[0].whereabouts();
        let mut stream = SseClient::open(&node.client(), "/job/7", &[]).await;
        cut(&mut fleet).await;
        let end = json!({"channel": "job.7", "event": "done", "data": {"n": 0}});
        assert_eq!(fleet.nodes[0].publish(&end).await["status"], "queued", "{kind:?}");
        let (name, _, last_id) = stream.next_event().await;
        assert_eq!(name, "done", "{kind:?}");
        stream.rest().await;
        let headers = [("Accept", "text/event-stream"), ("Last-Event-ID", &*last_id)];
        for is_away in [true, false] {
            let answer = fleet.nodes[0].client().request("GET", "/job/7", &headers, b"").await;
            assert_eq!(answer.status(), 204, "{kind:?}, away: {is_away}: {}", answer.text());
            fleet.proxy.restore().await;
            fleet.nodes[0].wait_for_events("channel=job.7", 1).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_two_nodes_queue_is_shown_once_on_both() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, DEFAULT_HEDGE, "").await;
        let mut clients = Vec::new();
        for node in &fleet.nodes {
            let address = node.whereabouts().client();
            for transport in Transport::ALL {
                clients.push(Subscription::open(transport, &address, "channel=same", None).await);
            }
            node.wait_for_subscribers("same", Transport::ALL.len() as u64 - 1).await;
        }
        cut(&mut fleet).await;
        for node in &fleet.nodes {
            publish_queued(&mut node.app(), "same", 0..3).await;
        }
        fleet.proxy.restore().await;
        fleet.agree_on("channel=same", 3).await;
        publish_on_bus(&mut fleet.nodes[0].app(), "same", 3).await;
        for (at, client) in clients.iter_mut().enumerate() {
            // The first poll of a client begins when it asks.
            if at % Transport::ALL.len() != Transport::ALL.len() - 2 {
                assert_eq!(client.numbers(4).await, [0, 1, 2, 3], "{kind:?}: client {at}");
            }
        }
    }
}

/// Everything at once: the bus comes and goes, a node is killed, and clients on every transport go where they like.
async fn clients_hop_through_outages(kind: BusKind, node_is_killed: bool) {
    let seed = random_seed(&format!("hop through outages of {kind:?}"));
    let mut fleet = Fleet::with_config(kind, 3, DEFAULT_HEDGE, "").await;
    let hoppers = Hoppers::start(&fleet.nodes, "channel=out.>", seed).await;
    let per_second = number_from_environment("SIDEWIRE_TEST_BUS_RATE", 100);
    let load = Publishers { name: "out".to_owned(), count: 5, per_second, node_is_killed }
        .start_on_each(&fleet.nodes);
    for (at, running) in load.iter().enumerate() {
        running.go_on_for(60).await;
        fleet.proxy.cut().await;
        running.go_on_for(120).await;
        if node_is_killed {
            fleet.nodes[at].kill_and_start_again().await;
            running.go_on_for(60).await;
        }
        fleet.proxy.restore().await;
    }
    load[0].go_on_for(60).await;
    let published = RunningPublishers::stop_all(load).await;
    fleet.agree_on("channel=out.%3E", published.total() as usize).await;
    hoppers.get_exactly(&published).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hops_through_outages_of_redis_gets_each_event_once() {
    clients_hop_through_outages(BusKind::RedisStream, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hops_through_outages_of_jetstream_gets_each_event_once() {
    clients_hop_through_outages(BusKind::JetStream, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_on_redis_while_nodes_are_killed() {
    clients_hop_through_outages(BusKind::RedisStream, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_on_jetstream_while_nodes_are_killed() {
    clients_hop_through_outages(BusKind::JetStream, true).await;
}
