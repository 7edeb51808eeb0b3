//! The log after a power cut. The victim is stopped at a random moment and its directory copied. Of what it
//! appended to its journals since their last sync, the copy then keeps nothing, a part of it, or everything, as a
//! disk would. What sled writes is left as it was: a fold counts only once that is on the disk.

use super::{event, is_trash, now, options, spawn};
use sidewire::event::{Epoch, Event, Filter, Interest, Pattern, Position};
use sidewire::log::{AppendError, Budget, Log, OpenError};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PAGE_BYTES: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(30);

/// What the victim has said so far.
#[derive(Clone, Default)]
struct Said {
    /// Everything up to here was appended, and may have been shown to somebody.
    shown: u64,
    /// Everything up to here is durable, and may have been acknowledged.
    durable: u64,
    /// Up to where its journals are durable, by name.
    journals: HashMap<String, u64>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (kind, position) = (words.next(), words.next().and_then(|word| word.parse().ok()));
        match (kind, position) {
            (Some("shown"), Some(position)) => self.shown = position,
            (Some("durable"), Some(position)) => {
                self.durable = position;
                let lengths = words.filter_map(|word| word.split_once(':'));
                self.journals =
                    lengths.map(|(name, length)| (name.to_owned(), length.parse().unwrap())).collect();
            }
            _ => {}
        }
    }
}

/// What the disk has kept of what was not durable.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Nothing,
    /// Up to a random length.
    Begin,
    /// Random pages; the others are zeros.
    Pages,
    Everything,
}

/// `SIDEWIRE_TEST_POWER_CUTS` sets how often the power is cut.
#[test]
fn power_cuts_lose_nothing_that_was_durable() {
    if std::env::var_os(super::VICTIM).is_none() {
        cut_power(&tempfile::tempdir().unwrap());
    }
}

#[test]
fn power_cuts_of_an_encrypted_log_lose_nothing_that_was_durable() {
    if std::env::var_os(super::VICTIM).is_none() {
        let directory = tempfile::tempdir().unwrap();
        super::make_key(directory.path());
        cut_power(&directory);
    }
}

fn cut_power(directory: &tempfile::TempDir) {
    let cuts = std::env::var("SIDEWIRE_TEST_POWER_CUTS").map_or(10, |text| text.parse().unwrap());
    let seed = std::env::var("SIDEWIRE_TEST_SEED").map_or_else(|_| now(), |text| text.parse().unwrap());
    println!("SIDEWIRE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let live = directory.path().join("live");
    let said = Arc::<Mutex<Said>>::default();
    let victim = Victim::start(&live, said.clone());
    wait_for("the first sync", || said.lock().unwrap().durable > 0);
    let (mut epoch, mut lossy) = (None, 0);
    for cut in 0..cuts {
        // The moment is the point of the test.
        std::thread::sleep(Duration::from_millis(random.u64(0..120)));
        victim.stop();
        // Whatever the victim had said before it was stopped held then.
        let said = said.lock().unwrap().clone();
        let copy = directory.path().join("copy");
        copy_directory(&live, &copy);
        victim.go_on();
        for kept in [Kept::Nothing, Kept::Begin, Kept::Pages, Kept::Everything] {
            let image = directory.path().join("image");
            copy_directory(&copy, &image);
            lossy += cut_journals(&image, &said.journals, kept, &mut random);
            check(&image, &said, &mut epoch, &format!("cut {cut}, {kept:?}"));
            fs::remove_dir_all(&image).unwrap();
        }
        fs::remove_dir_all(&copy).unwrap();
    }
    assert!(lossy > 0, "no cut has cost anything");
}

/// The process that appends. Killed when it is dropped.
struct Victim {
    child: Child,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Victim {
    fn start(dir: &Path, said: Arc<Mutex<Said>>) -> Self {
        let mut child = spawn("victim", dir);
        let output: ChildStdout = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                said.lock().unwrap().hear(&line);
            }
        });
        Self { child, reader: Some(reader) }
    }

    /// Returns when no thread of it runs any more.
    fn stop(&self) {
        self.signal(rustix::process::Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        wait_for("the victim to stand still", || {
            fs::read_dir(&tasks).unwrap().flatten().all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                // A thread that has ended meanwhile stands still, too.
                stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
            })
        });
    }

    fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_directory(&path, &target);
        } else if path.file_name().is_some_and(|name| name != "reserve") {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// Takes from the journals what a disk may not have; says how many of them have lost something.
fn cut_journals(
    image: &Path,
    durable: &HashMap<String, u64>,
    kept: Kept,
    random: &mut fastrand::Rng,
) -> usize {
    let mut lossy = 0;
    for entry in fs::read_dir(image).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("journal-") {
            continue;
        }
        let file = File::options().write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        let durable = durable.get(&name).copied().unwrap_or(0).min(length);
        match kept {
            Kept::Everything => continue,
            // Not even its name, if that was never synced.
            Kept::Nothing if durable == 0 => fs::remove_file(&path).unwrap(),
            Kept::Nothing => file.set_len(durable).unwrap(),
            Kept::Begin => file.set_len(random.u64(durable..=length)).unwrap(),
            Kept::Pages => {
                let mut at = durable;
                while at < length {
                    let end = (at / PAGE_BYTES + 1) * PAGE_BYTES;
                    if random.bool() {
                        file.write_all_at(&vec![0; (end.min(length) - at) as usize], at).unwrap();
                    }
                    at = end;
                }
            }
        }
        lossy += usize::from(durable < length);
    }
    lossy
}

fn check(image: &Path, said: &Said, epoch: &mut Option<Epoch>, what: &str) {
    let log = Log::open(options(image)).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(*epoch.get_or_insert(log.epoch()), log.epoch(), "{what}");
    assert!(log.next_position().0 > said.shown, "{what}: a position would be given twice");
    assert!(log.head().0 >= said.durable, "{what}: {} durable, head {}", said.durable, log.head().0);
    let durable = Position(said.durable);
    // The start may expire the oldest part while this reads: then once more.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let oldest = log.stats().oldest.unwrap_or(durable);
        let (found, lost) = read(&log, oldest, durable.max(oldest), what);
        let expected: Vec<u64> = (oldest.0 + 1..=durable.0).filter(|position| !is_trash(*position)).collect();
        if !lost && found == expected {
            for position in found.into_iter().filter(|position| position.is_multiple_of(2)) {
                let known = log.known_id(&event(position).id);
                assert_eq!(known, Some(Position(position)), "{what}: a retry would be published twice");
            }
            break;
        }
        let now = log.stats().oldest.unwrap_or(durable);
        assert!(now > oldest, "{what}: something durable is lost: {} of {}", found.len(), expected.len());
        assert!(Instant::now() < deadline, "{what}");
    }
    // Behind that anything may be missing, and nothing may be wrong.
    read(&log, durable, log.head(), what);
    let later = event(log.next_position().0);
    // What the start has found may have to be packed first.
    wait_for("room in the log", || match log.append(std::slice::from_ref(&later)) {
        Ok(()) => true,
        Err(AppendError::Behind) => false,
        Err(error) => panic!("{what}: {error}"),
    });
    log.sync().unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(log);
    let log = open_again(image, what);
    assert_eq!(log.head(), later.position, "{what}");
    let found = log.find(later.position).unwrap().unwrap_or_else(|| panic!("{what}: nothing is appended"));
    assert!(is_same(&found, &later), "{what}");
}

/// Opens it once more. A victim that another test starts at this moment has the lock of this process for as long as
/// it takes to become a program of its own.
fn open_again(image: &Path, what: &str) -> Log {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Log::open(options(image)) {
            Err(OpenError::Locked(_)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1))
            }
            opened => return opened.unwrap_or_else(|error| panic!("{what}, again: {error}")),
        }
    }
}

/// Reads and checks the events in `(after, up_to]`: their positions, and whether the log says that some are lost.
fn read(log: &Log, after: Position, up_to: Position, what: &str) -> (Vec<u64>, bool) {
    let interest = Interest::new([Pattern::parse("c.*").unwrap()]);
    let (mut found, mut lost, mut at) = (Vec::new(), false, after);
    while at < up_to {
        let budget = Budget { events: 1000, bytes: 4 << 20 };
        let page = log.read_after(&interest, &Filter::default(), at, up_to, budget).unwrap();
        lost |= page.lost;
        for event in page.events {
            let position = event.position.0;
            assert!(found.last().is_none_or(|last| *last < position), "{what}: out of order");
            assert!(is_same(&event, &super::event(position)), "{what}: position {position} is wrong");
            found.push(position);
        }
        at = page.reached;
    }
    (found, lost)
}

fn is_same(one: &Event, other: &Event) -> bool {
    (&one.id, &one.channel, &one.data) == (&other.id, &other.channel, &other.data)
}
