//! A disk that can be filled: a file system in memory where the test may mount one, or else a limit on the size
//! of every file that the node writes.

use crate::support::{Setup, TestSidecar};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Bytes of the file system in memory, and of the file that fills most of it.
const DISK_BYTES: u64 = 64 << 20;
const BALLAST_BYTES: u64 = 52 << 20;

pub(super) struct SmallDisk {
    directory: TempDir,
    mounted: bool,
}

impl SmallDisk {
    pub(super) fn new() -> Self {
        let directory = TempDir::with_prefix("sidewire-disk-").expect("a temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        Self { directory, mounted }
    }

    /// A node that keeps its log here.
    pub(super) async fn sidecar(&self) -> TestSidecar {
        let setup = Setup::new().config("[log]\nmax_bytes = \"1GiB\"\ncompress = false\n");
        if self.mounted {
            return setup.data_directory(&self.directory.path().join("data")).start().await;
        }
        // The system ends a process that writes beyond its limit, unless it ignores the signal: it then gets an
        // error, as from a full disk.
        setup.wrapper(&["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"]).start().await
    }

    /// Leaves little room, or none.
    pub(super) fn fill(&self, sidecar: &TestSidecar) {
        if self.mounted {
            let ballast = std::fs::File::create(self.ballast()).expect("the ballast is created");
            rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, BALLAST_BYTES)
                .expect("the ballast is allocated");
        } else {
            limit_file_size(sidecar, Some(largest_file(sidecar.data()) + (1 << 20)));
        }
    }

    pub(super) fn make_room(&self, sidecar: &TestSidecar) {
        if self.mounted {
            std::fs::remove_file(self.ballast()).expect("the ballast is there");
        } else {
            limit_file_size(sidecar, None);
        }
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.directory.path().join("ballast")
    }
}

fn limit_file_size(sidecar: &TestSidecar, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(sidecar.pid()).expect("a pid is an i32"));
    // Only the soft limit: who is not root may not raise the hard one again.
    let hard = rustix::process::getrlimit(Resource::Fsize).maximum;
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes.or(hard), maximum: hard })
        .expect("the limits of our own child can be set");
}

fn largest_file(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => largest_file(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .max()
        .unwrap_or(0)
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a failing test drops its node after its disk.
            let _ = Command::new("umount").arg("-l").arg(self.directory.path()).status();
        }
    }
}
