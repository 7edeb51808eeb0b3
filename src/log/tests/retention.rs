//! Limits of time, size and number, deletion, and what readers are told of it.

use super::super::testing::*;
use super::super::*;
use super::life::{append, fill, packed, small};
use crate::event::{Event, Pattern};
use std::time::Duration;

fn budget() -> Budget {
    Budget { events: 10_000, bytes: 64 << 20 }
}

fn status(log: &Log, patterns: &[&str], position: Position) -> ResumeStatus {
    log.resume(&interest(patterns), &Cursor::at(log.epoch(), position)).status
}

/// Everything that is kept, read while nothing expires: a reader that is overtaken is told of a gap.
fn read_undisturbed(log: &Log) -> Vec<Arc<Event>> {
    loop {
        let oldest = log.stats().oldest;
        let events = read_all(log, &[">"]);
        if log.stats().oldest == oldest {
            return events;
        }
    }
}

#[test]
fn twenty_times_the_limit_stays_below_twice_the_limit() {
    for (limit, compressible) in [(8 << 20, false), (16 << 20, true)] {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(LogOptions { max_bytes: limit, ..options(dir.path()) }).unwrap();
        let (mut written, mut state, mut worst, mut group_number) = (0u64, 1u64, 0, 0);
        while written < 20 * limit {
            let first = log.next_position().0;
            let group: Vec<_> = (0..64)
                .map(|n| {
                    let bytes: Vec<u8> = (0..256)
                        .flat_map(|_| {
                            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                            if compressible { [b'a'; 8] } else { (state ^ (state >> 29)).to_le_bytes() }
                        })
                        .collect();
                    event(first + n).channel(&format!("c.{}", state % 100)).bytes(bytes).shared()
                })
                .collect();
            written += 64 * 2048;
            append(&log, &group);
            group_number += 1;
            if group_number % 8 == 0 {
                worst = worst.max(directory::disk_use(&dir.path().join("log")));
            }
        }
        assert!(worst < 2 * limit, "{worst} bytes for a limit of {limit}");
        packed(&log);
        let used = directory::disk_use(&dir.path().join("log"));
        assert!(used <= limit + limit / 4, "{used} bytes for a limit of {limit}");
        let oldest = log.stats().oldest.unwrap();
        assert_eq!(status(&log, &["c.1"], Position(1)), ResumeStatus::Expired);
        assert_eq!(status(&log, &["c.1"], oldest), ResumeStatus::Ok);
        let page =
            log.read_after(&interest(&[">"]), &Filter::default(), Position(1), log.head(), budget()).unwrap();
        assert!(page.lost && !page.events.is_empty());
        let before = read_undisturbed(&log);
        println!("limit {limit}: {} events kept, {used} bytes used, {worst} at worst", before.len());
        let epoch = log.epoch();
        drop(log);
        let log = Log::open(LogOptions { max_bytes: limit, ..options(dir.path()) }).unwrap();
        let after = read_undisturbed(&log);
        assert_eq!(log.epoch(), epoch);
        assert!(!after.is_empty() && before.ends_with(&after));
        assert_eq!(status(&log, &["c.1"], Position(1)), ResumeStatus::Expired);
    }
}

#[test]
fn an_expired_event_is_not_read_and_its_loss_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let first = log.next_position().0;
    let short = event(first).channel("a").expires(now() + 300).shared();
    let group =
        [short.clone(), event(first + 1).channel("b").shared(), event(first + 2).channel("a").shared()];
    log.append(&group).unwrap();
    wait_for("expiry", || log.find(short.position).unwrap().is_none());
    let start = Position(first - 1);
    let check = |log: &Log| {
        assert_eq!(read_all(log, &[">"]), group[1..]);
        assert_eq!(status(log, &["a"], start), ResumeStatus::Expired);
        assert_eq!(status(log, &["a"], short.position), ResumeStatus::Ok);
        assert_eq!(status(log, &["b"], start), ResumeStatus::Ok);
    };
    check(&log);
    drop(log);
    // Packed, only a stub is left of it.
    let log = open(dir.path());
    wait_for("packing", || log.stats().journals == 0);
    assert_eq!(log.stats().events, 2);
    check(&log);
}

#[test]
fn a_generation_whose_events_are_all_expired_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(LogOptions { ttl: Duration::from_millis(1500), ..options(dir.path()) }).unwrap();
    let first = log.next_position().0;
    let expires = now() + 1500;
    log.append(&[event(first).expires(expires).shared()]).unwrap();
    drop(log);
    let log = Log::open(LogOptions { ttl: Duration::from_millis(1500), ..options(dir.path()) }).unwrap();
    wait_for("packing", || log.stats().journals == 0);
    wait_for("expiry", || log.stats().generations == 0);
    assert_eq!(read_all(&log, &[">"]), []);
    assert_eq!(status(&log, &["test.channel"], Position(first)), ResumeStatus::Ok);
    assert_eq!(status(&log, &["test.channel"], Position(first - 1)), ResumeStatus::Expired);
    let epoch = log.epoch();
    drop(log);
    // All gone on purpose is not lost.
    assert_eq!(open(dir.path()).epoch(), epoch);
}

#[test]
fn rules_say_how_long_and_how_many() {
    let dir = tempfile::tempdir().unwrap();
    let rule = |pattern: &str| Rule {
        pattern: Pattern::parse(pattern).unwrap(),
        ttl: None,
        max_events: None,
        store: true,
    };
    let rules = vec![
        Rule { store: false, ..rule("live.>") },
        Rule { ttl: Some(Duration::from_secs(60)), ..rule("short.>") },
        Rule { max_events: Some(5), ..rule("few.*") },
    ];
    let with = |dir: &Path| LogOptions { rules: rules.clone(), ..small(dir) };
    let log = Log::open(with(dir.path())).unwrap();
    let expiry = |channel: &str, ttl| log.expiry(&Channel::parse(channel).unwrap(), ttl, 1000);
    assert_eq!(expiry("live.a", Ttl::Default), Expiry::Live);
    assert_eq!(expiry("short.a", Ttl::Default), Expiry::At(61_000));
    assert_eq!(expiry("short.a", Ttl::Ms(5000)), Expiry::At(6000));
    assert_eq!(expiry("other", Ttl::Live), Expiry::Live);
    assert_eq!(expiry("other", Ttl::Default), Expiry::At(1000 + 86_400_000));
    assert_eq!(expiry("other", Ttl::Ms(30 * 86_400_000)), Expiry::At(1000 + 30 * 86_400_000));
    let mut all: Vec<Arc<Event>> = Vec::new();
    for n in 0..40u64 {
        let group: Vec<_> = (0..50)
            .map(|k| {
                event(log.next_position().0 + k)
                    .channel(&format!("few.{}", k % 3))
                    .bytes(vec![n as u8; 5000])
                    .shared()
            })
            .collect();
        append(&log, &group);
        all.extend(group);
    }
    let newest = |channel: &str| {
        let mut own: Vec<_> = all.iter().filter(|event| event.channel.as_str() == channel).cloned().collect();
        own.split_off(own.len() - 5)
    };
    let check = |log: &Log| {
        for channel in ["few.0", "few.1", "few.2"] {
            assert_eq!(read_all(log, &[channel]), newest(channel));
        }
        assert_eq!(read_all(log, &[">"]).len(), 15);
        assert_eq!(status(log, &["few.0"], all[0].position), ResumeStatus::Expired);
        assert_eq!(status(log, &["few.0"], newest("few.0")[0].position), ResumeStatus::Ok);
        assert_eq!(log.last(&Channel::parse("few.1").unwrap()).unwrap().as_ref(), newest("few.1").last());
    };
    check(&log);
    packed(&log);
    check(&log);
    drop(log);
    let log = Log::open(with(dir.path())).unwrap();
    wait_for("packing", || log.stats().journals == 0);
    check(&log);
}

#[test]
fn what_is_deleted_stays_deleted_and_its_space_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_bytes: 8 << 20, compress: false, ..options(dir.path()) };
    let log = Log::open(options.clone()).unwrap();
    let all = fill(&log, 12_000);
    packed(&log);
    assert!(log.stats().generations > 1, "{:?}", log.stats());
    let gone = interest(&["user.*.y"]);
    let left: Vec<_> = read_all(&log, &["user.*.x"]);
    let count = read_all(&log, &["user.*.y"]).len() as u64;
    assert_eq!(log.delete(None, Some(&gone)).unwrap(), count);
    assert_eq!(log.delete(None, Some(&gone)).unwrap(), 0);
    let check = |log: &Log| {
        assert_eq!(read_all(log, &[">"]), left);
        assert_eq!(log.last(&Channel::parse("user.1.y").unwrap()).unwrap(), None);
        assert_eq!(status(log, &["user.1.y"], all[0].position), ResumeStatus::Expired);
    };
    check(&log);
    wait_for("compaction", || {
        check(&log);
        log.stats().compactions > 0
    });
    check(&log);
    drop(log);
    let log = Log::open(options).unwrap();
    check(&log);
    // What comes afterwards is not meant.
    let later = event(log.next_position().0).channel("user.1.y").time(now() - 5000).shared();
    append(&log, std::slice::from_ref(&later));
    assert_eq!(read_all(&log, &["user.1.y"]), std::slice::from_ref(&later));
    assert_eq!(log.delete(Some(now() - 6000), Some(&gone)).unwrap(), 0);
    assert_eq!(log.delete(Some(now() - 1000), Some(&gone)).unwrap(), 1);
    assert_eq!(read_all(&log, &["user.1.y"]), []);
    drop(log);
    assert!(Log::verify(&dir.path().join("log"), &Keyring::none()).unwrap().is_sound());
}

#[test]
fn typical_events_take_less_than_two_fifths_of_their_wire_form() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(options(dir.path())).unwrap();
    let kinds = [
        (
            "cron.execution.@",
            "execution-update",
            r#"{"job_id":@,"execution_id":@,"status":"running","progress":@,"duration_ms":@,"memory_mb":14.2,"timestamp":@}"#,
        ),
        (
            "user.@",
            "notification",
            r#"{"title":"Execution finished","body":"Job @ finished in @ s","href":"/cron/@/executions/@","read":false}"#,
        ),
        (
            "editor.function.@",
            "cursor-move",
            r#"{"user_id":@,"user_name":"Ada","position":{"line":@,"column":@},"timestamp":@}"#,
        ),
        (
            "batch.b-@",
            "batch_progress",
            r#"{"batchId":"b-@","total":500,"completed":@,"failed":2,"running":16,"costUsd":1.@,"etaSeconds":@}"#,
        ),
        (
            "execution.01JGC@",
            "log_line",
            r#"{"executionId":"01JGC@","level":"info","step":4,"message":"navigated to https://example.com/contact (HTTP 200, @ ms)","timestamp":"2025-12-30T00:00:26.@Z"}"#,
        ),
    ];
    let (mut state, mut wire) = (1u64, 0);
    for n in 0..400u64 {
        let first = log.next_position().0;
        let group: Vec<_> = (0..100)
            .map(|k| {
                let mut fresh = |text: &str| {
                    let mut parts = text.split('@');
                    let mut out = parts.next().unwrap_or_default().to_owned();
                    for part in parts {
                        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        out += &((state >> 40) % 100_000).to_string();
                        out += part;
                    }
                    out
                };
                let (channel, name, data) = kinds[((n + k) % 5) as usize];
                event(first + k)
                    .channel(&fresh(channel))
                    .name(name)
                    .json(&fresh(data))
                    .time(now() + n * 17 + k)
                    .shared()
            })
            .collect();
        let envelope =
            r#"{"type":"event","channel":"","event":"","data":,"id":"","time":1767052800000,"cursor":""}"#;
        for event in &group {
            wire += envelope.len() + event.channel.as_str().len() + event.name.as_str().len();
            wire += event.data.len() + event.id.as_str().len() + Cursor::TEXT_BYTES;
        }
        append(&log, &group);
    }
    drop(log);
    let log = Log::open(options(dir.path())).unwrap();
    wait_for("packing", || log.stats().journals == 0);
    let is_journal = |name: &String| name.starts_with(journal::PREFIX);
    wait_for("the journals' end", || !log.0.shared.directory.names().unwrap().iter().any(is_journal));
    let disk = log.0.shared.measure();
    let saved = 100 - disk * 100 / wire as u64;
    println!("{wire} bytes on the wire, {disk} on the disk: {saved} % smaller");
    assert!(saved >= 60, "only {saved} % smaller");
}

#[test]
fn any_number_of_deletions_is_carried_out_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut left = Vec::new();
    for n in 0..2 * deletions::MOST {
        let first = log.next_position().0;
        let group =
            [event(first).channel(&format!("gone.{n}")).shared(), event(first + 1).channel("kept").shared()];
        append(&log, &group);
        left.push(group[1].clone());
        let gone = interest(&[&format!("gone.{n}")]);
        wait_for("room for a deletion", || match log.delete(None, Some(&gone)) {
            Ok(count) => count == 1,
            Err(DeleteError::Busy) => false,
            Err(error) => panic!("{error}"),
        });
    }
    assert_eq!(read_all(&log, &[">"]), left);
    drop(log);
    assert_eq!(read_all(&open(dir.path()), &[">"]), left);
}

#[test]
fn looking_at_a_log_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(LogOptions { max_bytes: 4 << 30, ..options(dir.path()) }).unwrap();
    fill(&log, 2000);
    let short = event(log.next_position().0).expires(now() + 1).shared();
    append(&log, std::slice::from_ref(&short));
    log.close();
    let (epoch, head) = (log.epoch(), log.head());
    drop(log);
    let path = dir.path().join("log");
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name(), entry.metadata().unwrap().modified().unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    for _ in 0..2 {
        let (stats, found) = Log::inspect(&path, &Keyring::none()).unwrap();
        assert_eq!((found, stats.newest, stats.events), (epoch, head, 2001));
        assert!(stats.disk_bytes > 100_000, "{stats:?}");
    }
    assert_eq!(files(), before);
    assert!(Log::inspect(&dir.path().join("none"), &Keyring::none()).is_err());
}
