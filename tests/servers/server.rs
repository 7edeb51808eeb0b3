//! What servers of every kind have in common: a process, a directory, and how one gets in.

use super::certificates::Certificates;
use super::process::{ServerProcess, free_port};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// How often a start is tried, each time on another port.
const TRIES: usize = 5;

/// A kind of server.
pub(crate) trait Kind: Sized {
    /// Waits until a server that accepts connections serves.
    async fn serves(server: &Server<Self>);
}

/// A server that a test may do anything to. It goes with the test.
pub(crate) struct Server<K> {
    // Fields are dropped in their order: the process ends before its directory is taken away.
    process: ServerProcess,
    directory: TempDir,
    /// The user of the checks, and its password.
    pub(super) login: Option<(String, String)>,
    pub(super) tls: Option<Arc<Certificates>>,
    kind: PhantomData<K>,
}

impl<K: Kind> Server<K> {
    /// One that has not been started: its process runs in the directory.
    pub(super) fn new(process: ServerProcess, directory: TempDir) -> Self {
        Self { process, directory, login: None, tls: None, kind: PhantomData }
    }

    /// Starts what `prepare` makes of a free port; another port where somebody else was quicker.
    pub(super) async fn start_on_free_port(prepare: impl Fn(u16) -> Self) -> Self {
        for _ in 0..TRIES {
            let mut server = prepare(free_port());
            if server.process.try_start().await {
                K::serves(&server).await;
                return server;
            }
            eprintln!("{}", server.output());
        }
        panic!("it does not start on any of {TRIES} ports");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address().port()
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn process(&self) -> &ServerProcess {
        &self.process
    }

    /// What it has said since its last start.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.process.runs()
    }

    /// Ends it at once, as a power switch would end the process.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn stop(&mut self) {
        self.process.stop().await;
    }

    /// Starts it again on its port and directory, and waits until it serves.
    pub(crate) async fn start_again(&mut self) {
        self.process.start().await;
        K::serves(self).await;
    }

    /// Stops it from running, while its sockets stay open.
    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets it run on.
    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }
}
