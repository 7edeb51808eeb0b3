//! The bounds, and what happens at them.

use super::*;

#[test]
fn it_is_full_by_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 100_000, ..LIMITS };
    let outbox = Outbox::open(&dir.path().join("outbox"), limits, &Keyring::none()).unwrap();
    let taken =
        (1..).take_while(|&sequence| outbox.append(&[entry(sequence, 1_000)]).is_ok()).last().unwrap();
    assert!((70..100).contains(&taken), "{taken}");
    assert!(matches!(outbox.append(&[entry(taken + 1, 1_000)]), Err(AppendError::Full)));
    assert!(outbox.status().bytes <= limits.max_bytes);
    // Nothing that was accepted makes room for it, and nothing of a group goes in.
    assert!(matches!(outbox.append(&vec![entry(taken + 1, 10); 500]), Err(AppendError::Full)));
    let all = read_all(&outbox);
    assert_eq!(all.len() as u64, taken);
    outbox.settle(all[50].0);
    outbox.append(&[entry(taken + 1, 1_000)]).unwrap();
    assert_eq!(sequences(&outbox), (52..=taken + 1).collect::<Vec<_>>());
}

#[test]
fn one_group_that_fills_it_leaves_room_once_it_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 100_000, ..LIMITS };
    let outbox = Outbox::open(&dir.path().join("outbox"), limits, &Keyring::none()).unwrap();
    for round in 0..3 {
        outbox.append(&[entry(round, 90_000)]).unwrap();
        outbox.settle(read_all(&outbox)[0].0);
    }
    assert!(outbox.is_empty());
}

#[test]
fn it_is_full_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let aged = |sequence, age_ms| {
        let mut made = entry(sequence, 10);
        let mut event = Event::clone(&made.event);
        event.time -= age_ms;
        made.event = Arc::new(event);
        made
    };
    let outbox = open(dir.path());
    outbox.append(&[aged(1, 3_700_000), aged(2, 1_000)]).unwrap();
    assert!(matches!(outbox.append(&entries([3])), Err(AppendError::Full)));
    drop(outbox);
    let outbox = open(dir.path());
    assert!(matches!(outbox.append(&entries([3])), Err(AppendError::Full)));
    outbox.settle(read_all(&outbox)[0].0);
    outbox.append(&entries([3])).unwrap();
    assert_eq!(sequences(&outbox), [2, 3]);
}
