//! Appending, packing, reading, and what a restart finds.

use super::super::testing::*;
use super::super::*;
use crate::event::EventName;
use std::time::Duration;

/// Fills a log until several journals are packed; returns what was appended.
pub(super) fn fill(log: &Log, events: u64) -> Vec<Arc<Event>> {
    let mut all = Vec::new();
    for n in 0..events {
        let position = log.next_position().0 + n % 50;
        all.push(
            event(position)
                .channel(&format!("user.{}.{}", n % 300, if n % 7 == 0 { "x" } else { "y" }))
                .name(if n % 10 == 0 { "rare" } else { "common" })
                .tag("ten", &(n % 10).to_string())
                .json(&format!("{{\"n\":{n},\"text\":\"{}\"}}", "abc".repeat(n as usize % 90)))
                .shared(),
        );
        if n % 50 == 49 {
            append(log, &all[all.len() - 50..]);
        }
    }
    append(log, &all[all.len() - all.len() % 50..]);
    all
}

/// Appends, and waits while the log is behind.
pub(super) fn append(log: &Log, group: &[Arc<Event>]) {
    wait_for("room in the log", || match log.append(group) {
        Ok(()) => true,
        Err(AppendError::Behind) => false,
        Err(error) => panic!("{error}"),
    });
}

pub(super) fn small(dir: &Path) -> LogOptions {
    LogOptions { max_bytes: 64 << 20, ..options(dir) }
}

pub(super) fn packed(log: &Log) {
    wait_for("packing", || log.stats().folds_waiting == 0);
}

#[test]
fn what_is_appended_is_read_and_survives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let first = log.next_position().0;
    let events: Vec<_> = [0, 1, 6143, 6144, 6145, 1 << 20, 0]
        .iter()
        .enumerate()
        .map(|(n, &size)| {
            let event = event(first + n as u64).channel(&format!("a.{n}")).tag("k", "v").exclude("me");
            if n % 2 == 0 {
                event.bytes(vec![n as u8; size])
            } else {
                event.json(&format!("\"{}\"", "j".repeat(size)))
            }
            .shared()
        })
        .collect();
    log.append(&events[..3]).unwrap();
    log.append(&events[3..]).unwrap();
    assert_eq!(read_all(&log, &[">"]), events);
    assert_eq!(read_all(&log, &["a.3"]), events[3..4]);
    let (epoch, head) = (log.epoch(), log.head());
    drop(log);
    // The journal is packed after the restart.
    for _ in 0..2 {
        let log = open(dir.path());
        wait_for("packing", || log.stats().journals == 0);
        assert_eq!((log.epoch(), log.head()), (epoch, head));
        assert_eq!(read_all(&log, &["a.*"]), events);
        assert_eq!(log.find(events[5].position).unwrap().as_ref(), Some(&events[5]));
        assert!(log.next_position() > Position(head.0 + 1000));
    }
    let log = open(dir.path());
    let later = event(log.next_position().0).shared();
    log.append(std::slice::from_ref(&later)).unwrap();
    log.close();
    assert!(log.append(&[event(later.position.0 + 1).shared()]).is_err());
    drop(log);
    let log = open(dir.path());
    assert_eq!(log.head(), later.position);
    assert!(log.next_position() > Position(later.position.0 + 1000), "a clean start leaves a gap too");
    let report = Log::verify(&dir.path().join("log"), &Keyring::none());
    assert!(matches!(report, Err(OpenError::Locked(_))));
    drop(log);
    let report = Log::verify(&dir.path().join("log"), &Keyring::none()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.packed_events + report.journal_events, 8);
    let mut exported = 0;
    let count = Log::export(&dir.path().join("log"), &Keyring::none(), &mut |_, _| {
        exported += 1;
        Ok(())
    });
    assert_eq!((count.unwrap(), exported), (8, 8));
}

#[test]
fn packed_events_are_found_by_everything() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(small(dir.path())).unwrap();
    let all = fill(&log, 60_000);
    packed(&log);
    assert!(log.stats().generations >= 1 && log.stats().events == 60_000, "{:?}", log.stats());
    assert_eq!(read_all(&log, &[">"]), all);
    let fits = |patterns: &[&str]| {
        let interest = interest(patterns);
        all.iter().filter(|event| interest.matches(&event.channel)).cloned().collect::<Vec<_>>()
    };
    for patterns in [
        &["user.42.x"][..],
        &["user.7.>"],
        &["*.*.x"],
        &["user.1.y", "user.2.*"],
        &["none"],
        &["user.2.>", "*.3.*"],
    ] {
        assert_eq!(read_all(&log, patterns), fits(patterns), "{patterns:?}");
        let mut newest = fits(patterns);
        newest.drain(..newest.len().saturating_sub(70));
        assert_eq!(log.newest(&interest(patterns), &Filter::default(), 70).unwrap(), newest);
    }
    let name = Filter { events: vec![EventName::parse("rare").unwrap()], tags: Vec::new() };
    let tag = Filter { events: Vec::new(), tags: vec![("ten".into(), "3".into())] };
    for filter in [name, tag] {
        for patterns in [&[][..], &["user.42.x"], &["user.1.>"]] {
            for order in [Order::Ascending, Order::Descending] {
                let mut expected: Vec<_> = if patterns.is_empty() { all.clone() } else { fits(patterns) };
                expected.retain(|event| filter.passes(event));
                if order == Order::Descending {
                    expected.reverse();
                }
                let mut query = Query {
                    interest: interest(patterns),
                    filter: filter.clone(),
                    limit: 700,
                    order,
                    ..Query::default()
                };
                let mut found = Vec::new();
                loop {
                    let page = log.query(&query).unwrap();
                    found.extend(page.events);
                    match order {
                        Order::Ascending => query.after = page.reached,
                        Order::Descending => query.before = Some(page.reached),
                    }
                    if !page.more {
                        break;
                    }
                }
                assert_eq!(found, expected);
            }
        }
    }
    let page = log.query(&Query { offset: 1000, limit: 5, ..Query::default() }).unwrap();
    assert_eq!(page.events, all[1000..1005]);
    assert!(page.more);
    let last = all.iter().rev().find(|event| event.channel.as_str() == "user.42.x").cloned();
    assert_eq!(log.last(&Channel::parse("user.42.x").unwrap()).unwrap(), last);
    let each = log
        .last_of_each(&interest(&["user.4*.>".replace('*', "2").as_str()]), &Filter::default(), 10)
        .unwrap();
    assert_eq!(each.len(), 2);
    let resume = |position| log.resume(&interest(&["user.>"]), &Cursor::at(log.epoch(), position));
    assert_eq!(resume(all[5].position), Resume { status: ResumeStatus::Ok, start: all[5].position });
    assert_eq!(resume(Position(log.head().0 + 1)).status, ResumeStatus::Reset);
    let other = Cursor::at(Epoch(log.epoch().0 ^ 1), all[5].position);
    assert_eq!(log.resume(&interest(&["a"]), &other).status, ResumeStatus::Reset);
}

#[test]
fn cursors_from_before_a_crash_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let first = event(log.next_position().0).shared();
    log.append(std::slice::from_ref(&first)).unwrap();
    drop(log);
    let log = open(dir.path());
    let resume = |position| log.resume(&interest(&[">"]), &Cursor::at(log.epoch(), position));
    // Shown before the power went, and gone: never the start of something else.
    let shown = Position(first.position.0 + 3);
    assert_eq!(resume(shown).status, ResumeStatus::Expired);
    assert_eq!(resume(first.position).status, ResumeStatus::Ok);
    log.append(&[event(log.next_position().0).shared()]).unwrap();
    assert_eq!(resume(shown).status, ResumeStatus::Expired);
    assert_eq!(resume(first.position).status, ResumeStatus::Ok);
    assert_eq!(resume(log.head()).status, ResumeStatus::Ok);
    log.close();
    drop(log);
    let log = open(dir.path());
    wait_for("packing", || log.stats().journals == 0);
    drop(log);
    let log = open(dir.path());
    assert_eq!(log.resume(&interest(&[">"]), &Cursor::at(log.epoch(), shown)).status, ResumeStatus::Expired);
}

#[test]
fn given_ids_are_known_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let id = |n: usize| EventId::parse(&format!("order-{n}")).unwrap();
    let group: Vec<_> =
        (0..10).map(|n| event(log.next_position().0 + n).id(id(n as usize).as_str()).shared()).collect();
    log.append(&group).unwrap();
    let live = event(log.next_position().0).id("live").live().shared();
    log.append(std::slice::from_ref(&live)).unwrap();
    assert_eq!(log.head(), live.position);
    assert_eq!(log.known_id(&live.id), Some(live.position));
    for _ in 0..3 {
        let log = log.clone();
        assert_eq!(log.known_id(&id(3)), Some(group[3].position));
    }
    drop(log);
    for _ in 0..2 {
        let log = open(dir.path());
        assert_eq!(log.known_id(&id(3)), Some(group[3].position));
        assert_eq!(log.known_id(&id(10)), None);
        wait_for("packing", || log.stats().journals == 0);
    }
}

#[test]
fn readers_writers_and_the_keeper_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(LogOptions { max_bytes: 16 << 20, ..options(dir.path()) }).unwrap();
    let reader = {
        let log = log.clone();
        std::thread::spawn(move || {
            let (mut at, mut seen) = (Position::ZERO, 0u64);
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while seen < 40_000 && std::time::Instant::now() < deadline {
                let budget = Budget { events: 100, bytes: 1 << 20 };
                let page = log
                    .read_after(&interest(&["user.>"]), &Filter::default(), at, log.head(), budget)
                    .unwrap();
                assert!(!page.lost);
                for event in page.events {
                    assert!(event.position > at && event.position <= log.head());
                    let n = format!("{{\"n\":{seen},");
                    assert!(
                        matches!(&event.data, crate::event::Data::Json(json) if json.as_str().starts_with(&n))
                    );
                    at = event.position;
                    seen += 1;
                }
                at = at.max(page.reached);
            }
            seen
        })
    };
    fill(&log, 40_000);
    log.sync().unwrap();
    assert_eq!(reader.join().unwrap(), 40_000);
}

#[test]
fn after_a_failed_sync_the_end_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut all = Vec::new();
    let mut more = |log: &Log| {
        let group: Vec<_> = (0..10).map(|n| event(log.next_position().0 + n).shared()).collect();
        log.append(&group).unwrap();
        all.extend(group);
        all.clone()
    };
    more(&log);
    assert_eq!(log.sync().unwrap(), log.head());
    more(&log);
    let journal = lock(&log.0.shared.writer).active.clone().unwrap().journal;
    journal.break_it();
    let expected = more(&log);
    // The first group after the failure went into another journal already, or goes there now.
    assert_eq!(log.sync().unwrap(), log.head());
    assert_eq!(read_all(&log, &[">"]), expected);
    // What the broken file holds beyond its last good sync may be gone.
    let bytes = std::fs::read(journal.path()).unwrap();
    std::fs::write(journal.path(), &bytes[..bytes.len() - 30]).unwrap();
    drop(log);
    let log = open(dir.path());
    assert_eq!(read_all(&log, &[">"]), expected);
    let resume = log.resume(&interest(&[">"]), &Cursor::at(log.epoch(), expected[0].position));
    assert_eq!(resume.status, ResumeStatus::Ok);
    wait_for("packing", || log.stats().journals == 0);
    assert_eq!(read_all(&log, &[">"]), expected);
}

#[test]
fn times_select_in_both_orders() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let start = now() - 100_000;
    let first = log.next_position().0;
    // Times need not grow with positions.
    let all: Vec<_> = (0..5000)
        .map(|n| event(first + n).time(start + n * 10 + (n * 7919 % 500)).bytes(vec![1; 200]).shared())
        .collect();
    append(&log, &all);
    drop(log);
    for is_packed in [false, true] {
        let log = open(dir.path());
        if is_packed {
            wait_for("packing", || log.stats().journals == 0);
        }
        for (since, until) in [
            (None, Some(start + 9000)),
            (Some(start + 31_000), None),
            (Some(start + 700), Some(start + 1900)),
        ] {
            let mut expected: Vec<_> = all
                .iter()
                .filter(|event| {
                    since.is_none_or(|since| event.time >= since)
                        && until.is_none_or(|until| event.time < until)
                })
                .cloned()
                .collect();
            let query = Query { since, until, limit: 5000, ..Query::default() };
            assert_eq!(log.query(&query).unwrap().events, expected);
            expected.reverse();
            let query = Query { order: Order::Descending, ..query };
            assert_eq!(log.query(&query).unwrap().events, expected);
        }
    }
}

#[test]
fn a_page_of_large_events_is_cut_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(small(dir.path())).unwrap();
    let mut all = Vec::new();
    for n in 0..40 {
        let size = if n == 20 { 17 << 20 } else { 1 << 20 };
        let large = event(log.next_position().0).bytes(vec![n; size]).shared();
        append(&log, std::slice::from_ref(&large));
        all.push(large.position);
    }
    for order in [Order::Ascending, Order::Descending] {
        let mut query = Query { limit: 1000, order, ..Query::default() };
        let (mut found, mut pages) = (Vec::new(), 0);
        loop {
            let page = log.query(&query).unwrap();
            let bytes: usize = page.events.iter().map(|event| event.data.len()).sum();
            assert!(bytes <= 16 << 20 || page.events.len() == 1, "{bytes}");
            found.extend(page.events.iter().map(|event| event.position));
            pages += 1;
            match order {
                Order::Ascending => query.after = page.reached,
                Order::Descending => query.before = Some(page.reached),
            }
            if !page.more {
                break;
            }
        }
        assert!(pages >= 4);
        if order == Order::Descending {
            found.reverse();
        }
        assert_eq!(found, all);
    }
}

#[test]
fn a_large_journal_that_is_left_alone_is_packed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let first = log.next_position().0;
    let events = |from: u64, to: u64| -> Vec<_> { (from..to).map(|n| event(first + n).shared()).collect() };
    append(&log, &events(0, 1));
    append(&log, &events(1, 30_000));
    let stats = log.stats();
    assert_eq!((stats.journals, stats.folds_waiting), (1, 0), "it has room for more: {stats:?}");
    wait_for("packing", || log.stats().journals == 0);
    // A small one stays: it costs little, and many small parts would cost more.
    append(&log, &events(30_000, 30_001));
    assert_eq!(log.stats().journals, 1);
    assert_eq!(read_all(&log, &[">"]).len(), 30_001);
}
