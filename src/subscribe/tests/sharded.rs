//! Clients that go from node to node on a bus of several shards, which each node reads in another order.

use super::hopping::{event, subscription};
use super::*;
use crate::event::{Epoch, Marks, shard_of};
use crate::log::Numbering;
use crate::subscribe::opening::decide;

const SHARDS: usize = 3;
const BUS: [(Epoch, Position); SHARDS] =
    [(Epoch(7), Position::ZERO), (Epoch(8), Position::ZERO), (Epoch(9), Position::ZERO)];
const CHANNELS: [&str; 6] = ["a.x", "a.y", "b.x", "b.y", "c", "d.e.f"];

struct Node {
    source: Arc<Source>,
    /// How far each shard has been read.
    marks: [u64; SHARDS],
    next: Position,
    _directory: tempfile::TempDir,
}

impl Node {
    fn new(random: &mut fastrand::Rng) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options =
            LogOptions { numbering: Numbering::Shards, ..LogOptions::new(directory.path().join("log")) };
        let log = Log::open(options).unwrap();
        log.begin_era(&BUS, false).unwrap();
        let next = log.next_position();
        let feed_bytes = *random.choice(&[1, 20_000, 10_000_000]).unwrap();
        let limits = RingLimits { feed_bytes, total_bytes: 4 * feed_bytes, age: Duration::from_secs(60) };
        let hub = Hub::new(log.head(), limits);
        hub.begin_run(OWN, SHARDS);
        let source = Arc::new(Source { hub, log, order: Order::default() });
        Self { source, marks: [0; SHARDS], next, _directory: directory }
    }

    /// Reads up to `most` events of any shards.
    fn read(&mut self, bus: &[Vec<Event>; SHARDS], most: usize, random: &mut fastrand::Rng) {
        let mut group = Vec::new();
        for _ in 0..most {
            let mut waiting: Vec<_> =
                (0..SHARDS).filter(|shard| (self.marks[*shard] as usize) < bus[*shard].len()).collect();
            random.shuffle(&mut waiting);
            let Some(shard) = waiting.pop() else { break };
            let event = bus[shard][self.marks[shard] as usize].clone();
            self.marks[shard] += 1;
            let marks = Marks::new(self.marks.map(Position));
            let way = Some(Box::new(Way { sender: None, marks }));
            group.push(Arc::new(Event { position: self.next, way, ..event }));
            self.next = self.next.next();
        }
        if !group.is_empty() {
            self.source.log.append(&group).unwrap();
            self.source.hub.show(&self.source.shown(group), Instant::now());
        }
    }
}

struct Client {
    patterns: &'static [&'static str],
    subscription: Subscription,
    cursor: Cursor,
    found: Vec<Arc<Shown>>,
}

impl Client {
    fn connect(&mut self, node: &Node) {
        let request = Request {
            interest: Interest::new(self.patterns.iter().map(|text| Pattern::parse(text).unwrap())),
            cursor: Some(self.cursor.clone()),
            ..Request::default()
        };
        let opening = decide(&node.source, &request, node.source.hub.head(), false);
        assert_eq!(opening.resume, crate::codec::Resume::Ok);
        self.cursor = opening.cursor(&node.source);
        self.subscription = subscription(&node.source, self.patterns);
        self.subscription.begin(&opening);
    }

    async fn drain(&mut self, most: usize) {
        let end = self.found.len().saturating_add(most);
        while self.found.len() < end {
            let next = poll_fn(|context| match self.subscription.poll_next(context) {
                Poll::Ready(next) => Poll::Ready(Some(next)),
                Poll::Pending if self.subscription.is_reading_log() => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
            })
            .await;
            let events: Vec<_> = match next {
                None => {
                    // As with a heartbeat.
                    let at = self.subscription.settle();
                    self.cursor = self.subscription.cursor_at(at);
                    return;
                }
                Some(Next::Batches(batches)) => {
                    batches.iter().flat_map(|batch| batch.events()).cloned().collect()
                }
                Some(Next::Events(events) | Next::Replayed(events)) => events,
                Some(_) => panic!("nothing is early or lost here"),
            };
            // The socket takes no more, and the client goes elsewhere.
            self.found.extend(events.into_iter().take(end - self.found.len()));
            let told = self.found.last().and_then(|last| last.cursor());
            self.cursor = Cursor::parse(told.unwrap()).unwrap();
        }
    }
}

#[tokio::test]
async fn whoever_hops_between_nodes_with_other_orders_gets_each_event_once() {
    for seed in 0..25 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut nodes: Vec<_> = (0..3).map(|_| Node::new(&mut random)).collect();
        let mut bus: [Vec<Event>; SHARDS] = Default::default();
        let mut clients: Vec<_> = [&["a.x"][..], &["a.*"], &["*.x", "c"], &[">"]]
            .into_iter()
            .map(|patterns| Client {
                patterns,
                subscription: subscription(&nodes[0].source, patterns),
                cursor: nodes[0].source.cursor(nodes[0].source.hub.head()),
                found: Vec::new(),
            })
            .collect();
        for client in &mut clients {
            client.connect(&nodes[0]);
        }
        for _ in 0..500 {
            let at = random.usize(0..nodes.len());
            match random.u8(..) {
                0..100 => {
                    let event = event(random.choice(CHANNELS).unwrap());
                    bus[shard_of(&event.channel, SHARDS)].push(event);
                }
                100..170 => {
                    let most = random.usize(1..9);
                    nodes[at].read(&bus, most, &mut random);
                }
                _ => {
                    let client = random.choice(&mut clients).unwrap();
                    client.drain(random.usize(1..12)).await;
                    client.connect(&nodes[at]);
                }
            }
        }
        for node in &mut nodes {
            node.read(&bus, usize::MAX, &mut random);
        }
        for client in &mut clients {
            client.drain(usize::MAX).await;
            let interest = Interest::new(client.patterns.iter().map(|text| Pattern::parse(text).unwrap()));
            for events in &bus {
                let wanted = events.iter().filter(|event| interest.matches(&event.channel));
                let expected: Vec<_> = wanted.map(|event| &event.id).collect();
                let found = client.found.iter().map(|shown| &shown.event.id);
                let found: Vec<_> = found.filter(|id| events.iter().any(|event| event.id == **id)).collect();
                assert_eq!(found, expected, "seed {seed} {:?}", client.patterns);
            }
            // Once nothing that it had can come any more, it is a client like all others.
            assert!(client.subscription.members.iter().all(|(_, member)| member.had.is_none()));
        }
    }
}
