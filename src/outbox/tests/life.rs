//! Appending, reading, settling, rejecting, and what a restart keeps.

use super::*;
use std::fs;
use std::os::unix::fs::MetadataExt;

#[test]
fn events_come_back_in_order_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    let sent = entries(1..=200);
    for group in sent.chunks(13) {
        outbox.append(group).unwrap();
    }
    let read = read_all(&outbox);
    assert!(read.is_sorted_by(|(one, _), (next, _)| one < next));
    assert!(read.into_iter().map(|(_, entry)| entry).eq(sent));
    assert_eq!(fs::metadata(dir.path().join("outbox")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_killed_process_loses_nothing_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(&entries(1..=100)).unwrap();
    let read = read_all(&outbox);
    outbox.settle(read[29].0);
    // Without closing it, as a kill would.
    std::mem::forget(outbox);
    let outbox = open(dir.path());
    assert_eq!(sequences(&outbox), (31..=100).collect::<Vec<_>>());
    assert_eq!(outbox.status().events, 70);
    assert_eq!(outbox.status().oldest_ms, Some(read[30].1.event.time));
    outbox.append(&entries(101..=110)).unwrap();
    let again = read_all(&outbox);
    assert!(again.last().unwrap().0 > read[99].0);
    assert_eq!(sequences(&outbox), (31..=110).collect::<Vec<_>>());
}

#[test]
fn settling_gives_the_disk_back() {
    let dir = tempfile::tempdir().unwrap();
    let outbox =
        Outbox::open(&dir.path().join("outbox"), Limits { max_bytes: 800_000, ..LIMITS }, &Keyring::none())
            .unwrap();
    for sequence in 1..=60 {
        outbox.append(&[entry(sequence, 10_000)]).unwrap();
    }
    let all = read_all(&outbox);
    let full = outbox.status();
    assert!(segments(dir.path()).len() >= 5);
    outbox.settle(all[40].0);
    let on_disk: u64 = segments(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(outbox.status().bytes, on_disk);
    assert!(on_disk < full.bytes / 2, "{on_disk}");
    outbox.settle(Number(u64::MAX));
    assert_eq!(outbox.status(), Status { events: 0, bytes: 0, oldest_ms: None });
    assert!(outbox.is_empty() && segments(dir.path()).is_empty());
    // A number that was not given when it was settled does not settle what gets it.
    outbox.append(&entries([61])).unwrap();
    assert_eq!(sequences(&outbox), [61]);
    drop(outbox);
    assert_eq!(sequences(&open(dir.path())), [61]);
}

#[test]
fn a_clean_close_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(&entries(1..=10)).unwrap();
    outbox.settle(read_all(&outbox)[9].0);
    outbox.close();
    drop(outbox);
    let outbox = open(dir.path());
    assert!(outbox.is_empty());
    outbox.append(&entries(11..=12)).unwrap();
    assert_eq!(sequences(&outbox), [11, 12]);
}

#[test]
fn rejected_events_can_be_read_by_people() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(&entries(1..=6)).unwrap();
    let all = read_all(&outbox);
    outbox.reject(all[0].0, "too large").unwrap();
    outbox.reject(all[3].0, "too large").unwrap();
    assert_eq!(sequences(&outbox), [2, 3, 5, 6]);
    assert_eq!(outbox.status().events, 4);
    let text = fs::read_to_string(dir.path().join("outbox/rejected.ndjson")).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0]["data"]["$base64"].is_string());
    assert_eq!(lines[1]["data"]["n"], 4);
    assert_eq!((&lines[1]["id"], &lines[1]["why"]), (&"id-4".into(), &"too large".into()));
    assert_eq!((&lines[1]["channel"], &lines[1]["event"]), (&"test.channel".into(), &"message".into()));
    assert_eq!(lines[1]["time"], all[3].1.event.time);
    // What is appended behind a gap is found.
    outbox.append(&entries(7..=8)).unwrap();
    assert_eq!(sequences(&outbox), [2, 3, 5, 6, 7, 8]);
    outbox.reject(read_all(&outbox)[5].0, "too large").unwrap();
    outbox.settle(all[5].0);
    assert_eq!(sequences(&outbox), [7]);
}

#[test]
fn rejected_events_take_a_bounded_part_of_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let rejected = Rejected::bounded(dir.path(), 2_000);
    let mut record = Vec::new();
    for sequence in 1..=100 {
        record.clear();
        record::put(&mut record, 0, sequence, &entry(sequence, 20), None).unwrap();
        rejected.add(&record, "too large").unwrap();
    }
    let newest = fs::read_to_string(dir.path().join("rejected.ndjson")).unwrap();
    assert!(newest.lines().last().unwrap().contains("id-100"));
    for file in ["rejected.ndjson", "rejected.1.ndjson"] {
        assert!((1..=2_000).contains(&fs::metadata(dir.path().join(file)).unwrap().len()));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn the_log_leaves_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = || crate::log::LogOptions::new(dir.path().to_owned());
    drop(crate::log::Log::open(options()).unwrap());
    let outbox = open(dir.path());
    outbox.append(&entries(1..=3)).unwrap();
    drop(outbox);
    let log = crate::log::Log::open(options()).unwrap();
    assert_eq!(log.stats().quarantined, 0);
    drop(log);
    assert_eq!(sequences(&open(dir.path())), [1, 2, 3]);
}

#[test]
fn an_event_is_found_by_its_id_while_it_waits_and_after_it_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    let id = |text: &str| EventId::parse(text).unwrap();
    outbox.append(&entries(1..=600)).unwrap();
    outbox.settle(Number(100));
    let sought = outbox.seek(&id("id-500")).unwrap();
    let [waiting] = &sought.waiting[..] else { panic!("{sought:?}") };
    assert_eq!((waiting.entry.sequence, waiting.before), (500, 399));
    assert!(sought.refused.is_empty() && sought.looked_on_to.is_none());
    assert!(outbox.seek(&id("id-50")).unwrap().waiting.is_empty(), "the bus has it");

    outbox.reject(Number(500), "too \"large\"\n").unwrap();
    let sought = outbox.seek(&id("id-500")).unwrap();
    let [refused] = &sought.refused[..] else { panic!("{sought:?}") };
    assert!(sought.waiting.is_empty());
    assert_eq!(refused.why, "too \"large\"\n");
    assert_eq!(refused.channel.as_ref().map(Channel::as_str), Some("test.channel"));
    assert_eq!(refused.time, Some(waiting.entry.event.time));
    // Half a line, as a crash leaves it, hides nothing.
    let file = dir.path().join("outbox/rejected.ndjson");
    let mut text = fs::read_to_string(&file).unwrap();
    text.insert_str(0, "{\"id\":\"id-500\",\"wh\n\u{fffd}\n");
    fs::write(&file, text).unwrap();
    assert_eq!(outbox.seek(&id("id-500")).unwrap().refused.len(), 1);
}
