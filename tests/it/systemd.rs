//! The service manager's part, played by the test: it listens for what the node tells of itself, and opens the
//! sockets that the node listens on.

use crate::support::{
    Address, HttpClient, PATIENCE, Setup, TestSidecar, eventually, number_from_environment, run_command,
    within,
};
use rustix::io::FdFlags;
use rustix::process::Signal;
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// What a node says on its way from start to end, as `NOTIFY_SOCKET` hears it.
struct Ear {
    socket: UnixDatagram,
    path: PathBuf,
    _directory: TempDir,
}

impl Ear {
    fn new() -> Self {
        let directory = TempDir::with_prefix("sidewire-notify-").expect("a temporary directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("the socket is bound");
        socket.set_nonblocking(true).expect("a socket of our own");
        Self { socket, path, _directory: directory }
    }

    /// All that was said since the last look.
    fn heard(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            messages.push(String::from_utf8(buffer[..length].to_vec()).expect("messages are text"));
        }
        messages
    }

    /// Waits for a message that has `line`, and gives all messages up to it.
    async fn hear(&self, line: &str) -> Vec<String> {
        let mut messages = Vec::new();
        eventually(line, async || {
            messages.extend(self.heard());
            messages.iter().any(|message| has_line(message, line)).then_some(())
        })
        .await;
        messages
    }
}

fn has_line(message: &str, wanted: &str) -> bool {
    message
        .lines()
        .any(|line| line == wanted || wanted.strip_suffix('*').is_some_and(|begin| line.starts_with(begin)))
}

fn managed(ear: &Ear) -> Setup {
    Setup::new()
        .config("[bus]\nprobe_interval = \"100ms\"\n")
        .environment("NOTIFY_SOCKET", &ear.path.display().to_string())
}

#[tokio::test]
async fn it_tells_the_service_manager_what_becomes_of_it() {
    let ear = Ear::new();
    let mut sidecar = managed(&ear).start().await;
    let messages = ear.hear("READY=1").await;
    assert_eq!(sidecar.admin().get("/readyz").await.status(), 200, "not ready before it is");
    let last = messages.last().expect("the one that was waited for");
    assert!(has_line(last, "STATUS=ready; 0 clients"), "{messages:?}");
    assert!(!messages.iter().any(|message| message.contains("WATCHDOG")), "nobody asked: {messages:?}");

    sidecar.rewrite_config("[bus]\nprobe_interval = \"200ms\"\n");
    sidecar.signal(Signal::HUP);
    let messages = ear.hear("STATUS=reloaded").await;
    let at =
        messages.iter().position(|message| has_line(message, "RELOADING=1")).expect("it says when it begins");
    assert!(has_line(&messages[at], "MONOTONIC_USEC=*"), "{messages:?}");
    assert!(messages[at + 1..].iter().any(|message| has_line(message, "READY=1")), "{messages:?}");
    sidecar.rewrite_config("nonsense");
    sidecar.signal(Signal::HUP);
    ear.hear("STATUS=not reloaded*").await;

    let status = sidecar.terminate().await;
    assert!(status.success(), "{status}");
    ear.hear("STOPPING=1").await;
}

#[tokio::test]
async fn the_watchdog_is_fed_by_what_readiness_sees() {
    let ear = Ear::new();
    let mut sidecar = managed(&ear).environment("WATCHDOG_USEC", "300000").start().await;
    ear.hear("READY=1").await;
    ear.hear("WATCHDOG=1").await;
    ear.hear("WATCHDOG=1").await;
    sidecar.signal(Signal::STOP);
    // What it had said before is taken away; then there is nothing for as long as the watchdog would wait.
    eventually("silence", async || {
        ear.heard();
        tokio::time::sleep(Duration::from_millis(600)).await;
        ear.heard().is_empty().then_some(())
    })
    .await;
    sidecar.signal(Signal::CONT);
    ear.hear("WATCHDOG=1").await;
    sidecar.still_healthy().await;
}

/// One thread of a node that stands still while all others go on, as if it hung.
struct HeldThread(Child);

/// Stops threads; see there.
const HOLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/hold_thread.py");

impl HeldThread {
    async fn hold(pid: u32, name: &str) -> Self {
        let mut child = Command::new("python3")
            .args([HOLD, "hold", &pid.to_string(), name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let mut said = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let said = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            said.read_line(&mut line).map(|_| line)
        });
        let line = within("the thread is held", said).await.expect("it does not panic").expect("a line");
        assert_eq!(line, "held\n", "{name} of {pid}");
        Self(child)
    }

    fn release(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("our own child").success());
    }
}

#[tokio::test]
async fn a_stage_that_stands_still_starves_the_watchdog() {
    for stage in ["log-append", "log-sync"] {
        let ear = Ear::new();
        let setup = managed(&ear).environment("WATCHDOG_USEC", "300000").wrapper(&["python3", HOLD, "allow"]);
        let mut sidecar = setup.start().await;
        ear.hear("READY=1").await;
        ear.hear("WATCHDOG=1").await;
        let held = HeldThread::hold(sidecar.pid(), stage).await;
        // Somebody must want something of it.
        let mut app = sidecar.app();
        let publisher =
            tokio::spawn(
                async move { app.post_json("/v1/publish", &json!({"channel": "a"})).await.status() },
            );
        ear.hear("STATUS=not ready*").await;
        // The watchdog's own clock is what passes here, as above.
        eventually("no word of life", async || {
            ear.heard();
            tokio::time::sleep(Duration::from_millis(600)).await;
            (!ear.heard().iter().any(|message| has_line(message, "WATCHDOG=1"))).then_some(())
        })
        .await;
        // It is one thread: the others answer.
        assert_eq!(sidecar.admin().get("/healthz").await.status(), 200, "{stage}");
        assert_eq!(sidecar.admin().get("/readyz").await.status(), 503, "{stage}");
        assert_eq!(within("an answer", publisher).await.expect("no panic"), 503, "{stage}");
        held.release();
        ear.hear("WATCHDOG=1").await;
        sidecar.ready().await;
        sidecar.still_healthy().await;
    }
}

#[tokio::test]
async fn a_watchdog_of_another_process_is_not_fed() {
    let ear = Ear::new();
    let setup = managed(&ear).environment("WATCHDOG_USEC", "300000").environment("WATCHDOG_PID", "1");
    let sidecar = setup.start().await;
    ear.hear("READY=1").await;
    sidecar.ready().await;
    let mut messages = ear.heard();
    sidecar.signal(Signal::HUP);
    messages.extend(ear.hear("STATUS=reloaded").await);
    assert!(!messages.iter().any(|message| message.contains("WATCHDOG")), "{messages:?}");
}

/// Sockets that outlive the node.
struct Sockets {
    app: TcpListener,
    app_unix: UnixListener,
    app_path: PathBuf,
    client: TcpListener,
    _directory: TempDir,
}

impl Sockets {
    fn open() -> Self {
        let directory = TempDir::with_prefix("sidewire-sockets-").expect("a temporary directory");
        let app_path = directory.path().join("app.sock");
        let sockets = Self {
            app: TcpListener::bind("127.0.0.1:0").expect("a free port"),
            app_unix: UnixListener::bind(&app_path).expect("a path of our own"),
            app_path,
            client: TcpListener::bind("127.0.0.1:0").expect("a free port"),
            _directory: directory,
        };
        inherit(&sockets.app);
        inherit(&sockets.app_unix);
        inherit(&sockets.client);
        sockets
    }

    fn setup(&self) -> Setup {
        let descriptors = [self.app.as_raw_fd(), self.app_unix.as_raw_fd(), self.client.as_raw_fd()];
        passing(&descriptors, "app:app:client").listen("app", "").listen("client", "")
    }
}

/// Lets child processes have it.
fn inherit(socket: &impl AsFd) {
    rustix::io::fcntl_setfd(socket, FdFlags::empty()).expect("a socket of our own");
}

/// Hands descriptors to the node as systemd does: from 3 on, with their number, their names and its own pid.
fn passing(descriptors: &[i32], names: &str) -> Setup {
    let moves: Vec<String> =
        (3..).zip(descriptors).map(|(to, from)| format!("{}<&{from}", to + 200)).collect();
    let places: Vec<String> = (3..).zip(descriptors).map(|(to, _)| format!("{to}<&{}", to + 200)).collect();
    // By way of high numbers, as the descriptor that goes to 3 may be another one's 4.
    let script = format!(
        "exec {} && exec {} && export LISTEN_PID=$$ && exec \"$@\"",
        moves.join(" "),
        places.join(" ")
    );
    Setup::new()
        .config("[bus]\nprobe_interval = \"100ms\"\n[client]\ndrain = \"200ms\"\n")
        .wrapper(&["bash", "-c", &script, "bash"])
        .environment("LISTEN_FDS", &descriptors.len().to_string())
        .environment("LISTEN_FDNAMES", names)
}

#[tokio::test]
async fn passed_sockets_are_listened_on_and_stay_when_the_node_goes() {
    let sockets = Sockets::open();
    let mut sidecar = sockets.setup().start().await;
    let whereabouts = sidecar.whereabouts();
    let app = sockets.app.local_addr().expect("it is bound");
    assert_eq!(whereabouts.all("app"), [Address::Tcp(app), Address::Unix(sockets.app_path.clone())]);
    assert_eq!(whereabouts.client().tcp(), sockets.client.local_addr().expect("it is bound"));
    for address in whereabouts.all("app") {
        let event = json!({"channel": "a", "data": 1});
        HttpClient::new(address).post_json("/v1/publish", &event).await.success();
    }
    assert!(sidecar.terminate().await.success());
    assert!(sockets.app_path.exists(), "the file belongs to who opened the socket");

    // Nobody is there, and yet nobody is refused.
    let mut waiting = Vec::new();
    for address in whereabouts.all("app") {
        waiting.push(tokio::spawn(async move {
            let event = json!({"channel": "a", "data": 2});
            HttpClient::new(address).post_json("/v1/publish", &event).await.success()
        }));
    }
    sidecar.start_again().await;
    for answer in waiting {
        assert_eq!(answer.await.expect("no panic")["status"], "published");
    }
    assert_eq!(sidecar.events("channel=a").await["events"].as_array().map(Vec::len), Some(4));
}

#[tokio::test]
async fn sockets_that_make_no_sense_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    inherit(&listener);
    let descriptor = listener.as_raw_fd();
    for names in ["sidewire.socket", "", "app:client"] {
        let said = passing(&[descriptor], names).refused().await;
        assert!(said.contains("FileDescriptorName=app, client or admin"), "{names}: {said}");
    }
    let connection =
        std::net::TcpStream::connect(listener.local_addr().expect("it is bound")).expect("a connection");
    inherit(&connection);
    let said = passing(&[connection.as_raw_fd()], "app").refused().await;
    assert!(said.contains("Accept=no"), "{said}");
    let file = std::fs::File::open("/dev/null").expect("it is everywhere");
    inherit(&file);
    let said = passing(&[file.as_raw_fd()], "app").refused().await;
    assert!(said.contains("not a socket"), "{said}");

    // Strangers are not served on a passed socket either.
    let open = TcpListener::bind("0.0.0.0:0").expect("a free port");
    inherit(&open);
    let said = passing(&[open.as_raw_fd()], "client").listen("client", "").refused().await;
    assert!(said.contains("allow_anonymous"), "{said}");
    let served = passing(&[open.as_raw_fd()], "client")
        .listen("client", "")
        .environment("SIDEWIRE_CLIENT__ALLOW_ANONYMOUS", "true");
    served.start().await.still_healthy().await;
}

#[tokio::test]
async fn sockets_of_another_process_are_left_alone() {
    let sidecar = Setup::new()
        .environment("LISTEN_PID", "1")
        .environment("LISTEN_FDS", "1")
        .environment("LISTEN_FDNAMES", "app")
        .start()
        .await;
    sidecar.ready().await;
    let finished =
        run_command(Path::new("/"), &["health", "--admin", &sidecar.whereabouts().admin().to_string()], "")
            .await;
    assert_eq!(finished.output(), "ready\n");
}

/// Publishes until all have been: on a connection each, or on one that is kept while the node keeps it.
async fn publish_on(address: Address, progress: Arc<Progress>, keep: bool) {
    let mut app = HttpClient::new(address.clone());
    while !progress.failed.load(Ordering::Relaxed) {
        let number = progress.begun.fetch_add(1, Ordering::Relaxed);
        if number >= progress.wanted {
            return;
        }
        if !keep {
            app = HttpClient::new(address.clone());
        }
        let event = json!({"channel": "load", "id": format!("load-{number}"), "data": number}).to_string();
        let json = [("Content-Type", "application/json")];
        let answer =
            tokio::time::timeout(PATIENCE, app.try_request("POST", "/v1/publish", &json, event.as_bytes()));
        match answer.await {
            Ok(Ok(answer)) if answer.status() == 200 => {
                progress.done.fetch_add(1, Ordering::Relaxed);
            }
            other => {
                progress.failed.store(true, Ordering::Relaxed);
                let kind = if keep { "kept" } else { "new" };
                panic!("publish {number} to {address} on a {kind} connection: {other:?}");
            }
        }
    }
}

struct Progress {
    wanted: u64,
    begun: AtomicU64,
    done: AtomicU64,
    failed: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_refuses_no_publish() {
    let restarts = number_from_environment("SIDEWIRE_TEST_RESTARTS", 20);
    let wanted = number_from_environment("SIDEWIRE_TEST_RESTART_PUBLISHES", 100_000);
    let sockets = Sockets::open();
    let mut sidecar: TestSidecar = sockets.setup().start().await;
    let progress = Arc::new(Progress {
        wanted,
        begun: AtomicU64::new(0),
        done: AtomicU64::new(0),
        failed: AtomicBool::new(false),
    });
    let mut publishers = Vec::new();
    for number in 0..32 {
        let addresses = sidecar.whereabouts().all("app");
        let address = addresses[number % addresses.len()].clone();
        publishers.push(tokio::spawn(publish_on(address, progress.clone(), number % 8 < 6)));
    }
    for restart in 1..=restarts {
        let target = wanted * restart / (restarts + 1);
        eventually(&format!("progress to {target}"), async || {
            let failed = progress.failed.load(Ordering::Relaxed);
            (failed || progress.done.load(Ordering::Relaxed) >= target).then_some(())
        })
        .await;
        assert!(sidecar.terminate().await.success());
        sidecar.start_again().await;
    }
    for publisher in publishers {
        publisher.await.expect("no publish has failed");
    }
    assert_eq!(progress.done.load(Ordering::Relaxed), wanted);
    assert_eq!(sidecar.metrics().await.sum("sidewire_log_events", &[]), wanted as f64, "each once");
}
