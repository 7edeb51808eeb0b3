//! What a start does to positions and cursors, also in a directory that was set back.

use super::super::testing::*;
use super::super::*;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn append_one(log: &Log) -> Position {
    let event = event(log.next_position().0).shared();
    log.append(std::slice::from_ref(&event)).unwrap();
    event.position
}

fn status(log: &Log, position: Position) -> ResumeStatus {
    log.resume(&interest(&[">"]), &Cursor::at(log.epoch(), position)).status
}

#[test]
fn a_restored_backup_never_uses_a_position_again() {
    let dir = tempfile::tempdir().unwrap();
    let (live, backup) = (dir.path().join("log"), dir.path().join("backup"));
    let log = open(dir.path());
    let (epoch, kept) = (log.epoch(), append_one(&log));
    log.close();
    drop(log);
    copy(&live, &backup);

    let log = open(dir.path());
    let forgotten = append_one(&log);
    assert_eq!(status(&log, kept), ResumeStatus::Ok);
    log.close();
    drop(log);
    std::fs::remove_dir_all(&live).unwrap();
    copy(&backup, &live);

    let log = open(dir.path());
    assert_eq!((log.epoch(), log.head()), (epoch, kept));
    assert_eq!(status(&log, kept), ResumeStatus::Ok, "the head that was restored");
    assert_eq!(status(&log, forgotten), ResumeStatus::Expired, "before anything new came");
    let new = append_one(&log);
    assert!(new > forgotten);
    drop(log);
    for _ in 0..3 {
        // Later starts still tell it apart, packed or not.
        let log = open(dir.path());
        wait_for("packing", || log.stats().journals == 0);
        assert_eq!(status(&log, kept), ResumeStatus::Ok);
        assert_eq!(status(&log, forgotten), ResumeStatus::Expired);
        assert_eq!(status(&log, new), ResumeStatus::Ok);
        log.close();
    }
}

#[test]
fn cursors_of_events_that_were_only_live_hold_after_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut good = Vec::new();
    let mut skipped = Vec::new();
    for round in 0..4 {
        let log = open(dir.path());
        if round > 0 {
            skipped.extend([log.head().next(), log.next_position().previous()]);
        }
        if round != 2 {
            good.push(append_one(&log));
        }
        for _ in 0..3 {
            let live = event(log.next_position().0).live().shared();
            log.append(std::slice::from_ref(&live)).unwrap();
            good.push(live.position);
        }
        for position in &good {
            assert_eq!(status(&log, *position), ResumeStatus::Ok, "round {round}: {position:?}");
        }
        for position in &skipped {
            assert_eq!(status(&log, *position), ResumeStatus::Expired, "round {round}: {position:?}");
        }
        assert_eq!(status(&log, log.head().next()), ResumeStatus::Reset);
        log.close();
    }
}

#[test]
fn a_lost_list_of_starts_is_no_silent_gap() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (first, head) = (append_one(&log), append_one(&log));
    log.close();
    drop(log);
    std::fs::remove_file(dir.path().join("log/starts")).unwrap();
    let log = open(dir.path());
    assert_eq!(status(&log, first), ResumeStatus::Expired);
    assert_eq!(status(&log, head), ResumeStatus::Ok);
}

#[test]
fn a_clock_that_jumps_changes_neither_order_nor_resume() {
    const HOUR: u64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for jump in [0, HOUR, 0, 2 * HOUR] {
        let log = open(dir.path());
        // What an orderer makes of a clock that was an hour ahead, right, and an hour behind.
        let time = now() + HOUR - jump;
        let first = log.next_position().0;
        let group: Vec<_> = (0..50)
            .map(|n| {
                let time = if n % 2 == 0 { time } else { now() };
                event(first + n).time(time).expires(now() + 10 * HOUR).shared()
            })
            .collect();
        log.append(&group).unwrap();
        all.extend(group);
        for is_packed in [false, true] {
            if is_packed {
                log.0.shared.seal_active();
                wait_for("packing", || log.stats().journals == 0);
            }
            assert_eq!(read_all(&log, &[">"]), all);
            let newest = log.newest(&interest(&[">"]), &Filter::default(), 10).unwrap();
            assert_eq!(newest, all[all.len() - 10..]);
            assert!(all.iter().all(|event| status(&log, event.position) == ResumeStatus::Ok));
        }
        log.close();
    }
    assert!(all.windows(2).all(|pair| pair[0].position < pair[1].position));
}
