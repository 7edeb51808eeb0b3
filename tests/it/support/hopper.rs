//! Clients that go from node to node, and what they must have got in the end.

use super::joined;
use super::publishers::PublishReport;
use super::sidecar::{TestSidecar, Whereabouts};
use super::subscription::{Delivery, Lost, Subscription, Transport};
use super::wait::PATIENCE;
use fastrand::Rng;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Clients that hop, one on each transport.
pub(crate) struct Hoppers {
    total: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Hoppers {
    /// They see what is published from now on to channels, which are a parameter of a subscription.
    pub(crate) async fn start(nodes: &[TestSidecar], channels: &'static str, seed: u64) -> Self {
        let begin = nodes[0].cursor_now().await;
        let total = Arc::new(AtomicU64::new(0));
        let tasks = Transport::ALL
            .into_iter()
            .zip(seed..)
            .map(|(transport, seed)| {
                let nodes = nodes.iter().map(TestSidecar::whereabouts).collect();
                let hopper = Hopper { seed, transport, nodes, channels, total: Arc::clone(&total) };
                tokio::spawn(hopper.run(begin.clone()))
            })
            .collect();
        Self { total, tasks }
    }

    /// Waits until each has got all that was published, and checks that it was this; gives the ids, as each has got
    /// them.
    pub(crate) async fn get_exactly(self, published: &PublishReport) -> Vec<Vec<String>> {
        self.total.store(published.total(), Ordering::Relaxed);
        let mut all = Vec::new();
        for (transport, task) in Transport::ALL.into_iter().zip(self.tasks) {
            let got = joined(task).await;
            check_ids(&format!("{transport:?}"), &got, published);
            all.push(got);
        }
        all
    }
}

/// A client that goes to another node at random.
struct Hopper {
    seed: u64,
    transport: Transport,
    nodes: Vec<Whereabouts>,
    channels: &'static str,
    /// How many events there will be; 0 while nobody knows.
    total: Arc<AtomicU64>,
}

impl Hopper {
    /// Gives the ids in the order in which it has got them.
    async fn run(self, mut cursor: String) -> Vec<String> {
        let mut random = Rng::with_seed(self.seed);
        let mut got: Vec<String> = Vec::new();
        let mut distinct = HashSet::new();
        let mut hops = 0;
        let mut deadline = Instant::now() + PATIENCE;
        let is_done = |count: usize| {
            let total = self.total.load(Ordering::Relaxed);
            total > 0 && count as u64 >= total
        };
        while !is_done(distinct.len()) {
            assert!(
                Instant::now() < deadline,
                "{:?} seed {}: nothing after {}",
                self.transport,
                self.seed,
                got.len()
            );
            let node = &self.nodes[random.usize(0..self.nodes.len())];
            let opened =
                Subscription::try_open(self.transport, &node.client(), self.channels, Some(&cursor)).await;
            let Ok(mut subscription) = opened else {
                // The node is down, or on its way up.
                sleep(Duration::from_millis(5)).await;
                continue;
            };
            hops += 1;
            let stay = random.u64(1..600);
            for _ in 0..stay {
                if is_done(distinct.len()) {
                    break;
                }
                // Where nothing comes for a moment, it goes on as well: the node may be down.
                let next = timeout(Duration::from_millis(300), subscription.try_next()).await;
                let Ok(Ok::<Delivery, Lost>(delivery)) = next else { break };
                let told = subscription.resume();
                assert_eq!(told, "ok", "{:?} seed {} after {}", self.transport, self.seed, got.len());
                let id = delivery.event["id"].as_str().expect("an id").to_owned();
                distinct.insert(id.clone());
                got.push(id);
                cursor = delivery.cursor;
                deadline = Instant::now() + PATIENCE;
            }
        }
        eprintln!("{:?} seed {}: {} events over {hops} hops", self.transport, self.seed, got.len());
        assert!(hops > 3, "it hopped");
        got
    }
}

/// Checks what a client has got: of each channel of a publisher all numbers below the count, in order, and each
/// once. Those that were published again, as a node was killed before it answered, may come twice.
fn check_ids(who: &str, got: &[String], published: &PublishReport) {
    let mut next: HashMap<&str, u64> = HashMap::new();
    let mut seen = HashSet::new();
    for (at, id) in got.iter().enumerate() {
        if !seen.insert(id) {
            assert!(published.again.contains(id), "{who}: {id} came twice, the second time as number {at}");
            continue;
        }
        let (channel, number) = id.rsplit_once('-').expect("an id is its channel and a number");
        let next = next.entry(channel).or_default();
        assert_eq!(number, next.to_string(), "{who}: {id} is not the next of its channel");
        *next += 1;
    }
    for (channel, count) in &published.channels {
        assert_eq!(next.get(&**channel).copied().unwrap_or_default(), *count, "{who}: how many of {channel}");
    }
}
