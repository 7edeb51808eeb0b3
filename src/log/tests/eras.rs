//! A log whose events are ordered by a bus, and one that moves between buses.

use super::super::testing::*;
use super::super::*;
use std::path::Path;

const REDIS: Epoch = Epoch(70);
const NATS: Epoch = Epoch(71);

fn open_on_bus(dir: &Path) -> Log {
    Log::open(LogOptions { numbering: Numbering::Bus, ..options(dir) }).unwrap()
}

/// Appends the event that stands here on the bus; returns its cursor.
fn append_from_bus(log: &Log, position: u64) -> Cursor {
    let event = event(log.at_bus(Position(position)).0).shared();
    log.append(std::slice::from_ref(&event)).unwrap();
    log.cursors().of(event.position)
}

fn resume(log: &Log, cursor: &Cursor) -> ResumeStatus {
    log.resume(&interest(&[">"]), cursor).status
}

fn count(log: &Log) -> usize {
    read_all(log, &[">"]).len()
}

#[test]
fn positions_of_the_bus_survive_restarts_and_nothing_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_on_bus(dir.path());
    assert_eq!(log.on_bus(), None);
    log.begin_era(&[(REDIS, Position(1000))], false).unwrap();
    assert_eq!((log.epoch(), log.on_bus()), (REDIS, Some(vec![(REDIS, Position(1000))])));
    let first = append_from_bus(&log, 1001);
    assert_eq!(first, Cursor::at(REDIS, Position(1001)));
    log.sync().unwrap();
    // A kill, and a clean stop.
    for stop in [false, true] {
        drop(log.clone());
        if stop {
            log.close();
        }
    }
    drop(log);
    let log = open_on_bus(dir.path());
    assert_eq!(log.on_bus(), Some(vec![(REDIS, Position(1001))]));
    let later = append_from_bus(&log, 1009);
    assert_eq!(resume(&log, &first), ResumeStatus::Ok);
    assert_eq!(resume(&log, &later), ResumeStatus::Ok);
    let between = Cursor::at(REDIS, Position(1005));
    assert_eq!(resume(&log, &between), ResumeStatus::Ok, "of an event for somebody else");
    let ahead = Cursor::at(REDIS, Position(2000));
    assert_eq!(resume(&log, &ahead), ResumeStatus::Ahead);
    let before = Cursor::at(REDIS, Position(3));
    assert_eq!(resume(&log, &before), ResumeStatus::Expired, "from before this node came");
    assert_eq!(resume(&log, &Cursor { epoch: NATS, ..first }), ResumeStatus::Reset);
}

#[test]
fn what_the_bus_no_longer_has_is_told_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_on_bus(dir.path());
    log.begin_era(&[(REDIS, Position(0))], false).unwrap();
    let before = append_from_bus(&log, 10);
    assert_eq!(log.skip_to(&[Position(20)]).unwrap(), log.at_bus(Position(20)));
    assert_eq!(resume(&log, &before), ResumeStatus::Expired);
    let edge = Cursor::at(REDIS, Position(20));
    assert_eq!(resume(&log, &edge), ResumeStatus::Ok);
    // Nothing came after it.
    log.close();
    drop(log);
    let log = open_on_bus(dir.path());
    assert_eq!(log.on_bus(), Some(vec![(REDIS, Position(20))]));
    assert_eq!(resume(&log, &before), ResumeStatus::Expired);
    let after = append_from_bus(&log, 25);
    drop(log);
    for _ in 0..2 {
        let log = open_on_bus(dir.path());
        wait_for("packing", || log.stats().journals == 0);
        assert_eq!(resume(&log, &before), ResumeStatus::Expired);
        assert_eq!(resume(&log, &after), ResumeStatus::Ok);
        assert_eq!((log.stats().damaged, count(&log)), (0, 2));
    }
}

#[test]
fn a_new_epoch_tells_whoever_is_still_connected() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_on_bus(dir.path());
    log.begin_era(&[(REDIS, Position(500))], false).unwrap();
    append_from_bus(&log, 501);
    let at = log.head();
    // The new log begins far below the old one.
    log.begin_era(&[(NATS, Position(0))], true).unwrap();
    let new = append_from_bus(&log, 1);
    assert_eq!(new, Cursor::at(NATS, Position(1)));
    let everything = interest(&[">"]);
    let budget = Budget { events: 10, bytes: 1 << 20 };
    let page = log.read_after(&everything, &Filter::default(), at, log.head(), budget).unwrap();
    assert!(page.lost && page.events.len() == 1);
    assert_eq!(resume(&log, &new), ResumeStatus::Ok);
}

#[test]
fn a_log_that_moves_between_buses_keeps_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let alone = append_one(&log);
    log.close();
    drop(log);

    let log = open_on_bus(dir.path());
    log.begin_era(&[(NATS, Position(0))], false).unwrap();
    let on_bus = append_from_bus(&log, 1);
    assert_eq!(resume(&log, &alone), ResumeStatus::Reset);
    assert_eq!(resume(&log, &on_bus), ResumeStatus::Ok);
    // History is paged through across the border.
    assert!(log.position_of(&alone).unwrap() < log.position_of(&on_bus).unwrap());
    log.close();
    drop(log);

    let log = open(dir.path());
    let alone_again = append_one(&log);
    assert_eq!(resume(&log, &on_bus), ResumeStatus::Reset);
    assert_eq!(resume(&log, &alone), ResumeStatus::Reset, "others may have published meanwhile");
    assert_eq!(resume(&log, &alone_again), ResumeStatus::Ok);
    assert_eq!(count(&log), 3);
    drop(log);
    let log = open(dir.path());
    assert_eq!(resume(&log, &alone_again), ResumeStatus::Ok);
    assert_eq!(count(&log), 3);
}

fn append_one(log: &Log) -> Cursor {
    let event = event(log.next_position().0).shared();
    log.append(std::slice::from_ref(&event)).unwrap();
    log.cursors().of(event.position)
}
