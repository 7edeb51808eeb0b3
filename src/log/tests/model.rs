//! Random histories of a log against a plain list.

use super::super::testing::*;
use super::super::*;
use super::life::append;
use crate::event::{Event, Pattern};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

/// What the log ought to hold.
#[derive(Default)]
struct Model {
    events: Vec<Arc<Event>>,
}

impl Model {
    fn alive(&self) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        let now = now();
        self.events.iter().filter(move |event| !event.is_expired(now))
    }
}

#[test]
fn random_histories_agree_with_a_list() {
    for seed in 1..=4 {
        history(seed);
    }
}

fn history(seed: u64) {
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let keyring = if seed > 2 { Keyring::for_tests(&[1]) } else { Keyring::none() };
    let with =
        LogOptions { max_bytes: 64 << 20, compress: seed.is_multiple_of(2), keyring, ..options(dir.path()) };
    let mut log = Log::open(with.clone()).unwrap();
    let mut model = Model::default();
    let patterns = ["a.1", "a.*", "b.>", "*.2", ">", "a.3.x"];
    for step in 0..120 {
        match random.below(12) {
            0..=5 => {
                let first = log.next_position().0;
                let group: Vec<_> = (0..1 + random.below(40))
                    .map(|n| {
                        let channel = ["a.1", "a.2", "b.2", "b.2.y", "a.3.x", "c"][random.below(6) as usize];
                        let mut made = event(first + n * (1 + random.below(3)) + n * 3)
                            .channel(channel)
                            .name(["n", "m"][random.below(2) as usize])
                            .bytes(vec![n as u8; random.below(20_000) as usize]);
                        if random.below(10) == 0 {
                            made = made.expires(now() - 1 + random.below(2) * 3_600_000);
                        }
                        made.shared()
                    })
                    .collect();
                let mut group = group;
                group.sort_by_key(|event| event.position);
                group.dedup_by_key(|event| event.position);
                append(&log, &group);
                model.events.extend(group);
            }
            6 => {
                if random.below(2) == 0 {
                    log.close();
                }
                drop(log);
                log = Log::open(with.clone()).unwrap();
            }
            7 if step % 3 == 0 => {
                let pattern = patterns[random.below(6) as usize];
                let gone = interest(&[pattern]);
                let count = model.alive().filter(|event| gone.matches(&event.channel)).count() as u64;
                assert_eq!(log.delete(None, Some(&gone)).unwrap(), count, "seed {seed}, step {step}");
                model.events.retain(|event| !gone.matches(&event.channel));
            }
            8 => wait_for("packing", || log.stats().folds_waiting == 0),
            _ => {}
        }
        let pattern = patterns[random.below(6) as usize];
        let fits = Pattern::parse(pattern).unwrap();
        let expected: Vec<_> = model.alive().filter(|event| fits.matches(&event.channel)).cloned().collect();
        let same = |found: &[Arc<Event>], expected: &[Arc<Event>], what: &str| {
            let positions =
                |events: &[Arc<Event>]| events.iter().map(|event| event.position.0).collect::<Vec<_>>();
            assert_eq!(
                positions(found),
                positions(expected),
                "seed {seed}, step {step}: {what} of {pattern}"
            );
            assert!(found == expected, "seed {seed}, step {step}: {what} of {pattern}: contents");
        };
        same(&read_all(&log, &[pattern]), &expected, "replay");
        let tail = expected[expected.len().saturating_sub(7)..].to_vec();
        same(&log.newest(&interest(&[pattern]), &Filter::default(), 7).unwrap(), &tail, "newest");
        if let Some(some) = model.events.get(random.below(model.events.len().max(1) as u64) as usize) {
            let alive = !some.is_expired(now());
            assert_eq!(log.find(some.position).unwrap().is_some(), alive);
            let query = Query {
                interest: interest(&[pattern]),
                before: Some(some.position),
                order: Order::Descending,
                limit: 5,
                ..Query::default()
            };
            let mut before: Vec<_> =
                expected.iter().filter(|event| event.position < some.position).cloned().collect();
            before.reverse();
            before.truncate(5);
            same(&log.query(&query).unwrap().events, &before, "query before");
        }
    }
}
