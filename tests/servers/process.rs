//! A server as a process: started, stopped, killed, frozen.

use super::wait::{PATIENCE, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A free port outside the range that the system hands out by itself, so that a server can leave it and find it
/// again.
pub(crate) fn free_port() -> u16 {
    (0..200)
        .map(|_| fastrand::u16(12_000..30_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of 200 ports is free")
}

/// A server that can be started again and again with the same words. Dropping it kills it.
pub(crate) struct ServerProcess {
    program: PathBuf,
    words: Vec<String>,
    directory: PathBuf,
    port: u16,
    child: Option<Child>,
    starts: usize,
}

impl ServerProcess {
    pub(crate) fn new(program: PathBuf, words: Vec<String>, directory: &Path, port: u16) -> Self {
        Self { program, words, directory: directory.to_owned(), port, child: None, starts: 0 }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Starts it and waits until its port accepts connections. `false`: it has ended, as it does where somebody
    /// else took its port.
    pub(crate) async fn try_start(&mut self) -> bool {
        assert!(self.child.is_none(), "{} runs already", self.program.display());
        self.starts += 1;
        let output = std::fs::File::create(self.output_file()).expect("a file for its output");
        let child = Command::new(&self.program)
            .args(&self.words)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file can be cloned"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; `make setup` installs what the tests need", self.program.display())
            });
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if !self.runs() {
                self.child = None;
                return false;
            }
            if TcpStream::connect(self.address()).is_ok() {
                return true;
            }
            assert!(Instant::now() < deadline, "it does not listen:\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn start(&mut self) {
        assert!(self.try_start().await, "{} has ended:\n{}", self.program.display(), self.output());
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("our own child").is_none())
    }

    /// Ends it at once, as a power switch would end the process.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child can be waited for");
        }
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let child = self.child.as_mut().expect("it was started");
        eventually("the end of a server", async || child.try_wait().expect("our own child")).await;
        self.child = None;
    }

    /// Stops it from running, while its sockets stay open.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it run on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// What it has said since its last start.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.output_file()).unwrap_or_default()
    }

    fn output_file(&self) -> PathBuf {
        self.directory.join(format!("output-{}-{}", self.port, self.starts))
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid is an i32 above 0");
        kill_process(pid, signal).expect("our own child can be signalled");
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
