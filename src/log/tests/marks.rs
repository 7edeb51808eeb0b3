//! Where the cursors of a bus with several shards lead.

use super::super::testing::{event, wait_for};
use super::super::{Log, LogOptions, Numbering};
use crate::event::{Cursor, Epoch, Event, Marks, Place, Position};
use std::sync::Arc;

const BUS: Epoch = Epoch(5);

fn marks(positions: &[u64]) -> Marks {
    Marks::new(positions.iter().copied().map(Position).collect::<Vec<_>>()).unwrap()
}

/// The same by looking at everything.
fn expected(events: &[Arc<Event>], wanted: &Marks) -> usize {
    events.iter().take_while(|event| event.marks().unwrap().is_within(wanted)).count()
}

#[test]
fn a_cursor_leads_to_the_last_event_before_the_first_that_it_does_not_cover() {
    let mut random = fastrand::Rng::with_seed(11);
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { numbering: Numbering::Bus, ..LogOptions::new(dir.path().join("log")) };
    let mut log = Log::open(options.clone()).unwrap();
    for n in 1..40 {
        log.append(&[event(n).shared()]).unwrap();
    }
    let begin = log.begin_era(BUS, Position::ZERO, false).unwrap();
    let mut at = [1_000_u64, 5, 70_000];
    let mut events: Vec<Arc<Event>> = Vec::new();
    let mut position = begin.0;
    for round in 0..3 {
        for _ in 0..1_500 {
            position += random.u64(1..1_000);
            at[random.usize(0..3)] += random.u64(1..5);
            let event = event(position).way(Some((1, position)), &at).shared();
            log.append(std::slice::from_ref(&event)).unwrap();
            events.push(event);
        }
        for _ in 0..200 {
            let near = events[random.usize(0..events.len())].marks().unwrap().clone();
            let moved =
                near.positions().iter().map(|own| Position((own.0 + random.u64(0..9)).saturating_sub(4)));
            let wanted = Marks::new(moved.collect::<Vec<_>>()).unwrap();
            let cursor = Cursor { place: Place::Marks(wanted.clone()), ..Cursor::at(BUS, Position::ZERO) };
            let place = log.position_of(&cursor).unwrap();
            let covered = events.iter().take_while(|event| event.position <= place).count();
            assert_eq!(covered, expected(&events, &wanted), "round {round}");
        }
        // Packed into blocks, and what comes next in memory again.
        log.close();
        drop(log);
        log = Log::open(options.clone()).unwrap();
        wait_for("packing", || log.stats().journals == 0);
    }
    let all = Place::Marks(marks(&at.map(|position| position + 9)));
    let all = Cursor { place: all, ..Cursor::at(BUS, Position::ZERO) };
    assert_eq!(log.position_of(&all), Some(log.head()));
    let none = Cursor { place: Place::Marks(marks(&[1, 1, 1])), ..all.clone() };
    assert!((begin..events[0].position).contains(&log.position_of(&none).unwrap()));
    assert_eq!(log.position_of(&Cursor { epoch: Epoch(6), ..all }), None);
}
