//! The node under test: started on free ports in a directory of its own, killed and started again at will.

use super::address::Address;
use super::http::HttpClient;
use super::process::{binary, resident_kib, shed_environment};
use super::wait::{PATIENCE, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How a node is started.
pub(crate) struct Setup {
    config: String,
    environment: Vec<(String, String)>,
    /// In front of the binary: a program that runs it.
    wrapper: Vec<String>,
    listen: [String; 3],
    data: Option<PathBuf>,
}

const LISTENERS: [&str; 3] = ["app", "client", "admin"];

impl Setup {
    pub(crate) fn new() -> Self {
        Self {
            config: String::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            listen: LISTENERS.map(|_| "127.0.0.1:0".to_owned()),
            data: None,
        }
    }

    /// The text of its configuration file.
    pub(crate) fn config(mut self, text: &str) -> Self {
        self.config = text.to_owned();
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs the binary by another program, which is given the binary and its arguments.
    pub(crate) fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Where one of the listeners listens, instead of on any free port.
    pub(crate) fn listen(mut self, listener: &str, address: &str) -> Self {
        self.listen[place(listener)] = address.to_owned();
        self
    }

    /// Another data directory than the node's own.
    pub(crate) fn data_directory(mut self, path: &Path) -> Self {
        self.data = Some(path.to_owned());
        self
    }

    /// Starts the node and waits until it listens.
    pub(crate) async fn start(self) -> TestSidecar {
        let mut sidecar = self.prepare();
        sidecar.start_again().await;
        sidecar
    }

    /// Starts the node, which must refuse: gives what it said.
    pub(crate) async fn refused(self) -> String {
        let mut sidecar = self.prepare();
        sidecar.spawn();
        let status = sidecar.ended().await;
        assert!(status.code().is_some_and(|code| code != 0), "{status}: {}", sidecar.log());
        assert!(!sidecar.log().contains("panicked"), "{}", sidecar.log());
        sidecar.log()
    }

    fn prepare(self) -> TestSidecar {
        let directory = TempDir::with_prefix("sidewire-test-").expect("a temporary directory");
        let data = self.data.clone().unwrap_or_else(|| directory.path().join("data"));
        TestSidecar {
            setup: self,
            directory,
            data,
            child: None,
            log: NodeLog::default(),
            whereabouts: Whereabouts::default(),
            started_in: Duration::ZERO,
        }
    }
}

fn place(listener: &str) -> usize {
    LISTENERS.iter().position(|known| *known == listener).expect("app, client or admin")
}

/// Where the listeners of a node are now. Clones follow the node through restarts.
#[derive(Clone, Default)]
pub(crate) struct Whereabouts(Arc<Mutex<[Vec<Address>; 3]>>);

impl Whereabouts {
    pub(crate) fn app(&self) -> Address {
        self.get("app")
    }

    pub(crate) fn client(&self) -> Address {
        self.get("client")
    }

    pub(crate) fn admin(&self) -> Address {
        self.get("admin")
    }

    fn get(&self, listener: &str) -> Address {
        self.0.lock().expect("no panic inside")[place(listener)]
            .first()
            .expect("the node has listened")
            .clone()
    }

    /// All addresses of a listener: it may have several.
    pub(crate) fn all(&self, listener: &str) -> Vec<Address> {
        self.0.lock().expect("no panic inside")[place(listener)].clone()
    }
}

/// Everything the node has said, over all its starts.
#[derive(Default)]
struct NodeLog {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl NodeLog {
    fn follow(&mut self, pipe: ChildStderr) {
        let lines = Arc::clone(&self.lines);
        self.reader = Some(std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.lock().expect("no panic inside").push(line);
            }
        }));
    }

    /// Waits for the last words of a node that has ended.
    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading lines does not panic");
        }
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().expect("no panic inside")
    }
}

/// The address that a log line says a listener has, in the text form or in JSON.
fn listening(line: &str) -> Option<(usize, Address)> {
    if !line.contains("listening") {
        return None;
    }
    let field = |name: &str| -> Option<String> {
        if let Ok(json) = serde_json::from_str::<serde_json::Value>(line) {
            return json.get(name).or_else(|| json["fields"].get(name))?.as_str().map(str::to_owned);
        }
        let rest = line.split_once(&format!("{name}="))?.1;
        Some(rest.split_whitespace().next()?.trim_matches('"').to_owned())
    };
    let listener = field("listener")?;
    let at = LISTENERS.iter().position(|known| *known == listener)?;
    Some((at, field("address")?.parse().ok()?))
}

/// A node, and all that belongs to it. Dropping it kills the node.
pub(crate) struct TestSidecar {
    setup: Setup,
    directory: TempDir,
    data: PathBuf,
    child: Option<Child>,
    log: NodeLog,
    whereabouts: Whereabouts,
    started_in: Duration,
}

impl TestSidecar {
    /// A node without any configuration.
    pub(crate) async fn start() -> Self {
        Setup::new().start().await
    }

    pub(crate) async fn with_config(text: &str) -> Self {
        Setup::new().config(text).start().await
    }

    pub(crate) fn whereabouts(&self) -> Whereabouts {
        self.whereabouts.clone()
    }

    pub(crate) fn app(&self) -> HttpClient {
        HttpClient::new(self.whereabouts.app())
    }

    pub(crate) fn client(&self) -> HttpClient {
        HttpClient::new(self.whereabouts.client())
    }

    pub(crate) fn admin(&self) -> HttpClient {
        HttpClient::new(self.whereabouts.admin())
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// A directory of the test's own, which is gone with the node.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Whether it shares its log with other nodes over a bus.
    pub(crate) fn has_bus(&self) -> bool {
        self.setup.config.contains("[bus]") && self.setup.config.contains("url = ")
    }

    /// The configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.directory.path().join("sidewire.toml")
    }

    /// Writes another configuration file, for the next start or for SIGHUP.
    pub(crate) fn rewrite_config(&mut self, text: &str) {
        self.setup.config = text.to_owned();
        std::fs::write(self.config_file(), text).expect("the configuration file is written");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        resident_kib(self.pid())
    }

    /// How long the last start took, from the spawn to the last listener.
    pub(crate) fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Everything the node has said so far.
    pub(crate) fn log(&self) -> String {
        self.log.lines().join("\n")
    }

    /// Waits for a line that contains every one of `words`.
    pub(crate) async fn wait_for_log(&self, words: &[&str]) -> String {
        eventually(&format!("a log line with {words:?}"), async || {
            self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
        .await
    }

    /// Whether the process still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("our own child").is_none())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid is an i32")).expect("a pid is not 0");
        kill_process(pid, signal).expect("our own child can be signalled");
    }

    /// Ends the node at once, as a power switch would end the process.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child can be waited for");
        }
    }

    /// Asks the node to end and waits until it has.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits until the node has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("the node was started");
        let status =
            eventually("the end of the node", async || child.try_wait().expect("our own child")).await;
        self.child = None;
        self.log.finish();
        status
    }

    /// Starts the node (again) on its data directory and waits until it listens.
    pub(crate) async fn start_again(&mut self) {
        let known = self.log.lines().len();
        let begin = Instant::now();
        self.spawn();
        let mut found: [Vec<Address>; 3] = Default::default();
        let mut seen = known;
        loop {
            let ended = !self.runs();
            if ended {
                self.log.finish();
            }
            {
                let lines = self.log.lines();
                for (at, address) in lines[seen..].iter().filter_map(|line| listening(line)) {
                    found[at].push(address);
                }
                seen = lines.len();
            }
            if found.iter().all(|addresses| !addresses.is_empty()) {
                break;
            }
            assert!(!ended, "the node ended while it started:\n{}", self.log());
            assert!(begin.elapsed() < PATIENCE, "the node does not listen:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.started_in = begin.elapsed();
        *self.whereabouts.0.lock().expect("no panic inside") = found;
    }

    /// Ends the node at once and starts it again.
    pub(crate) async fn kill_and_start_again(&mut self) {
        self.kill();
        self.start_again().await;
    }

    /// Starts the node and ends it at once, after so long: wherever its start has got to.
    pub(crate) async fn start_and_kill_after(&mut self, delay: Duration) {
        self.spawn();
        tokio::time::sleep(delay).await;
        self.kill();
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        std::fs::write(self.config_file(), &self.setup.config).expect("the configuration file is written");
        let mut words = self.setup.wrapper.clone().into_iter();
        let mut command = match words.next() {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        shed_environment(&mut command);
        command.arg("run").arg("--config").arg(self.config_file()).arg("--data-dir").arg(&self.data);
        for (listener, address) in LISTENERS.iter().zip(&self.setup.listen) {
            if !address.is_empty() {
                command.arg(format!("--{listener}")).arg(address);
            }
        }
        command
            .envs(self.setup.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.log.follow(child.stderr.take().expect("stderr is a pipe"));
        self.child = Some(child);
    }
}

impl Drop for TestSidecar {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the node's last words:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; a test that cares has looked.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A free port outside the range that the system hands out by itself, so that a node can leave it and find it
/// again.
pub(crate) fn free_fixed_port() -> u16 {
    (0..200)
        .map(|_| fastrand::u16(12_000..30_000))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of 200 ports is free")
}
