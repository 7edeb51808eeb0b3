//! Encrypted on the disk.

use super::*;
use std::fs;

const MARK: &str = "geheim-17";

fn marked(sequence: u64) -> Entry {
    let mut entry = entry(sequence, 0);
    let mut event = Event::clone(&entry.event);
    event.data = Data::Json(Json::string(MARK));
    event.channel = Channel::parse(&format!("{MARK}.a")).unwrap();
    event.id = EventId::parse(&format!("{MARK}-{sequence}")).unwrap();
    entry.event = Arc::new(event);
    entry
}

fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let dir = dir.join("outbox");
    let mut names = directory::names(&dir).unwrap();
    names.sort();
    names.into_iter().map(|name| (name.clone(), fs::read(dir.join(name)).unwrap())).collect()
}

fn shows(dir: &Path) -> bool {
    contents(dir).iter().any(|(_, bytes)| bytes.windows(MARK.len()).any(|part| part == MARK.as_bytes()))
}

fn rejected(dir: &Path, keyring: &Keyring) -> Result<Vec<serde_json::Value>, RejectedError> {
    let mut lines = Vec::new();
    Outbox::rejected(&dir.join("outbox"), keyring, &mut |line| {
        lines.push(serde_json::from_str(line).unwrap());
        Ok(())
    })?;
    Ok(lines)
}

#[test]
fn nothing_shows_and_everything_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let keyring = Keyring::for_tests(&[1]);
    let sent: Vec<_> = (1..=20).map(marked).collect();
    let outbox = open_with(dir.path(), &keyring);
    outbox.append(&sent[..10]).unwrap();
    outbox.append(&sent[10..]).unwrap();
    let number = read_all(&outbox)[0].0;
    outbox.reject(number, "too large").unwrap();
    std::mem::forget(outbox);
    assert!(!shows(dir.path()));
    let outbox = open_with(dir.path(), &keyring);
    assert!(read_all(&outbox).into_iter().map(|(_, entry)| entry).eq(sent[1..].iter().cloned()));
    let refused = rejected(dir.path(), &keyring).unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!((&refused[0]["data"], &refused[0]["why"]), (&MARK.into(), &"too large".into()));
    let sought = outbox.seek(&sent[0].event.id).unwrap();
    assert_eq!((sought.waiting.len(), &*sought.refused[0].why), (0, "too large"));
    // Without the key it says as much as is good for everybody.
    let file = fs::read_to_string(dir.path().join("outbox/rejected.ndjson")).unwrap();
    let line: serde_json::Value = serde_json::from_str(&file).unwrap();
    assert_eq!((&line["why"], &line["time"]), (&"too large".into(), &sent[0].event.time.into()));
    let without = rejected(dir.path(), &Keyring::none());
    assert!(matches!(without, Err(RejectedError::KeyMissing { .. })), "{without:?}");
    let uses = Outbox::key_uses(&dir.path().join("outbox")).unwrap();
    let names: Vec<_> = uses[&keyring.current().unwrap()].iter().map(|name| &name[..7]).collect();
    assert_eq!(names, ["outbox-", "rejecte"]);
}

#[test]
fn without_the_right_key_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let keyring = Keyring::for_tests(&[1]);
    let outbox = open_with(dir.path(), &keyring);
    outbox.append(&entries(1..=5)).unwrap();
    drop(outbox);
    let before = contents(dir.path());
    for wrong in [Keyring::none(), Keyring::for_tests(&[2])] {
        let refused = Outbox::open(&dir.path().join("outbox"), LIMITS, &wrong);
        let Err(OpenError::KeyMissing { error, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(Some(error.wanted), keyring.current());
        assert_eq!(contents(dir.path()), before);
    }
    assert_eq!(sequences(&open_with(dir.path(), &keyring)), [1, 2, 3, 4, 5]);
}

#[test]
fn a_new_key_begins_a_segment_and_the_old_one_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let write = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    let (old, new) = ("11".repeat(32), "22".repeat(32));
    open(dir.path()).append(&entries(1..=2)).unwrap();
    write(&old);
    let keyring = Keyring::load(&path).unwrap();
    let outbox = open_with(dir.path(), &keyring);
    outbox.append(&entries(3..=4)).unwrap();
    write(&format!("{new}\n{old}"));
    keyring.reload().unwrap();
    outbox.append(&entries(5..=6)).unwrap();
    write(&format!("none\n{new}\n{old}"));
    keyring.reload().unwrap();
    outbox.append(&entries(7..=8)).unwrap();
    assert_eq!(segments(dir.path()).len(), 4);
    drop(outbox);
    assert_eq!(sequences(&open_with(dir.path(), &keyring)), (1..=8).collect::<Vec<_>>());
}

#[test]
fn records_that_changed_places_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let keyring = Keyring::for_tests(&[1]);
    let outbox = open_with(dir.path(), &keyring);
    // Of one length, so that a body fits the head of another.
    for sequence in [2, 4, 6] {
        outbox.append(&[entry(sequence, 20)]).unwrap();
    }
    drop(outbox);
    let path = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let (_, first) = record::at(&bytes, segment::HEADER_BYTES).unwrap();
    let (_, second) = record::at(&bytes, first.end).unwrap();
    assert_eq!(first.len(), second.len());
    let body = bytes[second.start + record::HEAD_BYTES..second.end].to_vec();
    bytes[first.start + record::HEAD_BYTES..first.end].copy_from_slice(&body);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[first.start + 4..first.start + 12]);
    hasher.update(&bytes[first.start + 16..first.end]);
    bytes[first.start + 12..first.start + 16].copy_from_slice(&hasher.finalize().to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let outbox = open_with(dir.path(), &keyring);
    assert_eq!(outbox.status().events, 3, "its checksum is right");
    assert_eq!(sequences(&outbox), [4, 6]);
    let refused = rejected(dir.path(), &keyring).unwrap();
    assert!(refused[0]["why"].as_str().unwrap().contains("not what was encrypted"), "{refused:?}");
}
