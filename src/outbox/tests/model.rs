//! Random histories of an outbox against a plain queue.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

#[derive(Clone, Debug)]
enum Step {
    Append { events: usize, payload_bytes: usize },
    FailedAppend { events: usize },
    Settle { events: usize },
    Reject { at: usize },
    Reopen { cleanly: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1usize..90, 0usize..3_000).prop_map(|(events, payload_bytes)| Step::Append { events, payload_bytes }),
        1 => (1usize..5).prop_map(|events| Step::FailedAppend { events }),
        4 => (0usize..150).prop_map(|events| Step::Settle { events }),
        1 => (0usize..100).prop_map(|at| Step::Reject { at }),
        2 => any::<bool>().prop_map(|cleanly| Step::Reopen { cleanly }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_agree_with_a_queue(
        steps in prop::collection::vec(step(), 1..40),
        encrypted: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { max_bytes: 1 << 20, ..LIMITS };
        let keyring = &keyrings()[usize::from(encrypted)];
        let reopen = || Outbox::open(&dir.path().join("outbox"), limits, keyring).unwrap();
        let mut outbox = reopen();
        let mut model: VecDeque<Entry> = VecDeque::new();
        let mut next = 1;
        for step in steps {
            match step {
                Step::Append { events, payload_bytes } => {
                    let group: Vec<_> = (next..).take(events).map(|n| entry(n, payload_bytes)).collect();
                    next += events as u64;
                    match outbox.append(&group) {
                        Ok(()) => model.extend(group),
                        Err(AppendError::Full) => prop_assert!(outbox.status().bytes + 300 * events as u64 + (events * payload_bytes) as u64 + 1_000 > limits.max_bytes * 9 / 10),
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                }
                Step::FailedAppend { events } => {
                    lock(&outbox.0.writer).fail_next_sync = true;
                    prop_assert!(outbox.append(&entries((next..).take(events))).is_err());
                    lock(&outbox.0.writer).fail_next_sync = false;
                    next += events as u64;
                }
                Step::Settle { events } => {
                    if let Some((number, _)) = read_all(&outbox).iter().take(events).next_back() {
                        outbox.settle(*number);
                        model.drain(..events.min(model.len()));
                    }
                }
                Step::Reject { at } => {
                    // Only the oldest stays rejected after a restart: settle what is before it.
                    if let Some((number, _)) = read_all(&outbox).get(at) {
                        outbox.reject(*number, "unfit").unwrap();
                        outbox.settle(*number);
                        model.drain(..=at);
                    }
                }
                Step::Reopen { cleanly } => {
                    if cleanly {
                        outbox.close();
                    }
                    drop(outbox);
                    outbox = reopen();
                }
            }
            let read = read_all(&outbox);
            prop_assert!(read.is_sorted_by(|(one, _), (next, _)| one < next));
            prop_assert!(read.iter().map(|(_, entry)| entry).eq(&model));
            let status = outbox.status();
            prop_assert_eq!(status.events, model.len() as u64);
            prop_assert_eq!(status.oldest_ms, model.front().map(|entry| entry.event.time));
            let on_disk: u64 = segments(dir.path()).iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
            prop_assert_eq!(status.bytes, on_disk);
        }
    }
}
