//! Each event once and in order, on every transport, whatever breaks. A gap or a repeat fails at once, with
//! the number at which it happened.

use crate::support::{
    Lost, NumberedLoad, OrderCheck, PATIENCE, Subscription, TestSidecar, Transport, Whereabouts, joined,
    number_from_environment, random_seed,
};
use fastrand::Rng;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// How many events a reader sees in each test; `SIDEWIRE_TEST_EXACT_EVENTS` for more.
fn events() -> u64 {
    number_from_environment("SIDEWIRE_TEST_EXACT_EVENTS", 20_000)
}

fn load(run: &str, channels: u64, total: u64) -> NumberedLoad {
    NumberedLoad {
        channels: (0..channels).map(|at| format!("{run}.{at}")).collect(),
        run: run.to_owned(),
        total,
        batch: 50,
        per_second: 8_000,
        padding: 100,
    }
}

/// How a reader behaves.
#[derive(Clone)]
struct Reader {
    transport: Transport,
    query: String,
    /// It hangs up at random, every so many events on average.
    patience_events: u64,
    total: u64,
    seed: u64,
}

impl Reader {
    /// Reads every event from `cursor` on, coming back after each loss. Gives how often it was lost by the
    /// node's doing, and how often by its own.
    async fn read(self, whereabouts: Whereabouts, mut cursor: String) -> (u64, u64) {
        let mut random = Rng::with_seed(self.seed);
        let mut order = OrderCheck::new(format!("{:?} seed {}", self.transport, self.seed));
        let (mut lost, mut left) = (0, 0);
        let mut deadline = Instant::now() + PATIENCE;
        while order.next() < self.total {
            assert!(Instant::now() < deadline, "{:?}: no event since {}", self.transport, order.next());
            let address = whereabouts.client();
            let opened = Subscription::try_open(self.transport, &address, &self.query, Some(&cursor)).await;
            let Ok(mut subscription) = opened else {
                // The node is on its way down or up: it is asked again, until the deadline above.
                sleep(Duration::from_millis(5)).await;
                continue;
            };
            let hang_up_after = random.u64(0..self.patience_events * 2);
            let mut seen = 0;
            let ended: Result<(), Lost> = loop {
                if order.next() == self.total {
                    break Ok(());
                }
                if seen == hang_up_after {
                    left += 1;
                    break Ok(());
                }
                match timeout(PATIENCE, subscription.try_next()).await {
                    Ok(Ok(delivery)) => {
                        assert_eq!(subscription.resume(), "ok", "{:?}", self.transport);
                        order.saw(delivery.number());
                        cursor = delivery.cursor;
                        seen += 1;
                        deadline = Instant::now() + PATIENCE;
                    }
                    Ok(Err(ended)) => break Err(ended),
                    Err(_) => panic!("{:?}: nothing after {}", self.transport, order.next()),
                }
            };
            if let Err(ended) = ended {
                lost += 1;
                let code = ended.code.unwrap_or(1001);
                assert!(code == 1001 || code == 1006, "a node that goes away says 1001: {ended:?}");
            }
        }
        (lost, left)
    }
}

/// A reader on each transport, from now on; gives what [`Reader::read`] does.
async fn readers(
    sidecar: &TestSidecar,
    patience_events: u64,
    seed: u64,
) -> Vec<(Transport, JoinHandle<(u64, u64)>)> {
    let begin = sidecar.cursor_now().await;
    let start = |(transport, seed)| {
        let query = "channel=exact.*".into();
        let reader = Reader { transport, query, patience_events, total: events(), seed };
        (transport, tokio::spawn(reader.read(sidecar.whereabouts(), begin.clone())))
    };
    Transport::ALL.into_iter().zip(seed..).map(start).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reconnects_at_random_sees_each_event_once_and_in_order() {
    let seed = random_seed("reconnects");
    let total = events();
    let sidecar = TestSidecar::start().await;
    let readers = readers(&sidecar, 400, seed).await;
    load("exact", 10, total).start(sidecar.whereabouts()).done().await;
    for (transport, reader) in readers {
        let (lost, left) = joined(reader).await;
        assert_eq!(lost, 0, "{transport:?}: the node cut nobody");
        assert!(left > 3, "{transport:?}: it hung up {left} times");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_across_restarts_of_the_node_clean_and_hard() {
    let seed = random_seed("restarts");
    let total = events();
    // A node that drains accepts publishes until it ends: a short drain leaves some for after the restart.
    let mut sidecar = TestSidecar::with_config("[client]\ndrain = \"200ms\"\n").await;
    let readers = readers(&sidecar, 2_000, seed).await;
    let load = load("exact", 10, total).start(sidecar.whereabouts());
    for restart in 1..=4 {
        load.reaches(total * restart / 5).await;
        if restart % 2 == 0 {
            sidecar.kill();
        } else {
            assert!(sidecar.terminate().await.success(), "a drain ends with 0");
        }
        sidecar.start_again().await;
    }
    load.done().await;
    for (transport, reader) in readers {
        let (lost, _) = joined(reader).await;
        assert!(lost > 0, "{transport:?}: it was connected when the node went");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_among_fast_ones_sees_everything_too() {
    let total = events();
    let sidecar = TestSidecar::start().await;
    let begin = sidecar.cursor_now().await;
    let address = sidecar.whereabouts().client();
    let readers: Vec<_> = Transport::ALL
        .into_iter()
        .map(|transport| {
            let (address, begin) = (address.clone(), begin.clone());
            tokio::spawn(async move {
                let query = "channel=slow.*";
                let mut subscription = Subscription::open(transport, &address, query, Some(&begin)).await;
                let mut order = OrderCheck::new(format!("slow {transport:?}"));
                while order.next() < total {
                    order.saw(subscription.next().await.number());
                    // Its pace: it falls far behind at first and reads at full speed at last.
                    if order.next() < total / 20 && order.next().is_multiple_of(10) {
                        sleep(Duration::from_millis(20)).await;
                    }
                }
            })
        })
        .collect();
    load("slow", 10, total).start(sidecar.whereabouts()).done().await;
    for reader in readers {
        joined(reader).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_a_few_of_many_channels_sees_just_those() {
    let total = events();
    let channels = 1_000;
    let sidecar = TestSidecar::start().await;
    let begin = sidecar.cursor_now().await;
    let wanted = [3, 250, 251, 777, 999];
    let query = format!("channel={}", wanted.map(|at| format!("many.{at}")).join(","));
    let readers: Vec<_> = Transport::ALL
        .into_iter()
        .map(|transport| {
            let (address, begin, query) = (sidecar.whereabouts().client(), begin.clone(), query.clone());
            tokio::spawn(async move {
                let mut subscription = Subscription::open(transport, &address, &query, Some(&begin)).await;
                for expected in (0..total).filter(|n| wanted.contains(&(n % channels))) {
                    assert_eq!(subscription.next().await.number(), expected, "{transport:?}");
                }
            })
        })
        .collect();
    load("many", channels, total).start(sidecar.whereabouts()).done().await;
    for reader in readers {
        joined(reader).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_and_live_join_without_gap_or_repeat_for_clients_that_come_at_any_moment() {
    let total = events() / 2;
    let sidecar = TestSidecar::start().await;
    let begin = sidecar.cursor_now().await;
    let load = load("join", 3, total).start(sidecar.whereabouts());
    let mut readers = Vec::new();
    for arrival in 0..20 {
        load.reaches(total * arrival / 20).await;
        let transport = Transport::ALL[arrival as usize % Transport::ALL.len()];
        let reader = Reader {
            transport,
            query: "channel=join.>".into(),
            patience_events: total * 2,
            total,
            seed: arrival,
        };
        readers.push(tokio::spawn(reader.read(sidecar.whereabouts(), begin.clone())));
    }
    load.done().await;
    for reader in readers {
        joined(reader).await;
    }
}
