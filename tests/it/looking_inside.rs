//! What an operator types to see how a node is doing: `status`, `doctor`, `tail`.

use crate::servers::{NatsSetup, RedisSetup};
use crate::support::{
    PATIENCE, TestSidecar, WebSocketClient, bus_config_at, eventually, run_command, sidewire,
};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

fn addresses(sidecar: &TestSidecar) -> Vec<String> {
    let node = sidecar.whereabouts();
    [("--app", node.app()), ("--client", node.client()), ("--admin", node.admin())]
        .into_iter()
        .flat_map(|(flag, address)| [flag.to_owned(), address.to_string()])
        .collect()
}

async fn doctor(sidecar: &TestSidecar, more: &[&str]) -> crate::support::Finished {
    let mut words =
        vec!["doctor".to_owned(), "--config".to_owned(), sidecar.config_file().display().to_string()];
    words.extend(addresses(sidecar));
    words.extend(more.iter().map(|word| (*word).to_owned()));
    run_command(sidecar.directory(), &words, "").await
}

#[tokio::test]
async fn status_is_one_screen_or_one_object() {
    let sidecar = TestSidecar::start().await;
    sidecar.ready().await;
    sidecar.publish_numbers("a", 0..7).await;
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws?channel=a").await;
    client.expect("subscribed").await;
    let admin = sidecar.whereabouts().admin().to_string();
    let object =
        run_command(sidecar.directory(), &["status", "--json", "--admin", &admin], "").await.output();
    let status: Value = serde_json::from_str(&object).expect("one object");
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["log"]["events"], 7, "{status}");
    assert_eq!(status["clients"]["connected"], 1, "{status}");
    assert_eq!(status["clients"]["by_transport"]["websocket"], 1.0, "{status}");
    assert_eq!(status["bus"]["url"], "memory:", "{status}");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"), "{status}");

    let screen = run_command(sidecar.directory(), &["status", "--admin", &admin], "").await.output();
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines.len() < 24 && lines.iter().all(|line| line.len() < 120), "{screen}");
    assert!(lines[0].contains("ready") && lines[1].contains("memory:"), "{screen}");
    assert!(lines.iter().any(|line| line.starts_with("log      7 events")), "{screen}");
}

#[tokio::test]
async fn status_of_nobody_says_so() {
    let sidecar = TestSidecar::start().await;
    let app = sidecar.whereabouts().app().to_string();
    let said = run_command(sidecar.directory(), &["status", "--admin", &app], "").await.failure();
    assert!(said.contains("not_found"), "{said}");
    let said = run_command(sidecar.directory(), &["status", "--admin", "127.0.0.1:1"], "").await.failure();
    assert!(said.contains("is the node running there?"), "{said}");
}

#[tokio::test]
async fn doctor_finds_nothing_wrong_with_a_node_that_is_well() {
    let sidecar = TestSidecar::start().await;
    sidecar.ready().await;
    let proxy = format!("http://{}", sidecar.whereabouts().client());
    let said = doctor(&sidecar, &["--proxy", &proxy]).await.output();
    for what in [
        "configuration",
        "clock",
        "log directory",
        "disk",
        "disk speed",
        "port",
        "bus server",
        "node",
        "bus",
        "log",
        "round trip",
        "proxy",
    ] {
        let found = said
            .lines()
            // How fast and how full the disk of the test is, is not the test's business.
            .any(|line| line.starts_with(&format!("ok   {what}: ")) || line.starts_with("warn disk"));
        assert!(found, "{what}: {said}");
    }
    assert!(!said.contains("FAIL"), "{said}");
    assert_eq!(doctor(&sidecar, &["--round-trip"]).await.output().lines().count(), 1);
}

#[tokio::test]
async fn doctor_names_what_is_wrong() {
    let sidecar = TestSidecar::start().await;
    sidecar.ready().await;
    let other = TestSidecar::start().await;
    // The app publishes to one node, clients listen to another, and there is no bus between them.
    let mut words = vec!["doctor".to_owned(), "--round-trip".to_owned()];
    words.extend(["--app".to_owned(), sidecar.whereabouts().app().to_string()]);
    words.extend(["--client".to_owned(), other.whereabouts().client().to_string()]);
    let finished = run_command(sidecar.directory(), &words, "").await;
    assert!(!finished.status.success());
    assert!(
        finished.stdout.contains("FAIL round trip: ") && finished.stdout.contains("same bus"),
        "{finished:?}"
    );
    assert_eq!(finished.stderr, "1 thing is wrong\n");
    // What answers there is no client listener.
    let proxy = sidecar.whereabouts().admin().to_string();
    let said = doctor(&sidecar, &["--proxy", &proxy]).await.failure();
    assert!(said.contains("FAIL proxy: ") && said.contains("does it pass /v1/ on"), "{said}");
}

/// The lines of `doctor` about the server of a bus, with a configuration that no node need run on.
async fn doctor_of(config: &str) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("sidewire.toml");
    let more = format!("[log]\ndir = {:?}\n", directory.path().join("data"));
    std::fs::write(&file, format!("{config}{more}")).expect("written");
    let words = ["doctor", "--config", file.to_str().expect("UTF-8")];
    let nobody = ["--app", "127.0.0.1:1", "--client", "127.0.0.1:1", "--admin", "127.0.0.1:1"];
    let said = run_command(directory.path(), &[&words[..], &nobody[..]].concat(), "").await;
    said.stdout.lines().filter(|line| line[5..].starts_with("bus ")).map(str::to_owned).collect()
}

fn has(lines: &[String], begin: &str, words: &str) {
    assert!(
        lines.iter().any(|line| line.starts_with(begin) && line.contains(words)),
        "{begin}{words}: {lines:#?}"
    );
}

#[tokio::test]
async fn doctor_asks_redis_how_it_is_set_up() {
    let safe = RedisSetup::new()
        .append_only()
        .line("maxmemory 64mb")
        .line("maxmemory-policy noeviction")
        .start()
        .await;
    let lines = doctor_of(&bus_config_at(&safe.url(), "stream", "", "")).await;
    has(&lines, "ok   bus server: ", "Redis ");
    has(&lines, "ok   bus clock: ", "this host");
    has(&lines, "ok   bus settings: ", "noeviction");
    has(&lines, "ok   bus settings: ", "append-only file");

    let unsafe_ = RedisSetup::new().line("maxmemory-policy allkeys-lru").start().await;
    let lines = doctor_of(&bus_config_at(&unsafe_.url(), "stream", "", "")).await;
    has(&lines, "FAIL bus settings: ", "allkeys-lru");
    has(&lines, "warn bus settings: ", "appendonly yes");
    // On plain channels nothing is kept that could be lost.
    let lines = doctor_of(&bus_config_at(&unsafe_.url(), "pubsub", "channels = [\"a.*\"]", "")).await;
    assert!(!lines.iter().any(|line| line.contains("settings")), "{lines:#?}");

    let locked = RedisSetup::new().only_user("ann", "right").start().await;
    let url = format!("redis://ann:wrong@127.0.0.1:{}", locked.port());
    has(
        &doctor_of(&bus_config_at(&url, "stream", "", "")).await,
        "FAIL bus server: ",
        "authentication failed",
    );
    let nobody = doctor_of(&bus_config_at("redis://127.0.0.1:1", "stream", "", "")).await;
    has(&nobody, "FAIL bus server: ", "127.0.0.1:1");
}

#[tokio::test]
async fn doctor_asks_nats_how_it_is_set_up() {
    let server = NatsSetup::new().start().await;
    let url = format!("nats://{}", server.address());
    let lines = doctor_of(&bus_config_at(&url, "jetstream", "", "")).await;
    has(&lines, "ok   bus server: ", "NATS 2.");
    has(&lines, "ok   bus settings: ", "JetStream uses");
    has(&lines, "ok   bus settings: ", "will be made");
    let node = TestSidecar::with_config(&bus_config_at(&url, "jetstream", "", "")).await;
    node.ready().await;
    let lines = doctor_of(&bus_config_at(&url, "jetstream", "", "")).await;
    has(&lines, "ok   bus settings: ", "messages");
    has(&lines, "ok   bus clock: ", "this host");

    let accounts = "accounts { A { jetstream { max_file: 64MB, max_mem: 64MB }, users: [{ user: ann, password: right }] } }";
    let bounded = NatsSetup::new().line(accounts).start().await;
    let url = format!("nats://ann:right@{}", bounded.address());
    let lines = doctor_of(&bus_config_at(&url, "jetstream", "max_bytes = \"100GiB\"", "")).await;
    has(&lines, "FAIL bus settings: ", "bus.max_bytes");
    let lines = doctor_of(&bus_config_at(&url, "jetstream", "", "")).await;
    has(&lines, "warn bus settings: ", "bus.max_bytes sets no bound");

    let small = NatsSetup::new().line("max_payload: 65536").without_jetstream().start().await;
    let url = format!("nats://{}", small.address());
    let lines = doctor_of(&bus_config_at(&url, "jetstream", "", "")).await;
    has(&lines, "FAIL bus settings: ", "JetStream does not answer");
    has(&lines, "warn bus settings: ", "max_payload is 65536");
    let lines = doctor_of(&bus_config_at(&url, "core", "channels = [\"a.*\"]", "")).await;
    assert!(!lines.iter().any(|line| line.contains("JetStream")), "{lines:#?}");
}

#[tokio::test]
async fn tail_prints_what_came_last_and_what_comes() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("a.b", 0..20).await;
    let mut command = sidewire(sidecar.directory());
    command.args(["tail", "--history", "3", "--client", &sidecar.whereabouts().client().to_string()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts");
    let pipe = child.stdout.take().expect("stdout is a pipe");
    let lines = std::thread::spawn(move || {
        BufReader::new(pipe).lines().take(4).map(|line| line.expect("text")).collect::<Vec<_>>()
    });
    sidecar.wait_for_subscribers(">", 1).await;
    sidecar.publish_numbers("c", 20..21).await;
    eventually(&format!("four lines within {PATIENCE:?}"), async || lines.is_finished().then_some(())).await;
    child.kill().expect("our own child can be killed");
    child.wait().expect("our own child can be waited for");
    let lines = lines.join().expect("read");
    let numbers = ["17", "18", "19", "20"];
    for (line, number) in lines.iter().zip(numbers) {
        assert!(line.contains(&format!("\"n\":{number}")), "{lines:?}");
    }
}
