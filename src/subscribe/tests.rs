//! What a client is handed, against what it should get, while rings overflow and sockets take only a part.

use super::*;
use crate::event::{
    Channel, Cursor, Data, Event, EventId, EventName, Expiry, Json, Origin, Sender, Tags, Way,
};
use crate::hub::{Hub, RingLimits};
use crate::log::{Log, LogOptions};
use std::future::poll_fn;
use std::time::{Duration, Instant};

/// The run of the node of a bench.
const OWN: Origin = Origin(77);

struct Bench {
    source: Arc<Source>,
    next: Position,
    shown: Vec<Arc<Shown>>,
    _directory: tempfile::TempDir,
}

impl Bench {
    /// Rings so short that most readers fall off them.
    fn new(feed_bytes: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(LogOptions::new(directory.path().join("log"))).unwrap();
        let limits = RingLimits { feed_bytes, total_bytes: 4 * feed_bytes, age: Duration::from_secs(60) };
        let hub = Hub::new(log.head(), limits);
        let next = log.next_position();
        hub.begin_run(OWN, 1);
        Self {
            source: Arc::new(Source { hub, log, order: Order::default() }),
            next,
            shown: Vec::new(),
            _directory: directory,
        }
    }

    /// Appends and shows a group, as the replica does.
    fn publish(&mut self, channels: &[&str]) {
        self.publish_excluding(channels, None);
    }

    fn publish_excluding(&mut self, channels: &[&str], exclude: Option<&ConnectionId>) {
        let mut group = Vec::new();
        for channel in channels {
            let event = Event {
                position: self.next,
                id: EventId::fresh(),
                id_given: false,
                channel: Channel::parse(channel).unwrap(),
                name: EventName::parse(if self.next.0.is_multiple_of(3) { "third" } else { "other" })
                    .unwrap(),
                data: Data::Json(Json::string(&self.next.0.to_string())),
                time: crate::publish::unix_ms(),
                tags: Tags::default(),
                expiry: Expiry::At(u64::MAX),
                exclude: exclude.cloned(),
                from: None,
                way: None,
            };
            self.next = self.next.next();
            group.push(Arc::new(event));
        }
        self.source.log.append(&group).unwrap();
        let shown = self.source.shown(group);
        self.source.hub.show(&shown, Instant::now());
        self.shown.extend(shown);
    }

    /// The next event, which the bus has not ordered: it gets its position when it comes back.
    fn event(&mut self, channel: &str) -> Event {
        Event {
            position: Position::ZERO,
            id: EventId::fresh(),
            id_given: false,
            channel: Channel::parse(channel).unwrap(),
            name: EventName::default(),
            data: Data::Json(Json::string(channel)),
            time: crate::publish::unix_ms(),
            tags: Tags::default(),
            expiry: Expiry::At(u64::MAX),
            exclude: None,
            from: None,
            way: None,
        }
    }

    /// What was shown early comes back from the bus.
    fn come_back(&mut self, number: u64, event: &Event) {
        let mut event = event.clone();
        event.position = self.next;
        self.next = self.next.next();
        let sender = Some(Sender { origin: OWN, number });
        event.way = Some(Box::new(Way { sender, marks: None }));
        let group = vec![Arc::new(event)];
        self.source.log.append(&group).unwrap();
        let shown = self.source.shown(group);
        self.source.hub.show(&shown, Instant::now());
        self.shown.extend(shown);
    }

    fn subscription(&self, patterns: &[&str]) -> Subscription {
        let mut subscription = Subscription::new(self.source.clone(), None);
        for pattern in patterns {
            subscription.join(&Pattern::parse(pattern).unwrap(), None);
        }
        subscription
    }

    /// The positions that a client of these patterns is to get after `after`.
    fn expected(&self, patterns: &[&str], after: Position) -> Vec<u64> {
        let interest = Interest::new(patterns.iter().map(|pattern| Pattern::parse(pattern).unwrap()));
        self.shown
            .iter()
            .filter(|shown| shown.event.position > after && interest.matches(&shown.event.channel))
            .map(|shown| shown.event.position.0)
            .collect()
    }
}

fn positions(next: Next) -> Vec<u64> {
    match next {
        Next::Batches(batches) => {
            batches.iter().flat_map(|batch| batch.events()).map(|shown| shown.event.position.0).collect()
        }
        Next::Events(events) | Next::Replayed(events) => {
            events.iter().map(|shown| shown.event.position.0).collect()
        }
        Next::Early(_) => panic!("nothing is early here"),
        Next::Lost => panic!("nothing is lost here"),
        Next::Failed => panic!("the log can be read"),
    }
}

/// Everything that is there now. Reading the log takes a thread, so it is waited for.
async fn drain(subscription: &mut Subscription, found: &mut Vec<u64>) {
    loop {
        let next = poll_fn(|context| match subscription.poll_next(context) {
            Poll::Ready(next) => Poll::Ready(Some(next)),
            Poll::Pending if subscription.is_reading_log() => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        })
        .await;
        match next {
            Some(next) => found.extend(positions(next)),
            None => return,
        }
    }
}

#[tokio::test]
async fn every_event_comes_once_and_in_order_whatever_the_rings_hold() {
    for (seed, patterns) in [
        (1, &["a.x"][..]),
        (2, &["a.x", "a.*"]),
        (3, &[">"]),
        (4, &["a.x", "b.x", "c.>", "*.x"]),
        (5, &["b.x", "nobody"]),
    ] {
        for feed_bytes in [1, 20_000, 10_000_000] {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bench = Bench::new(feed_bytes);
            bench.publish(&["a.x", "b.x"]);
            let begin = bench.source.hub.head();
            let mut subscription = bench.subscription(patterns);
            let mut found = Vec::new();
            for _ in 0..200 {
                let group: Vec<_> = (0..random.usize(1..6))
                    .map(|_| *random.choice(&["a.x", "b.x", "c.y.z", "d"]).unwrap())
                    .collect();
                bench.publish(&group);
                if random.u8(..) < 100 {
                    drain(&mut subscription, &mut found).await;
                }
                if random.u8(..) < 60 {
                    // A socket took only a part of what was handed over.
                    let kept = random.usize(..=found.len());
                    found.truncate(kept);
                    subscription.rewind(found.last().map_or(begin, |last| Position(*last)));
                }
                if random.u8(..) < 20 {
                    subscription.settle();
                }
            }
            drain(&mut subscription, &mut found).await;
            assert_eq!(found, bench.expected(patterns, begin), "{patterns:?}, rings of {feed_bytes}");
            assert_eq!(subscription.settle(), bench.source.hub.head());
        }
    }
}

#[tokio::test]
async fn who_joins_late_reads_the_log_up_to_where_its_ring_begins() {
    let mut bench = Bench::new(1 << 20);
    for _ in 0..50 {
        bench.publish(&["a.x", "b.x"]);
    }
    let mut subscription = bench.subscription(&["a.x"]);
    subscription.begin(&Opening { goes_on: true, ..Opening::at(Position(20)) });
    bench.publish(&["a.x"]);
    let mut found = Vec::new();
    drain(&mut subscription, &mut found).await;
    assert_eq!(found, bench.expected(&["a.x"], Position(20)));
}

#[tokio::test]
async fn filters_and_exclusion_leave_out_what_they_say() {
    let mut bench = Bench::new(1 << 20);
    let me = ConnectionId::parse("me").unwrap();
    let mut subscription = Subscription::new(bench.source.clone(), Some(me.clone()));
    let thirds = Filter { events: vec![EventName::parse("third").unwrap()], tags: Vec::new() };
    subscription.join(&Pattern::parse("a.x").unwrap(), Some(Arc::new(thirds)));
    subscription.join(&Pattern::parse("b.x").unwrap(), None);
    let mut found = Vec::new();
    for _ in 0..20 {
        bench.publish(&["a.x"]);
        bench.publish_excluding(&["b.x"], Some(&me));
        bench.publish(&["b.x"]);
    }
    drain(&mut subscription, &mut found).await;
    let expected: Vec<u64> = bench
        .shown
        .iter()
        .map(|shown| &shown.event)
        .filter(|event| event.exclude.is_none())
        .filter(|event| event.channel.as_str() == "b.x" || event.name.as_str() == "third")
        .map(|event| event.position.0)
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_while_events_are_shown_beside() {
    let mut bench = Bench::new(50_000);
    let total = 20_000;
    let readers: Vec<_> = [&["a.x"][..], &["a.x", "b.x"], &[">"], &["a.*", "c.y"]]
        .into_iter()
        .map(|patterns| {
            let mut subscription = bench.subscription(patterns);
            let reader = tokio::spawn(async move {
                let mut found = Vec::new();
                // The last event is for everybody.
                while found.last() != Some(&total) {
                    let next = poll_fn(|context| subscription.poll_next(context)).await;
                    found.extend(positions(next));
                }
                found
            });
            (patterns, reader)
        })
        .collect();
    let bench = tokio::task::spawn_blocking(move || {
        let mut random = fastrand::Rng::with_seed(7);
        while bench.next.0 < total {
            let left = (total - bench.next.0) as usize;
            let group: Vec<_> = (0..random.usize(1..8).min(left))
                .map(|_| *random.choice(&["a.x", "b.x", "c.y"]).unwrap())
                .collect();
            bench.publish(&group);
        }
        bench.publish(&["a.x"]);
        bench
    })
    .await
    .unwrap();
    for (patterns, reader) in readers {
        let found = tokio::time::timeout(Duration::from_secs(60), reader).await.unwrap().unwrap();
        assert_eq!(found, bench.expected(patterns, Position::ZERO), "{patterns:?}");
    }
}

/// Everything that is there now, by id.
async fn drain_ids(subscription: &mut Subscription, found: &mut Vec<String>) {
    loop {
        let next = poll_fn(|context| match subscription.poll_next(context) {
            Poll::Ready(next) => Poll::Ready(Some(next)),
            Poll::Pending if subscription.is_reading_log() => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        })
        .await;
        let id = |shown: &Arc<Shown>| shown.event.id.as_str().to_owned();
        match next {
            Some(Next::Batches(batches)) => {
                found.extend(batches.iter().flat_map(|batch| batch.events()).map(id));
            }
            Some(Next::Events(events) | Next::Replayed(events)) => found.extend(events.iter().map(id)),
            Some(Next::Early(events)) => found.extend(events.iter().map(|(_, shown)| id(shown))),
            Some(Next::Lost | Next::Failed) => panic!("nothing is lost here"),
            None => return,
        }
    }
}

/// While the bus comes and goes, at random, with clients of every speed: each event once, and those of this node
/// in the order in which it published them.
#[tokio::test]
async fn what_was_shown_early_does_not_come_again() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new(*random.choice(&[1, 20_000, 10_000_000]).unwrap());
        let mut clients: Vec<_> = [&["a.x"][..], &["a.*"], &["a.x", "b.>"], &[">"]]
            .into_iter()
            .map(|patterns| (patterns, bench.subscription(patterns), Vec::new()))
            .collect();
        // Published by this node, in order; those from `returned` on are on their way over the bus.
        let mut own: Vec<Event> = Vec::new();
        // Their numbers; those between were refused, and never come.
        let mut numbers: Vec<u64> = Vec::new();
        let (mut early, mut returned) = (0, 0);
        let mut away = false;
        for _ in 0..300 {
            match random.u8(..) {
                0..100 => {
                    let channel = *random.choice(&["a.x", "b.y", "c"]).unwrap();
                    let event = bench.event(channel);
                    own.push(event);
                    let refused = u64::from(random.u8(..) < 30);
                    numbers.push(numbers.last().unwrap_or(&0) + 1 + refused);
                }
                100..150 => {
                    for _ in 0..random.usize(1..8) {
                        if returned < own.len() && !away {
                            let event = own[returned].clone();
                            bench.come_back(numbers[returned], &event);
                            returned += 1;
                        }
                    }
                }
                150..180 => bench.publish(&["a.x", "b.y"]),
                180..190 => away = !away,
                _ => {
                    let (_, client, found) = random.choice(&mut clients).unwrap();
                    drain_ids(client, found).await;
                }
            }
            if away {
                // All that has not come back is shown early, each once.
                early = early.max(returned);
                while early < own.len() {
                    let shown = Arc::new(Shown::early(own[early].clone()));
                    bench.source.hub.show_early(numbers[early], shown);
                    early += 1;
                }
            }
        }
        while returned < own.len() {
            let event = own[returned].clone();
            bench.come_back(numbers[returned], &event);
            returned += 1;
        }
        for (patterns, client, found) in &mut clients {
            drain_ids(client, found).await;
            let interest = Interest::new(patterns.iter().map(|text| Pattern::parse(text).unwrap()));
            let wanted = |event: &Event| interest.matches(&event.channel);
            let mut expected: Vec<_> = bench
                .shown
                .iter()
                .filter(|shown| wanted(&shown.event))
                .map(|shown| shown.event.id.as_str().to_owned())
                .collect();
            let own_in_order: Vec<_> =
                own.iter().filter(|event| wanted(event)).map(|event| event.id.as_str().to_owned()).collect();
            let got_own: Vec<_> = found.iter().filter(|id| own_in_order.contains(id)).cloned().collect();
            assert_eq!(got_own, own_in_order, "seed {seed} {patterns:?}");
            let mut got = found.clone();
            got.sort_unstable();
            expected.sort_unstable();
            assert_eq!(got, expected, "seed {seed} {patterns:?}");
        }
    }
}

mod hopping;
mod sharded;
