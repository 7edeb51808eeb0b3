//! Torn ends, flipped bits, failed syncs, newer formats.

use super::*;
use std::fs;

/// One segment with these events, and where each record ends.
fn written(dir: &Path, keyring: &Keyring, count: u64) -> (PathBuf, Vec<u8>, Vec<usize>) {
    let outbox = open_with(dir, keyring);
    let mut ends = vec![segment::HEADER_BYTES];
    for sequence in 1..=count {
        outbox.append(&[entry(sequence, 20)]).unwrap();
        ends.push(outbox.status().bytes as usize);
    }
    drop(outbox);
    let path = segments(dir).remove(0);
    let bytes = fs::read(&path).unwrap();
    (path, bytes, ends)
}

#[test]
fn a_torn_write_is_cut_at_every_byte() {
    for keyring in keyrings() {
        let dir = tempfile::tempdir().unwrap();
        let (path, whole, ends) = written(dir.path(), &keyring, 5);
        for length in ends[4]..ends[5] {
            fs::write(&path, &whole[..length]).unwrap();
            let outbox = open_with(dir.path(), &keyring);
            assert_eq!(sequences(&outbox), [1, 2, 3, 4], "{length} bytes");
            assert_eq!(fs::metadata(&path).unwrap().len(), ends[4] as u64);
            outbox.append(&entries([6])).unwrap();
            drop(outbox);
            assert_eq!(sequences(&open_with(dir.path(), &keyring)), [1, 2, 3, 4, 6]);
            fs::remove_file(segments(dir.path()).pop().unwrap()).unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_costs_one_event() {
    for keyring in keyrings() {
        let dir = tempfile::tempdir().unwrap();
        let (path, whole, ends) = written(dir.path(), &keyring, 5);
        for at in ends[2]..ends[3] {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            let outbox = open_with(dir.path(), &keyring);
            assert_eq!(sequences(&outbox), [1, 2, 4, 5], "byte {at}");
            outbox.settle(read_all(&outbox)[1].0);
            assert_eq!(outbox.status().events, 2);
            fs::remove_file(dir.path().join("outbox/settled")).unwrap();
        }
    }
}

#[test]
fn a_damaged_header_costs_no_event() {
    for keyring in keyrings() {
        let dir = tempfile::tempdir().unwrap();
        let (path, whole, _) = written(dir.path(), &keyring, 3);
        for at in 0..segment::HEADER_BYTES {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            assert_eq!(sequences(&open_with(dir.path(), &keyring)), [1, 2, 3], "byte {at}");
        }
    }
}

#[test]
fn damage_while_it_is_open_costs_one_event() {
    for keyring in keyrings() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = open_with(dir.path(), &keyring);
        let mut ends = Vec::new();
        for sequence in 1..=5 {
            outbox.append(&[entry(sequence, 20)]).unwrap();
            ends.push(outbox.status().bytes as usize);
        }
        let path = segments(dir.path()).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        // A payload, the length of a record, and the last record.
        for at in [ends[1] - 1, ends[2] + 8, ends[4] - 1] {
            bytes[at] ^= 1;
        }
        fs::write(&path, &bytes).unwrap();
        assert_eq!(sequences(&outbox), [1, 3]);
        assert_eq!(outbox.status().events, 2);
        outbox.append(&entries([6])).unwrap();
        assert_eq!(sequences(&outbox), [1, 3, 6]);
        drop(outbox);
        assert_eq!(sequences(&open_with(dir.path(), &keyring)), [1, 3, 6]);
    }
}

#[test]
fn a_payload_that_looks_like_a_record_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut forged = Vec::new();
    record::put(&mut forged, 0x1234_5678, 2, &entry(99, 4), None).unwrap();
    let mut bait = entry(2, 0);
    let mut event = Event::clone(&bait.event);
    event.data = Data::Bytes(forged.into());
    bait.event = Arc::new(event);
    let outbox = open(dir.path());
    outbox.append(&[entry(1, 4), bait, entry(3, 4)]).unwrap();
    drop(outbox);
    let path = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let (_, first) = record::at(&bytes, segment::HEADER_BYTES).unwrap();
    bytes[first.end] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(sequences(&open(dir.path())), [1, 3]);
}

#[test]
fn what_a_failed_sync_left_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(&entries([1])).unwrap();
    let path = segments(dir.path()).remove(0);
    lock(&outbox.0.writer).fail_next_sync = true;
    assert!(matches!(outbox.append(&entries([2])), Err(AppendError::Io(_))));
    assert_eq!(sequences(&outbox), [1]);
    // The disk may keep what was cut back: play that with a record of the same segment.
    let mut bytes = fs::read(&path).unwrap();
    let (head, _) = record::at(&bytes, segment::HEADER_BYTES).unwrap();
    record::put(&mut bytes, head.seed, 2, &entry(2, 20), None).unwrap();
    outbox.append(&entries([3])).unwrap();
    assert_eq!(segments(dir.path()).len(), 2, "a new segment begins after a failed sync");
    drop(outbox);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(sequences(&open(dir.path())), [1, 3]);
}

#[test]
fn a_failed_first_write_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    lock(&outbox.0.writer).fail_next_sync = true;
    assert!(outbox.append(&entries([1])).is_err());
    assert_eq!(directory::names(&dir.path().join("outbox")).unwrap(), ["settled"]);
    outbox.append(&entries([2])).unwrap();
    assert_eq!(sequences(&outbox), [2]);
}

#[test]
fn a_newer_format_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut bytes, _) = written(dir.path(), &Keyring::none(), 2);
    bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&(!2u32).to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let refused = Outbox::open(&dir.path().join("outbox"), LIMITS, &Keyring::none());
    assert!(matches!(refused, Err(OpenError::Newer { found: 2, .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_file_of_garbage_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _, _) = written(dir.path(), &Keyring::none(), 2);
    fs::write(&path, vec![0x5a; 5_000]).unwrap();
    let outbox = open(dir.path());
    assert!(outbox.is_empty());
    let names = directory::names(&dir.path().join("outbox")).unwrap();
    assert!(names.iter().any(|name| name.starts_with("damaged-outbox-")), "{names:?}");
    outbox.append(&entries([3])).unwrap();
    assert_eq!(sequences(&outbox), [3]);
}

#[test]
fn a_damaged_note_repeats_events() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(&entries(1..=3)).unwrap();
    outbox.settle(read_all(&outbox)[1].0);
    drop(outbox);
    fs::write(dir.path().join("outbox/settled"), [0xff; 12]).unwrap();
    assert_eq!(sequences(&open(dir.path())), [1, 2, 3]);
}
