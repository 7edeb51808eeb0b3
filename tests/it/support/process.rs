//! Processes: commands that end by themselves, and what the system says of those that run.

use super::wait::PATIENCE;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The binary under test. `SIDEWIRE_TEST_BINARY` names another one, such as a release build.
pub(super) fn binary() -> PathBuf {
    std::env::var_os("SIDEWIRE_TEST_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_sidewire")), PathBuf::from)
}

/// A command of the binary, free of what the environment of the tests would tell it.
pub(crate) fn sidewire(directory: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(directory).stdin(Stdio::null());
    shed_environment(&mut command);
    command
}

pub(super) fn shed_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SIDEWIRE_")
            || text.starts_with("LISTEN_")
            || matches!(&*text, "RUST_LOG" | "NOTIFY_SOCKET" | "WATCHDOG_USEC" | "WATCHDOG_PID")
        {
            command.env_remove(&name);
        }
    }
}

/// What became of a command.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Its standard output; it must have succeeded.
    pub(crate) fn output(self) -> String {
        assert!(self.status.success(), "{self:?}");
        self.stdout
    }

    /// What it said on both outputs; it must have failed, by its own decision.
    pub(crate) fn failure(self) -> String {
        assert!(self.status.code().is_some_and(|code| code != 0), "must refuse, with an exit code: {self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self.stdout + &self.stderr
    }
}

/// Runs a sub-command of the binary in `directory` to its end, with `input` on its standard input.
pub(crate) async fn run_command<S: AsRef<OsStr>>(directory: &Path, arguments: &[S], input: &str) -> Finished {
    let mut command = sidewire(directory);
    command.args(arguments);
    let input = input.to_owned();
    tokio::task::spawn_blocking(move || finish(command, &input)).await.expect("the command was waited for")
}

fn finish(mut command: Command, input: &str) -> Finished {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let collect = |mut pipe: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What was read before an error is what there is to show.
            let _ = pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = collect(Box::new(child.stdout.take().expect("stdout is a pipe")));
    let stderr = collect(Box::new(child.stderr.take().expect("stderr is a pipe")));
    // A command that does not read its input may have closed it already.
    let _ = std::io::Write::write_all(&mut child.stdin.take().expect("stdin is a pipe"), input.as_bytes());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child can be waited for");
            let said = stdout.join().expect("read") + &stderr.join().expect("read");
            panic!("{command:?} did not end within {PATIENCE:?}; it said:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Finished { status, stdout: stdout.join().expect("read"), stderr: stderr.join().expect("read") }
}

/// How much memory a process holds.
pub(super) fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the node runs");
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .expect("a process has a VmRSS line")
}

/// How much disk a directory takes. Files that vanish meanwhile count as nothing, nor does the room that the log
/// keeps back for a full disk.
pub(crate) fn directory_bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .filter(|entry| entry.file_name() != "reserve")
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => directory_bytes(&entry.path()),
            Ok(found) => found.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
