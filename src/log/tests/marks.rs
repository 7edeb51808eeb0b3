//! A log whose events come from the shards of a bus, and where cursors with a position in each lead.

use super::super::testing::{event, interest, read_all, wait_for};
use super::super::{Log, LogOptions, Numbering, ResumeStatus};
use crate::event::{Cursor, Epoch, Event, Marks, Place, Position};
use std::path::Path;
use std::sync::Arc;

/// Three shards, each with an epoch of its own, and how far each had come before this log was there.
const BUS: [(Epoch, Position); 3] =
    [(Epoch(5), Position(1_000)), (Epoch(6), Position(5)), (Epoch(7), Position(70_000))];

fn options(dir: &Path) -> LogOptions {
    LogOptions { numbering: Numbering::Shards, ..LogOptions::new(dir.join("log")) }
}

fn marks(positions: &[u64]) -> Marks {
    Marks::new(positions.iter().copied().map(Position).collect::<Vec<_>>()).unwrap()
}

fn cursor(log: &Log, positions: &[u64]) -> Cursor {
    Cursor { place: Place::Marks(marks(positions)), ..Cursor::at(log.epoch(), Position::ZERO) }
}

fn append(log: &Log, at: [u64; 3]) -> Arc<Event> {
    let event = event(log.next_position().0).way(Some((1, at[0])), &at).shared();
    log.append(std::slice::from_ref(&event)).unwrap();
    event
}

fn resume(log: &Log, cursor: &Cursor) -> ResumeStatus {
    log.resume(&interest(&[">"]), cursor).status
}

/// The positions that the log has come to, by shard.
fn came_to(log: &Log) -> Vec<u64> {
    log.on_bus().unwrap().into_iter().map(|(_, position)| position.0).collect()
}

#[test]
fn a_cursor_leads_to_the_last_event_before_the_first_that_it_does_not_cover() {
    let mut random = fastrand::Rng::with_seed(11);
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(options(dir.path())).unwrap();
    for _ in 1..40 {
        log.append(&[event(log.next_position().0).shared()]).unwrap();
    }
    log.begin_era(&BUS, false).unwrap();
    let mut at = [1_000_u64, 5, 70_000];
    let mut events: Vec<Arc<Event>> = Vec::new();
    for round in 0..3 {
        for _ in 0..1_500 {
            at[random.usize(0..3)] += random.u64(1..5);
            events.push(append(&log, at));
        }
        for _ in 0..200 {
            let near = events[random.usize(0..events.len())].marks().unwrap().clone();
            let moved =
                near.positions().iter().map(|own| Position((own.0 + random.u64(0..9)).saturating_sub(4)));
            let wanted = Marks::new(moved.collect::<Vec<_>>()).unwrap();
            let cursor =
                Cursor { place: Place::Marks(wanted.clone()), ..Cursor::at(log.epoch(), Position::ZERO) };
            let is_before = |event: &&Arc<Event>| event.marks().unwrap().is_within(&wanted);
            if marks(&[1_000, 5, 70_000]).is_within(&wanted) {
                let expected = events.iter().take_while(is_before).last().map(|event| event.position);
                let place = log.position_of(&cursor).unwrap().unwrap();
                assert_eq!(
                    Some(place).filter(|place| *place >= events[0].position),
                    expected,
                    "round {round}"
                );
            }
            let reached = events.iter().find(|event| wanted.is_within(event.marks().unwrap()));
            let end = |event: &Arc<Event>| match *event.marks().unwrap() == wanted {
                true => event.position,
                false => event.position.next(),
            };
            if let Some(reached) = reached.filter(|_| log.position_of(&cursor).unwrap().is_some()) {
                assert_eq!(log.end_of(&cursor).unwrap(), Some(end(reached)), "round {round}");
            }
        }
        // Every position has a cursor that leads back to it.
        for event in events.iter().step_by(97) {
            let cursor = log.cursors().of(event.position);
            assert_eq!(cursor, log.cursors().of_event(event));
            assert_eq!(log.position_of(&cursor).unwrap(), Some(event.position));
        }
        assert_eq!(came_to(&log), at);
        // Packed into blocks, and what comes next in memory again.
        log.close();
        drop(log);
        log = Log::open(options(dir.path())).unwrap();
        assert_eq!(came_to(&log), at);
        wait_for("packing", || log.stats().journals == 0);
        assert_eq!(came_to(&log), at);
    }
    let all = cursor(&log, &at);
    assert_eq!((log.position_of(&all).unwrap(), resume(&log, &all)), (Some(log.head()), ResumeStatus::Ok));
    let beyond = cursor(&log, &[at[0], at[1], at[2] + 1]);
    assert!(resume(&log, &beyond) == ResumeStatus::Ahead && log.is_ahead(&beyond, log.head()));
    assert_eq!(
        resume(&log, &cursor(&log, &[1_000, 4, 70_000])),
        ResumeStatus::Expired,
        "before this node came"
    );
    assert_eq!(resume(&log, &cursor(&log, &[1_000, 5])), ResumeStatus::Reset, "of another number of shards");
    assert_eq!(resume(&log, &Cursor { epoch: Epoch(6), ..all }), ResumeStatus::Reset);
    assert_eq!(resume(&log, &Cursor::at(log.epoch(), Position(7))), ResumeStatus::Reset);
}

#[test]
fn what_a_shard_no_longer_has_is_told_to_who_has_not_got_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(options(dir.path())).unwrap();
    log.begin_era(&BUS, false).unwrap();
    append(&log, [1_001, 6, 70_001]);
    let before = cursor(&log, &[1_001, 6, 70_001]);
    log.skip_to(&[Position(1_001), Position(20), Position(70_001)].map(|position| position)).unwrap();
    let behind = log.cursors().of(log.head());
    assert_eq!(behind, cursor(&log, &[1_001, 20, 70_001]));
    let check = |log: &Log| {
        assert_eq!(resume(log, &before), ResumeStatus::Expired);
        assert_eq!(resume(log, &behind), ResumeStatus::Ok, "it lost nothing");
        assert_eq!(resume(log, &cursor(log, &[1_001, 19, 70_001])), ResumeStatus::Expired);
    };
    check(&log);
    drop(log);
    let log = Log::open(options(dir.path())).unwrap();
    assert_eq!(came_to(&log), [1_001, 20, 70_001], "reading does not go back before the gap");
    check(&log);
    let later = append(&log, [1_002, 20, 70_001]);
    check(&log);
    let later = log.cursors().of_event(&later);
    log.close();
    drop(log);
    let log = Log::open(options(dir.path())).unwrap();
    wait_for("packing", || log.stats().journals == 0);
    check(&log);
    assert_eq!((resume(&log, &later), log.stats().damaged), (ResumeStatus::Ok, 0));
}

#[test]
fn a_shard_that_is_another_log_makes_another_log_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(options(dir.path())).unwrap();
    log.begin_era(&BUS, false).unwrap();
    append(&log, [1_001, 5, 70_000]);
    let old = log.cursors().of(log.head());
    let mut other = BUS;
    other[1] = (Epoch(66), Position(0));
    log.begin_era(&other, true).unwrap();
    assert_eq!((resume(&log, &old), log.on_bus()), (ResumeStatus::Reset, Some(other.to_vec())));
    assert!(log.position_of(&old).unwrap().is_some(), "history is paged through across the border");
    append(&log, [1_002, 0, 70_000]);
    let new = log.cursors().of(log.head());
    assert_eq!(resume(&log, &new), ResumeStatus::Ok);
    assert_eq!(log.came_to(&BUS.map(|(epoch, _)| epoch)), Some([1_001, 5, 70_000].map(Position).to_vec()));
    assert_eq!(log.came_to(&[Epoch(5), Epoch(6)]), None);
    // And back to a log that is alone.
    log.close();
    drop(log);
    let log = Log::open(LogOptions::new(dir.path().join("log"))).unwrap();
    assert_eq!((resume(&log, &new), log.on_bus()), (ResumeStatus::Reset, None));
    log.append(&[event(log.next_position().0).shared()]).unwrap();
    assert_eq!(read_all(&log, &[">"]).len(), 3);
}

#[test]
fn what_is_live_only_moves_the_cursor_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(options(dir.path())).unwrap();
    log.begin_era(&BUS, false).unwrap();
    append(&log, [1_001, 5, 70_000]);
    let live = event(log.next_position().0).way(None, &[1_001, 9, 70_000]).live().shared();
    log.append(std::slice::from_ref(&live)).unwrap();
    let cursor = log.cursors().of(log.head());
    assert_eq!(cursor, log.cursors().of_event(&live));
    assert_eq!(
        (log.position_of(&cursor).unwrap(), resume(&log, &cursor)),
        (Some(live.position), ResumeStatus::Ok)
    );
}
