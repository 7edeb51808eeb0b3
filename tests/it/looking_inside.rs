//! What an operator types to see how a node is doing: `status`, `doctor`, `tail`.

use crate::servers::{NatsSetup, RedisSetup};
use crate::support::{
    PATIENCE, TestSidecar, Tokens, WebSocketClient, bus_config_at, eventually, run_command, sidewire,
};
use serde_json::Value;
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
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
    let mut lines = everything_of(config, 0o600).await;
    lines.retain(|line| line[5..].starts_with("bus "));
    lines
}

/// All lines of `doctor`, with a configuration in a file of this mode.
async fn everything_of(config: &str, mode: u32) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("sidewire.toml");
    let more = format!("[log]\ndir = {:?}\n", directory.path().join("data"));
    write_with_mode(&file, &format!("{config}{more}"), mode);
    let words = ["doctor", "--config", file.to_str().expect("UTF-8")];
    let nobody = ["--app", "127.0.0.1:1", "--client", "127.0.0.1:1", "--admin", "127.0.0.1:1"];
    let said = run_command(directory.path(), &[&words[..], &nobody[..]].concat(), "").await;
    said.stdout.lines().map(str::to_owned).collect()
}

fn write_with_mode(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

fn has(lines: &[String], begin: &str, words: &str) {
    assert!(
        lines.iter().any(|line| line.starts_with(begin) && line.contains(words)),
        "{begin}{words}: {lines:#?}"
    );
}

#[tokio::test]
async fn doctor_tells_who_else_can_read_secrets_and_which_are_of_no_use() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let mut tokens = Tokens::new();
    let (certificate, other) = (tokens.certificate(1), tokens.certificate(2));
    write_with_mode(&path("token"), "a token for tests that nobody guesses", 0o600);
    write_with_mode(&path("secret"), Tokens::SECRET, 0o600);
    write_with_mode(&path("chain"), &certificate.chain, 0o644);
    write_with_mode(&path("key"), &certificate.key, 0o600);
    let config = format!(
        "[app]\ntoken_file = {token:?}\n[admin]\ntoken_file = {token:?}\n[auth]\nsecret_file = {secret:?}\n\
         [client]\ntls_cert_file = {chain:?}\ntls_key_file = {key:?}\n\
         [bus]\nurl = \"redis://127.0.0.1:1\"\npassword_file = {token:?}\n",
        token = path("token"),
        secret = path("secret"),
        chain = path("chain"),
        key = path("key"),
    );
    let lines = everything_of(&config, 0o644).await;
    has(&lines, "ok   secrets: ", "5 files are there, and others can read none");
    has(&lines, "ok   TLS: ", "client");
    has(&lines, "ok   auth: ", "the keys of tokens can be used");
    has(&lines, "ok   encryption: ", "off");

    write_with_mode(&path("key"), &other.key, 0o604);
    write_with_mode(&path("secret"), "short", 0o600);
    write_with_mode(&path("token"), "a token for tests that nobody guesses", 0o622);
    let lines = everything_of(&config, 0o600).await;
    has(&lines, "FAIL secrets: app.token_file: every user of this host can write ", "chmod 600");
    has(&lines, "FAIL secrets: bus.password_file: every user of this host can write ", "mode 622");
    has(&lines, "warn secrets: client.tls_key_file: every user of this host can read ", "mode 604");
    has(&lines, "warn secrets: auth.secret_file: ", "less than 32 bytes");
    has(&lines, "FAIL TLS: ", "does not fit its key");
    std::fs::remove_file(path("secret")).expect("it is there");
    std::fs::remove_file(path("token")).expect("it is there");
    let lines = everything_of(&config, 0o600).await;
    has(&lines, "FAIL secrets: admin.token_file: ", "write it, or name another file");
    has(&lines, "FAIL auth: ", "auth.secret_file");

    for (mode, mark) in [(0o644, "warn"), (0o640, "ok  ")] {
        let lines = everything_of(&Tokens::config(), mode).await;
        let words =
            if mark == "warn" { "holds auth.secret, and every user of this host can read it" } else { "" };
        has(&lines, &format!("{mark} secrets: "), words);
        let shown = lines.iter().any(|line| line.contains(Tokens::SECRET));
        assert!(!shown, "no secret is printed: {lines:#?}");
    }
}

#[tokio::test]
async fn doctor_knows_whether_the_log_can_be_decrypted_at_the_next_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("keys");
    let (first, second) = ("01".repeat(32), "02".repeat(32));
    let write = |lines: &[&str], mode| write_with_mode(&file, &lines.join("\n"), mode);
    write(&[&first], 0o600);
    let config = format!("[log]\nencryption_key_file = {file:?}\n");
    let sidecar = TestSidecar::with_config(&config).await;
    sidecar.ready().await;
    sidecar.publish_numbers("a", 0..5).await;
    // The node has its directory from a flag, the doctor from a file.
    let look = async |key_file: &Path| -> Vec<String> {
        let config = directory.path().join("doctor.toml");
        let data = sidecar.data();
        let text = format!("[log]\ndir = {data:?}\nencryption_key_file = {key_file:?}\n");
        write_with_mode(&config, &text, 0o600);
        let mut words = vec!["doctor".to_owned(), "--config".to_owned(), config.display().to_string()];
        words.extend(addresses(&sidecar));
        let said = run_command(directory.path(), &words, "").await;
        said.stdout.lines().filter(|line| line[5..].starts_with("encryption")).map(str::to_owned).collect()
    };
    has(&look(&file).await, "ok   encryption: the key ", "encrypts what is new; ");
    // As somebody left it who has changed keys and forgot the old one.
    write(&[&second], 0o600);
    has(
        &look(&file).await,
        "FAIL encryption: ",
        "which is missing: the next start is refused; put it back into",
    );
    write(&[&second, &first], 0o600);
    assert!(look(&file).await.iter().all(|line| line.starts_with("ok   ")));
    write(&["none", &first], 0o600);
    has(&look(&file).await, "warn encryption: ", "what is new is not encrypted");
    write(&[&first], 0o644);
    has(&look(&file).await, "FAIL encryption: ", "chmod 600");
    write(&["0123"], 0o600);
    has(&look(&file).await, "FAIL encryption: ", "line 1 is no key: write 32 random bytes");
    let inside = sidecar.data().join("keys");
    write_with_mode(&inside, &first, 0o600);
    has(&look(&inside).await, "warn encryption: ", "lies in log.dir");
    has(
        &look(Path::new("")).await,
        "FAIL encryption: ",
        "name the file that has it as log.encryption_key_file",
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
