//! The log under `kill -9`, after a power cut and on a disk that is full: the test runs itself again as the victim.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "log_crash/power_cut.rs"]
mod power_cut;

use sidewire::cipher::Keyring;
use sidewire::event::{
    Channel, Cursor, Data, Event, EventId, EventName, Expiry, Filter, Interest, Json, Pattern, Position, Tags,
};
use sidewire::log::{AppendError, Budget, Log, LogOptions, ResumeStatus};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Set for the process that plays the victim: the directory of its log.
const VICTIM: &str = "SIDEWIRE_LOG_CRASH_DIR";
/// The name of a log directory on a disk that is small.
const SMALL_DISK: &str = "small-disk";
const ROUNDS: u64 = 40;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Most events are deleted again, so that generations are rewritten between two kills.
fn is_trash(position: u64) -> bool {
    position % 10 >= 4
}

/// An event whose contents follow from its position.
fn event(position: u64) -> Arc<Event> {
    Arc::new(Event {
        position: Position(position),
        id: EventId::parse(&format!("id-{position}")).unwrap(),
        id_given: position.is_multiple_of(2),
        channel: Channel::parse(&format!(
            "{}.{}",
            if is_trash(position) { "trash" } else { "c" },
            position % 10
        ))
        .unwrap(),
        name: EventName::default(),
        data: Data::Json(Json::parse(&format!("\"{}\"", "x".repeat((position * 7 % 900) as usize))).unwrap()),
        time: now(),
        tags: Tags::default(),
        expiry: Expiry::At(now() + 3_600_000),
        exclude: None,
        from: None,
        way: None,
    })
}

fn options(dir: &Path) -> LogOptions {
    // Small, so that packing, new generations and expiry all happen between two kills.
    LogOptions { max_bytes: 8 << 20, compress: false, keyring: keyring(dir), ..LogOptions::new(dir) }
}

/// The keys of a log, which stand beside its directory if it is encrypted.
fn keyring(dir: &Path) -> Keyring {
    let path = dir.with_file_name("keys");
    if path.exists() { Keyring::load(&path).unwrap() } else { Keyring::none() }
}

/// Makes a key for the logs in a directory.
fn make_key(dir: &Path) {
    let path = dir.join("keys");
    std::fs::write(&path, "5a".repeat(32)).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// Runs one test of this file in a process of its own.
fn spawn(test: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(VICTIM, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Appends for ever and says what is durable.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let dir = Path::new(&dir);
    let log = Log::open(options(dir)).unwrap();
    println!("opened {}", log.head().0);
    let mut groups = 0u64;
    loop {
        let first = log.next_position().0;
        let group: Vec<_> = (0..1 + groups * 13 % 60).map(|n| event(first + n)).collect();
        match log.append(&group) {
            Ok(()) => println!("shown {}", log.head().0),
            // The pace of a load: the log has more to do than it takes on.
            Err(AppendError::Behind) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
        groups += 1;
        if groups.is_multiple_of(50) {
            let trash = Interest::new([Pattern::parse("trash.>").unwrap()]);
            log.delete(None, Some(&trash)).unwrap();
        }
        if groups.is_multiple_of(5) {
            let durable = log.sync().unwrap().0;
            // Nothing was appended since: what is in the journals now is what was synced.
            println!("durable {durable}{}", journals(dir));
        }
    }
}

/// The journals and their lengths.
fn journals(dir: &Path) -> String {
    let length = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok().filter(|name| name.starts_with("journal-"))?;
        // One that was packed meanwhile is gone.
        Some(format!(" {name}:{}", entry.metadata().ok()?.len()))
    };
    std::fs::read_dir(dir).unwrap().flatten().filter_map(length).collect()
}

#[test]
fn kills_at_any_time_lose_nothing_that_was_shown() {
    if std::env::var_os(VICTIM).is_none() {
        kill_at_any_time(&tempfile::tempdir().unwrap());
    }
}

#[test]
fn kills_of_an_encrypted_log_lose_nothing_that_was_shown() {
    if std::env::var_os(VICTIM).is_none() {
        let dir = tempfile::tempdir().unwrap();
        make_key(dir.path());
        kill_at_any_time(&dir);
    }
}

fn kill_at_any_time(dir: &tempfile::TempDir) {
    let dir = dir.path().join("log");
    let interest = Interest::new([Pattern::parse("c.*").unwrap()]);
    let (mut shown, mut state, mut epoch, mut packed, mut rewritten) = (0u64, 99u64, None, false, false);
    for round in 0..ROUNDS {
        let mut child = spawn("victim", &dir);
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        // Some die while they start.
        let life = Duration::from_millis(if round.is_multiple_of(4) {
            (state >> 33) % 40
        } else {
            (state >> 33) % 500
        });
        let killer = {
            let id = child.id();
            std::thread::spawn(move || {
                std::thread::sleep(life);
                let pid = rustix::process::Pid::from_raw(id as i32).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            })
        };
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let mut words = line.split(' ');
            if let (Some("shown" | "durable"), Some(position)) = (words.next(), words.next()) {
                // A line may be cut by the kill: digits may be missing at its end.
                let position: u64 = position.parse().unwrap_or(0);
                shown = shown.max(position);
            }
        }
        killer.join().unwrap();
        child.wait().unwrap();

        let log = Log::open(options(&dir)).unwrap();
        assert_eq!(*epoch.get_or_insert(log.epoch()), log.epoch(), "round {round}");
        assert!(log.head().0 >= shown, "round {round}: {} shown, head {}", shown, log.head().0);
        shown = log.head().0;
        // The start packs what it finds, and may expire the oldest part while this reads: then once more.
        let deadline = Instant::now() + Duration::from_secs(30);
        let last = loop {
            let oldest = log.stats().oldest;
            let read = read_everything(&log, oldest.unwrap_or(log.head()), &interest);
            match read {
                Some(last) => break last,
                None => {
                    assert!(log.stats().oldest != oldest, "round {round}: something is lost");
                    assert!(Instant::now() < deadline);
                }
            }
        };
        assert!(last.is_none_or(|last| (last + 1..=shown).all(is_trash)), "round {round}");
        packed |= log.stats().generations > 0;
        let mut names = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
        // The name of a rewritten generation has a version.
        rewritten |= names.any(|name| {
            name.to_string_lossy().starts_with("generation-0") && name.to_string_lossy().contains('.')
        });
        if shown.is_multiple_of(2) && shown > 0 {
            assert_eq!(log.known_id(&EventId::parse(&format!("id-{shown}")).unwrap()), Some(Position(shown)));
        }
    }
    assert!(packed && rewritten && shown > 0, "{packed} {rewritten}");
    let report = Log::verify(&dir, &keyring(&dir)).unwrap();
    assert!(
        report.problems.iter().all(|problem| problem.contains("torn") || problem.contains("middle")),
        "{report:?}"
    );
}

/// Reads and checks all events after a position and says which was the last; none if some are lost.
fn read_everything(log: &Log, oldest: Position, interest: &Interest) -> Option<Option<u64>> {
    let cursor = Cursor::at(log.epoch(), oldest);
    if log.resume(interest, &cursor).status != ResumeStatus::Ok {
        return None;
    }
    let mut at = oldest;
    let mut last = None;
    while at < log.head() {
        let budget = Budget { events: 1000, bytes: 4 << 20 };
        let page = log.read_after(interest, &Filter::default(), at, log.head(), budget).unwrap();
        if page.lost {
            return None;
        }
        for found in page.events {
            let expected = event(found.position.0);
            assert_eq!(
                (&found.id, &found.channel, &found.data),
                (&expected.id, &expected.channel, &expected.data)
            );
            // Within one life positions have no gaps; a restart leaves a large one.
            if let Some(last) = last {
                let is_restart = found.position.0 - last >= 1 << 20;
                let mut between = last + 1..found.position.0;
                assert!(is_restart || between.all(is_trash), "{last} then {}", found.position.0);
            }
            last = Some(found.position.0);
        }
        at = page.reached;
    }
    Some(last)
}

/// Fills a disk (or what a file-size limit makes of one), and goes on when there is room.
#[test]
fn full_disk_victim() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let dir = Path::new(&dir);
    let is_small_disk = dir.to_string_lossy().ends_with(SMALL_DISK);
    let filler = dir.with_file_name("filler");
    let mut options = options(dir);
    if is_small_disk {
        options.max_bytes = 64 << 20;
        std::fs::write(&filler, vec![1; 12 << 20]).unwrap();
    } else {
        // Journals grow to 512 kB: the limit strikes sled's file, and a group that is larger than the rest.
        limit_file_size(Some(600 << 10));
    }
    let log = Log::open(options).unwrap();
    let mut kept = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut refused = 0;
    while refused < 20 {
        assert!(Instant::now() < deadline);
        let first = log.next_position().0;
        let group: Vec<_> = (0..400).map(|n| event(first + n)).collect();
        match log.append(&group) {
            Ok(()) => kept.extend(group.iter().map(|event| event.position)),
            Err(AppendError::Full | AppendError::Behind) => {
                refused += 1;
                // The pace of the load, so that the refusals are not all of one moment.
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    }
    let all = |log: &Log| {
        let interest = Interest::new([Pattern::parse(">").unwrap()]);
        let mut found = Vec::new();
        let mut at = Position::ZERO;
        while at < log.head() {
            let budget = Budget { events: 1000, bytes: 4 << 20 };
            let page = log.read_after(&interest, &Filter::default(), at, log.head(), budget).unwrap();
            found.extend(page.events.iter().map(|event| event.position));
            at = page.reached;
        }
        found
    };
    assert_eq!(all(&log), kept, "reads go on, and nothing refused is shown");
    if is_small_disk {
        let gone = Interest::new([Pattern::parse("c.1").unwrap()]);
        assert!(log.delete(None, Some(&gone)).unwrap() > 0, "deletions too");
        kept.retain(|position| position.0 % 10 != 1);
        assert_eq!(all(&log), kept);
    }
    if is_small_disk {
        std::fs::remove_file(&filler).unwrap();
    } else {
        limit_file_size(None);
    }
    let later = loop {
        assert!(Instant::now() < deadline);
        let later = event(log.next_position().0);
        match log.append(std::slice::from_ref(&later)) {
            Ok(()) => break later,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    kept.push(later.position);
    while log.stats().folds_waiting > 0 {
        assert!(Instant::now() < deadline, "{:?}", log.stats());
        std::thread::sleep(Duration::from_millis(20));
    }
    let found = all(&log);
    assert!(kept.ends_with(&found) && found.len() > kept.len() / 2, "{} of {}", found.len(), kept.len());
    log.sync().unwrap();
    drop(log);
    println!("recovered");
}

/// A write beyond the limit is an error and not a signal only if the signal is ignored, which is inherited from
/// the shell that starts us.
fn limit_file_size(bytes: Option<u64>) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    assert!(u64::from_str_radix(ignored, 16).unwrap() & (1 << (25 - 1)) != 0, "SIGXFSZ is not ignored");
    let limit = rustix::process::Rlimit { current: bytes, maximum: None };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
}

fn run_full_disk_victim(dir: &Path) {
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" full_disk_victim --exact --nocapture --test-threads=1"])
        .arg(std::env::current_exe().unwrap())
        .env(VICTIM, dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("recovered"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_file_size_limit_refuses_and_recovers() {
    if std::env::var_os(VICTIM).is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run_full_disk_victim(&dir.path().join("log"));
}

/// Only root may mount. For others a limit on the size of files, which the victim fails without, plays the
/// disk: one of the two is always tested.
#[test]
fn a_full_disk_refuses_and_recovers() {
    if std::env::var_os(VICTIM).is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
        .arg(dir.path())
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("no disk can be mounted here: a file-size limit plays it");
        return run_full_disk_victim(&dir.path().join("log"));
    }
    let ran = std::panic::catch_unwind(|| run_full_disk_victim(&dir.path().join(SMALL_DISK)));
    Command::new("umount").arg(dir.path()).status().unwrap();
    ran.unwrap();
}
