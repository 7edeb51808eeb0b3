//! Whatever is on the disk: never a panic, what is good is read, what is not is told.

use super::super::generation::Kind;
use super::super::testing::*;
use super::super::view::Source;
use super::super::*;
use super::life::{append, fill, packed};
use std::fs;
use std::path::PathBuf;

pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

#[test]
fn flips_cuts_and_zeroes_anywhere_are_survived() {
    survive_damage(&Keyring::none());
}

#[test]
fn the_same_where_everything_is_encrypted() {
    survive_damage(&Keyring::for_tests(&[1]));
}

fn survive_damage(keyring: &Keyring) {
    let source = tempfile::tempdir().unwrap();
    let small = |dir: &Path| LogOptions {
        max_bytes: 8 << 20,
        compress: false,
        keyring: keyring.clone(),
        ..options(dir)
    };
    let log = Log::open(small(source.path())).unwrap();
    let all = fill(&log, 6_000);
    packed(&log);
    drop(log);
    let names: Vec<_> = files(&source.path().join("log"))
        .into_iter()
        .map(|path| path.strip_prefix(source.path()).unwrap().to_owned())
        .filter(|path| !path.ends_with("LOCK"))
        .collect();
    assert!(names.len() >= 6, "{names:?}");
    // A long run takes other rounds: the seed follows from their number.
    let rounds = std::env::var("SIDEWIRE_DAMAGE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let mut state = 7 * rounds as u64;
    for round in 0..rounds * names.len() {
        let dir = tempfile::tempdir().unwrap();
        copy(source.path(), dir.path());
        fs::set_permissions(dir.path().join("log"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        let victim = dir.path().join(&names[round % names.len()]);
        let mut bytes = fs::read(&victim).unwrap();
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let at = (state >> 33) as usize % bytes.len().max(1);
        match round / names.len() % 3 {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << (state % 8),
            1 => bytes.truncate(at),
            _ => bytes.iter_mut().skip(at).take(4096).for_each(|byte| *byte = 0),
        }
        fs::write(&victim, &bytes).unwrap();
        let what = format!("round {round}: {} at {at} of {}", victim.display(), bytes.len());
        let _ = Log::verify(&dir.path().join("log"), keyring);
        let log = match Log::open(small(dir.path())) {
            Ok(log) => log,
            // The version of `meta` is the one thing that is rather believed.
            Err(OpenError::Newer { .. }) => continue,
            Err(error) => panic!("{what}: {error}"),
        };
        // Some may be missing; none may be wrong, twice, or out of order.
        let check = |log: &Log| {
            let read = read_all(log, &[">"]);
            let mut expected = all.iter();
            for event in &read {
                assert!(
                    expected.any(|other| other == event),
                    "{what}: position {} is wrong",
                    event.position.0
                );
            }
            if read.len() < all.len() {
                let resume = log.resume(&interest(&[">"]), &Cursor::at(log.epoch(), Position(1)));
                let mut lost = resume.status != ResumeStatus::Ok;
                let mut at = Position(1);
                while at < log.head() && !lost {
                    let budget = Budget { events: 1000, bytes: 1 << 20 };
                    let page = log
                        .read_after(&interest(&[">"]), &Filter::default(), at, log.head(), budget)
                        .unwrap();
                    lost |= page.lost;
                    at = page.reached;
                }
                // Lost behind the last event found, the epoch or the gap tells it.
                let tail = read.last().map(|event| event.position) < all.last().map(|event| event.position);
                assert!(lost || tail, "{what}: {} of {} and nobody is told", read.len(), all.len());
            }
        };
        check(&log);
        let later = event(log.next_position().0).channel("later").shared();
        append(&log, std::slice::from_ref(&later));
        assert_eq!(read_all(&log, &["later"]), [later]);
        drop(log);
        drop(Log::open(small(dir.path())).unwrap_or_else(|error| panic!("{what}, again: {error}")));
    }
}

#[test]
fn a_log_that_was_set_back_gets_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 1000);
    log.close();
    let (epoch, head) = (log.epoch(), log.head());
    drop(log);
    for path in files(&dir.path().join("log")) {
        if path.file_name().unwrap().to_string_lossy().starts_with("journal-") {
            fs::remove_file(path).unwrap();
        }
    }
    let log = open(dir.path());
    assert_ne!(log.epoch(), epoch);
    assert!(log.next_position() > head);
    let resume = log.resume(&interest(&[">"]), &Cursor::at(epoch, head));
    assert_eq!(resume.status, ResumeStatus::Reset);
    let epoch = log.epoch();
    drop(log);
    assert_eq!(open(dir.path()).epoch(), epoch);
}

#[test]
fn a_generation_that_vanished_is_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    let with = LogOptions { max_bytes: 16 << 20, compress: false, ..options(dir.path()) };
    let log = Log::open(with.clone()).unwrap();
    fill(&log, 30_000);
    packed(&log);
    let before = read_all(&log, &[">"]);
    assert!(log.stats().generations >= 3, "{:?}", log.stats());
    drop(log);
    let names: Vec<_> =
        fs::read_dir(dir.path().join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut generations: Vec<_> =
        names.iter().filter(|path| path.to_string_lossy().contains("generation-")).collect();
    generations.sort();
    fs::remove_dir_all(generations[1]).unwrap();
    let log = Log::open(with).unwrap();
    let after = read_all(&log, &[">"]);
    assert!(after.len() < before.len() && after.first() == before.first() && after.last() == before.last());
    let status = |position| log.resume(&interest(&["user.>"]), &Cursor::at(log.epoch(), position)).status;
    assert_eq!(status(before[3].position), ResumeStatus::Expired);
    assert_eq!(status(before[before.len() - 3].position), ResumeStatus::Ok);
    assert!(log.stats().damaged > 0);
}

#[test]
fn a_damaged_place_counts_once_however_often_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let with = LogOptions { max_bytes: 16 << 20, compress: false, ..options(dir.path()) };
    let log = Log::open(with.clone()).unwrap();
    fill(&log, 30_000);
    packed(&log);
    let view = log.shared().view();
    let Some(Source::Packed(part)) = view.sources.first() else { panic!("nothing is packed") };
    part.generation
        .put(part.fold.first.0, [(Kind::Block, 0, &b"damaged"[..]), (Kind::Block, 1, b"damaged")].into_iter())
        .unwrap();
    for _ in 0..3 {
        log.shared().blocks.clear();
        assert!(read_all(&log, &[">"]).len() < 30_000);
        assert_eq!(log.stats().damaged, 2);
    }
    let second = view.generations[1].path().to_owned();
    drop((view, log));
    // Put aside at the start, and missing before what follows: one place all the same.
    fs::write(second.join("folds"), "damaged").unwrap();
    let stats = Log::open(with).unwrap().stats();
    assert_eq!((stats.quarantined, stats.damaged), (1, 0), "{stats:?}");
}
