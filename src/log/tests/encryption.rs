//! Encrypted on the disk: nothing shows, nothing can be exchanged, keys come and go, and without a key nothing is
//! touched.

use super::super::generation::Kind;
use super::super::testing::*;
use super::super::view::Source;
use super::super::*;
use super::damage::files;
use super::life::{append, fill, packed};
use std::fs;
use std::path::PathBuf;

const MARK: &str = "geheim-17";

fn with(dir: &Path, keyring: &Keyring) -> LogOptions {
    // Small, so that several generations come about.
    LogOptions { max_bytes: 16 << 20, keyring: keyring.clone(), ..options(dir) }
}

/// Events with the mark in every field that a publisher can fill.
fn marked(log: &Log, count: u64) -> Vec<Arc<Event>> {
    let first = log.next_position().0;
    let group: Vec<_> = (first..first + count)
        .map(|position| {
            event(position)
                .id(&format!("{MARK}-id-{position}"))
                .channel(&format!("{MARK}.channel"))
                .name(&format!("{MARK}-name"))
                .tag(&format!("{MARK}-tag"), MARK)
                .json(&format!("{{\"text\":\"{MARK}\",\"n\":{position}}}"))
                .shared()
        })
        .collect();
    append(log, &group);
    group
}

fn shows(dir: &Path) -> Vec<PathBuf> {
    let has_mark =
        |path: &PathBuf| fs::read(path).unwrap().windows(MARK.len()).any(|bytes| bytes == MARK.as_bytes());
    files(dir).into_iter().filter(has_mark).collect()
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn keys(dir: &Path) -> Vec<Option<KeyId>> {
    Log::key_uses(&dir.join("log")).unwrap().into_iter().map(|used| used.key).collect()
}

#[test]
fn nothing_shows_on_the_disk_and_everything_comes_back() {
    // Uncompressed, so that what is not encrypted would show.
    let dir = tempfile::tempdir().unwrap();
    let plain = tempfile::tempdir().unwrap();
    let keyring = Keyring::for_tests(&[1]);
    let open = |dir: &Path, keyring: &Keyring| {
        Log::open(LogOptions { compress: false, ..with(dir, keyring) }).unwrap()
    };
    let (log, control) = (open(dir.path(), &keyring), open(plain.path(), &Keyring::none()));
    for log in [&log, &control] {
        marked(log, 2_000);
        fill(log, 3_000);
        packed(log);
        log.delete(None, Some(&interest(&[&format!("{MARK}.other"), "user.1.x"]))).unwrap();
    }
    let events = marked(&log, 100);
    marked(&control, 100);
    assert_eq!(shows(dir.path()), Vec::<PathBuf>::new());
    assert!(shows(plain.path()).len() >= 2, "the control shows it: {:?}", shows(plain.path()));
    let before = read_all(&log, &[">"]);
    let id = EventId::parse(&format!("{MARK}-id-{}", events[7].position.0)).unwrap();
    drop(log);
    let log = open(dir.path(), &keyring);
    assert_eq!(read_all(&log, &[">"]), before);
    assert_eq!(log.known_id(&id), Some(events[7].position));
    packed(&log);
    log.close();
    drop(log);
    assert_eq!(shows(dir.path()), Vec::<PathBuf>::new());
    let report = Log::verify(&dir.path().join("log"), &keyring).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let mut exported = 0;
    Log::export(&dir.path().join("log"), &keyring, &mut |_, _| {
        exported += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(exported, before.len());
    assert_eq!(keys(dir.path()), [keyring.current()]);
}

#[test]
fn without_the_right_key_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let keyring = Keyring::for_tests(&[1]);
    let log = Log::open(with(dir.path(), &keyring)).unwrap();
    let mut all = fill(&log, 5_000);
    packed(&log);
    all.extend(marked(&log, 10));
    drop(log);
    let before = contents(dir.path());
    let key = keyring.current().unwrap();
    for wrong in [Keyring::none(), Keyring::for_tests(&[2, 3])] {
        let path = dir.path().join("log");
        for refused in [
            Log::open(with(dir.path(), &wrong)).err(),
            Log::verify(&path, &wrong).err(),
            Log::inspect(&path, &wrong).err(),
        ] {
            let Some(OpenError::KeyMissing { error, .. }) = &refused else { panic!("{refused:?}") };
            assert_eq!(error.wanted, key);
            let words = refused.unwrap().to_string();
            assert!(words.contains(&key.to_string()) && words.contains("log/"), "{words}");
        }
        assert!(matches!(
            Log::export(&path, &wrong, &mut |_, _| Ok(())),
            Err(ExportError::Open(OpenError::KeyMissing { .. }))
        ));
        assert!(contents(dir.path()) == before, "something was changed");
    }
    assert_eq!(read_all(&Log::open(with(dir.path(), &keyring)).unwrap(), &[">"]), all);
}

#[test]
fn encryption_is_switched_on_rotated_and_off_again() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Keyring::for_tests(&[1]), Keyring::for_tests(&[2, 1]));
    let mut all = Vec::new();
    for (round, keyring) in
        [&Keyring::none(), &first, &second, &Keyring::only_decrypting(&[1, 2])].into_iter().enumerate()
    {
        let log = Log::open(with(dir.path(), keyring)).unwrap();
        assert_eq!(read_all(&log, &[">"]), all, "round {round}");
        all.extend(fill(&log, 3_000));
        if round != 1 {
            packed(&log);
        }
        all.extend(marked(&log, 10));
        assert_eq!(read_all(&log, &[">"]), all, "round {round}");
        drop(log);
    }
    let both = [None, first.current(), second.current()];
    let found = keys(dir.path());
    assert!(both.iter().all(|key| found.contains(key)), "{found:?}");
    let retired = Log::open(with(dir.path(), &Keyring::for_tests(&[2])));
    assert!(matches!(retired, Err(OpenError::KeyMissing { .. })), "the first key is still needed");
    drop(retired);
    let log = Log::open(with(dir.path(), &second)).unwrap();
    assert!(log.packed_with(first.current().unwrap()) > 0);
    // What needs it goes by expiry, or by being written anew.
    log.delete(None, None).unwrap();
    wait_for("the old key to be free", || log.packed_with(first.current().unwrap()) == 0);
    let later = marked(&log, 10);
    wait_for("the old journals to be packed", || log.stats().folds_waiting == 0);
    drop(log);
    let log = Log::open(with(dir.path(), &Keyring::for_tests(&[2]))).unwrap();
    assert_eq!(read_all(&log, &[">"]), later);
}

#[test]
fn a_key_that_changes_while_it_runs_begins_a_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let write = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    write(&"11".repeat(32));
    let keyring = Keyring::load(&path).unwrap();
    let first = keyring.current();
    let log = Log::open(with(dir.path(), &keyring)).unwrap();
    let mut all = marked(&log, 10);
    write(&format!("{}\n{}", "22".repeat(32), "11".repeat(32)));
    keyring.reload().unwrap();
    all.extend(marked(&log, 10));
    assert_eq!(read_all(&log, &[">"]), all);
    packed(&log);
    drop(log);
    // The sealed journal was packed with the new key already.
    assert_ne!(keyring.current(), first);
    assert_eq!(keys(dir.path()), [keyring.current()]);
    assert_eq!(read_all(&Log::open(with(dir.path(), &keyring)).unwrap(), &[">"]), all);
}

#[test]
fn values_that_changed_places_are_damage_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let keyring = Keyring::for_tests(&[1]);
    let log = Log::open(with(dir.path(), &keyring)).unwrap();
    let all = fill(&log, 30_000);
    packed(&log);
    let view = log.shared().view();
    let parts: Vec<_> = view
        .sources
        .iter()
        .filter_map(|source| match source {
            Source::Packed(packed) => Some(packed.clone()),
            Source::Memory(_) => None,
        })
        .collect();
    assert!(parts.len() >= 2 && parts[0].fold.blocks > 4);
    let [one, two] = [&parts[0], &parts[1]];
    let value = |part: &packed::PackedFold, number| {
        part.generation.get(part.fold.first.0, Kind::Block, number).unwrap().unwrap()
    };
    // Two blocks of a fold exchanged, one of another fold put into it, and one with a bit flipped: sled and its
    // checksums see nothing wrong in any of it.
    let (a, b, foreign, mut flipped) = (value(one, 0), value(one, 1), value(two, 2), value(one, 3));
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let forged = [(0, &b), (1, &a), (2, &foreign), (3, &flipped)];
    one.generation
        .put(one.fold.first.0, forged.iter().map(|(number, bytes)| (Kind::Block, *number, &bytes[..])))
        .unwrap();
    log.shared().blocks.clear();
    let read = read_all(&log, &[">"]);
    assert_eq!(log.stats().damaged, 4);
    assert!(read.len() < all.len() && read.len() > all.len() - 1_000, "{} of {}", read.len(), all.len());
    let mut expected = all.iter();
    assert!(
        read.iter().all(|event| expected.any(|other| other == event)),
        "nothing is read that was not there"
    );
    let budget = Budget { events: 1000, bytes: 1 << 20 };
    let first =
        log.read_after(&interest(&[">"]), &Filter::default(), Position(1), log.head(), budget).unwrap();
    assert!(first.lost, "and the reader is told");
    drop((view, parts, log));
    let report = Log::verify(&dir.path().join("log"), &keyring).unwrap();
    assert_eq!(report.problems.iter().filter(|problem| problem.contains("block")).count(), 4, "{report:?}");
}
