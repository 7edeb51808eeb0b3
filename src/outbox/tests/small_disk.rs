//! A disk that is full in the middle of a write. A limit on the size of files plays it, as that needs no rights;
//! it is a limit of the whole process, so the test runs itself again in a process of its own.

use super::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::Command;

const DIRECTORY: &str = "SIDEWIRE_TEST_SMALL_DISK";
const FILE_BYTES: u64 = 32 << 10;

#[test]
fn a_full_disk_refuses_a_group_and_loses_nothing() {
    if let Some(dir) = std::env::var_os(DIRECTORY) {
        return on_the_small_disk(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    // Without the trap the system would end the process instead of failing its write.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "outbox::tests::small_disk::a_full_disk_refuses_a_group_and_loses_nothing"])
        .env(DIRECTORY, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(sequences(&open(dir.path())), [1, 2, 4, 6, 7]);
}

fn on_the_small_disk(dir: &Path) {
    let outbox = open(dir);
    outbox.append(&[entry(1, 1_000), entry(2, 1_000)]).unwrap();
    let hard = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: Some(FILE_BYTES), maximum: hard }).unwrap();
    let before = outbox.status();
    // Behind others in a segment, and as the first of one.
    for _ in 0..3 {
        assert!(matches!(outbox.append(&[entry(3, 100), entry(3, 40_000)]), Err(AppendError::NoRoom)));
        assert_eq!(outbox.status(), before);
    }
    outbox.append(&[entry(4, 1_000)]).unwrap();
    assert!(matches!(outbox.append(&[entry(5, 40_000)]), Err(AppendError::NoRoom)));
    assert_eq!(sequences(&outbox), [1, 2, 4]);
    setrlimit(Resource::Fsize, Rlimit { current: hard, maximum: hard }).unwrap();
    outbox.append(&[entry(6, 40_000), entry(7, 10)]).unwrap();
    assert_eq!(sequences(&outbox), [1, 2, 4, 6, 7]);
}

#[test]
fn a_full_disk_is_told_from_other_errors() {
    let no_room = |kind: std::io::ErrorKind| {
        matches!(AppendError::from(std::io::Error::from(kind)), AppendError::NoRoom)
    };
    assert!(no_room(std::io::ErrorKind::StorageFull) && no_room(std::io::ErrorKind::QuotaExceeded));
    assert!(!no_room(std::io::ErrorKind::Other));
}
