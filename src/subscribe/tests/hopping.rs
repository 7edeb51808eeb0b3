//! Clients that go from node to node, while nodes lose the bus, show events early, and are killed.

use super::*;
use crate::event::{Epoch, Place};
use crate::log::Numbering;
use crate::subscribe::opening::decide;
use std::collections::{HashSet, VecDeque};

const BUS: Epoch = Epoch(9);

/// What is on the bus, in its order.
type OnBus = Vec<Event>;

struct Node {
    source: Arc<Source>,
    origin: Origin,
    next_number: u64,
    /// So many events of the bus have been read.
    read: usize,
    away: bool,
    by_disk: bool,
    early_after: Option<u64>,
    /// The newest number that has come back.
    returned: u64,
    /// Up to this number its publishers were answered, and its clients got it, before the bus had it.
    early_up_to: u64,
    outbox: VecDeque<Event>,
    _directory: tempfile::TempDir,
}

fn hub(log: &Log, random: &mut fastrand::Rng, origin: Origin) -> Arc<Hub> {
    let feed_bytes = *random.choice(&[1, 20_000, 10_000_000]).unwrap();
    let limits = RingLimits { feed_bytes, total_bytes: 4 * feed_bytes, age: Duration::from_secs(60) };
    let hub = Hub::new(log.head(), limits);
    hub.begin_run(origin, 1);
    hub
}

impl Node {
    fn new(random: &mut fastrand::Rng) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options =
            LogOptions { numbering: Numbering::Bus, ..LogOptions::new(directory.path().join("log")) };
        let log = Log::open(options).unwrap();
        log.begin_era(&[(BUS, Position::ZERO)], false).unwrap();
        let origin = Origin(random.u64(..));
        let hub = hub(&log, random, origin);
        Self {
            source: Arc::new(Source { hub, log, order: Order::default() }),
            origin,
            next_number: 1,
            read: 0,
            away: false,
            by_disk: false,
            early_after: None,
            returned: 0,
            early_up_to: 0,
            outbox: VecDeque::new(),
            _directory: directory,
        }
    }

    fn publish(&mut self, mut event: Event, bus: &mut OnBus, random: &mut fastrand::Rng) {
        // Some numbers are of events that were refused.
        self.next_number += u64::from(random.u8(..) < 30);
        let sender = Some(Sender { origin: self.origin, number: self.next_number });
        self.next_number += 1;
        event.way = Some(Box::new(Way { sender, marks: None }));
        if self.by_disk {
            self.show_early(&event);
            self.outbox.push_back(event);
        } else {
            bus.push(event);
        }
    }

    fn show_early(&mut self, event: &Event) {
        let number = event.sender().unwrap().number;
        self.early_up_to = number;
        if self.early_after.is_some_and(|after| self.returned < after) {
            self.early_after = Some(number);
            return;
        }
        self.early_after = None;
        if self.source.log.known_id(&event.id).is_none() {
            let shown = Arc::new(Shown::early(event.clone()));
            self.source.hub.show_early(number, shown);
        }
    }

    /// What has not come back is shown early, although it is on the bus.
    fn go_by_disk(&mut self, bus: &OnBus) {
        if !std::mem::replace(&mut self.by_disk, true) {
            for event in &bus[self.read..] {
                if event.sender().unwrap().origin == self.origin {
                    self.show_early(event);
                }
            }
        }
    }

    fn drain(&mut self, most: usize, bus: &mut OnBus) {
        bus.extend(self.outbox.drain(..most.min(self.outbox.len())));
        if self.outbox.is_empty() {
            self.by_disk = false;
        }
    }

    fn read(&mut self, most: usize, bus: &OnBus) {
        let end = bus.len().min(self.read.saturating_add(most));
        let Source { log, hub, .. } = &*self.source;
        let mut group: Vec<Arc<Event>> = Vec::new();
        for (at, sent) in bus.iter().enumerate().take(end).skip(self.read) {
            let position = log.at_bus(Position(at as u64 + 1));
            let event = Arc::new(Event { position, ..sent.clone() });
            if log.known_id(&event.id).is_none() && group.iter().all(|other| other.id != event.id) {
                group.push(event);
                if at + 1 < end {
                    continue;
                }
            }
            if !group.is_empty() {
                log.append(&group).unwrap();
                hub.show(&self.source.shown(std::mem::take(&mut group)), Instant::now());
            }
            let first = log.known_id(&sent.id).unwrap();
            if first != position {
                hub.note_dropped(sent, first);
            }
        }
        let own = bus[self.read..end].iter().filter_map(Event::sender);
        let own = own.filter(|sender| sender.origin == self.origin).map(|sender| sender.number);
        self.returned = self.returned.max(own.max().unwrap_or(0));
        self.read = end;
    }

    /// It begins a new run; what its log and its outbox have is there. What its publishers have no answer to is
    /// given back: they publish it again.
    fn kill(&mut self, bus: &OnBus, random: &mut fastrand::Rng) -> Vec<Event> {
        // A node that is killed between the confirmation of the bus and the return of the event, and begins again
        // without the bus, does not know that something is to come before what it shows early.
        let is_own = |event: &Event| event.sender().unwrap().origin == self.origin;
        let answered = |event: &Event| event.sender().unwrap().number <= self.early_up_to;
        let last = bus[self.read..].iter().rposition(|event| is_own(event) && answered(event));
        self.read(last.map_or(0, |last| last + 1), bus);
        let unanswered = bus[self.read..].iter().filter(|event| {
            let sender = event.sender().unwrap();
            sender.origin == self.origin && sender.number > self.early_up_to
        });
        let unanswered = unanswered.cloned().collect();
        self.early_up_to = 0;
        self.origin = Origin(random.u64(..));
        self.next_number = 1;
        let log = self.source.log.clone();
        let hub = hub(&log, random, self.origin);
        for event in &bus[..self.read] {
            hub.note_in_log(event.sender().unwrap(), 0);
        }
        self.source = Arc::new(Source { hub, log, order: Order::default() });
        (self.returned, self.early_after) = (0, (!self.outbox.is_empty()).then_some(1));
        self.by_disk = !self.outbox.is_empty() || self.away;
        unanswered
    }
}

struct Client {
    patterns: &'static [&'static str],
    at: usize,
    subscription: Subscription,
    /// The last that it was told.
    cursor: String,
    found: Vec<String>,
}

impl Client {
    fn connect(&mut self, at: usize, node: &Node) {
        let request = Request {
            interest: Interest::new(self.patterns.iter().map(|text| Pattern::parse(text).unwrap())),
            cursor: Some(Cursor::parse(&self.cursor).unwrap()),
            ..Request::default()
        };
        let opening = decide(&node.source, &request, node.source.hub.head(), false);
        assert_eq!(opening.resume, crate::codec::Resume::Ok);
        self.cursor = opening.cursor(&node.source).encode().to_string();
        self.at = at;
        self.subscription = subscription(&node.source, self.patterns);
        self.subscription.begin(&opening);
    }

    /// Takes what is there, or some of it.
    async fn drain(&mut self, random: &mut fastrand::Rng, all: bool) {
        loop {
            let before = self.subscription.position();
            let next = poll_fn(|context| match self.subscription.poll_next(context) {
                Poll::Ready(next) => Poll::Ready(Some(next)),
                Poll::Pending if self.subscription.is_reading_log() => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
            })
            .await;
            let Some(next) = next else { break };
            let (numbers, events): (Vec<u64>, Vec<Arc<Shown>>) = match next {
                Next::Batches(batches) => {
                    let events = batches.iter().flat_map(|batch| batch.events());
                    events.map(|shown| (shown.event.position.0, shown.clone())).unzip()
                }
                Next::Events(events) | Next::Replayed(events) => {
                    events.into_iter().map(|shown| (shown.event.position.0, shown)).unzip()
                }
                Next::Early(events) => events.into_iter().unzip(),
                Next::Lost | Next::Failed => panic!("nothing is lost here"),
            };
            let is_early = events.first().is_some_and(|shown| shown.event.position == Position::ZERO);
            let kept = if all || random.bool() { events.len() } else { random.usize(0..=events.len()) };
            for shown in &events[..kept] {
                self.found.push(shown.event.id.as_str().to_owned());
                self.cursor = shown.cursor().unwrap().to_owned();
            }
            if kept < events.len() {
                match kept.checked_sub(1).map(|last| numbers[last]) {
                    Some(number) if is_early => self.subscription.rewind_early(number),
                    None if is_early => self.subscription.rewind_early(numbers[0] - 1),
                    Some(position) => self.subscription.rewind(Position(position)),
                    None => self.subscription.rewind(before),
                }
                return;
            }
        }
        if random.bool() {
            // As with a heartbeat.
            let at = self.subscription.settle();
            self.cursor = self.subscription.cursor_at(at).encode().to_string();
        }
    }
}

pub(super) fn subscription(source: &Arc<Source>, patterns: &[&str]) -> Subscription {
    let mut subscription = Subscription::new(source.clone(), None);
    for pattern in patterns {
        subscription.join(&Pattern::parse(pattern).unwrap(), None);
    }
    subscription
}

pub(super) fn event(channel: &str) -> Event {
    Event {
        position: Position::ZERO,
        id: EventId::fresh(),
        id_given: true,
        channel: Channel::parse(channel).unwrap(),
        name: EventName::default(),
        data: Data::Json(Json::null()),
        time: crate::publish::unix_ms(),
        tags: Tags::default(),
        expiry: Expiry::At(u64::MAX),
        exclude: None,
        from: None,
        way: None,
    }
}

/// Each event once, and those of each publisher in its order. What a publisher had to send again may come twice:
/// to a client that got it early and was on another node before the bus had both.
fn check(found: &[String], published: &[Vec<Event>], again: &HashSet<String>, patterns: &[&str], seed: u64) {
    let mut seen = HashSet::new();
    let found: Vec<_> = found.iter().filter(|id| seen.insert(*id) || !again.contains(*id)).cloned().collect();
    let interest = Interest::new(patterns.iter().map(|text| Pattern::parse(text).unwrap()));
    let mut total = 0;
    for (publisher, events) in published.iter().enumerate() {
        let expected: Vec<_> = events
            .iter()
            .filter(|event| interest.matches(&event.channel))
            .map(|event| event.id.as_str().to_owned())
            .collect();
        let got: Vec<_> = found.iter().filter(|id| expected.contains(id)).cloned().collect();
        assert_eq!(got, expected, "seed {seed} {patterns:?} publisher {publisher}");
        total += expected.len();
    }
    assert_eq!(found.len(), total, "seed {seed}");
}

#[tokio::test]
async fn whoever_hops_in_an_outage_gets_each_event_once() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bus = OnBus::new();
        let mut nodes: Vec<_> = (0..3).map(|_| Node::new(&mut random)).collect();
        let mut published: Vec<Vec<Event>> = vec![Vec::new(); nodes.len()];
        let mut again = HashSet::new();
        let mut clients: Vec<_> = [&["a.x"][..], &["a.*"], &["a.x", "b.>"], &[">"], &["c", "a.*", "a.x"]]
            .into_iter()
            .map(|patterns| {
                let at = random.usize(0..nodes.len());
                let subscription = subscription(&nodes[at].source, patterns);
                let cursor = subscription.cursor_at(subscription.position()).encode().to_string();
                Client { patterns, at, subscription, cursor, found: Vec::new() }
            })
            .collect();
        for _ in 0..40 {
            let at = random.usize(0..nodes.len());
            let node = &mut nodes[at];
            match random.u8(..) {
                0..90 => {
                    let event = event(random.choice(["a.x", "b.y", "c"]).unwrap());
                    published[at].push(event.clone());
                    node.publish(event, &mut bus, &mut random);
                }
                90..130 if !node.away => node.read(random.usize(1..8), &bus),
                130..150 if !node.away => node.drain(random.usize(1..8), &mut bus),
                150..158 => {
                    node.away = !node.away;
                    node.go_by_disk(&bus);
                }
                158..162 => node.go_by_disk(&bus),
                162..165 => {
                    for event in node.kill(&bus, &mut random) {
                        again.insert(event.id.as_str().to_owned());
                        node.publish(event, &mut bus, &mut random);
                    }
                    for client in clients.iter_mut().filter(|client| client.at == at) {
                        client.connect(at, &nodes[at]);
                    }
                }
                165..215 => {
                    let client = random.choice(&mut clients).unwrap();
                    client.drain(&mut random, false).await;
                }
                _ => {
                    let client = random.choice(&mut clients).unwrap();
                    client.connect(at, &nodes[at]);
                }
            }
        }
        for node in &mut nodes {
            node.drain(usize::MAX, &mut bus);
        }
        for node in &mut nodes {
            node.read(usize::MAX, &bus);
        }
        for client in &mut clients {
            client.drain(&mut random, true).await;
            check(&client.found, &published, &again, client.patterns, seed);
            let place = Cursor::parse(&client.cursor).unwrap().place;
            assert!(matches!(place, Place::At(_)));
        }
    }
}
