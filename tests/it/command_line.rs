//! The sub-commands that an operator types.

use crate::support::{Address, Finished, TestSidecar, eventually, run_command};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

/// Runs a sub-command that talks to the node, with a flag for the address of each listener that it uses.
async fn run(sidecar: &TestSidecar, words: &[&str], input: &str) -> Finished {
    run_command(sidecar.directory(), words, input).await
}

fn flags(sidecar: &TestSidecar) -> [String; 3] {
    let whereabouts = sidecar.whereabouts();
    [whereabouts.app(), whereabouts.client(), whereabouts.admin()].map(|address: Address| address.to_string())
}

#[tokio::test]
async fn publish_sends_an_argument_or_standard_input() {
    let sidecar = TestSidecar::start().await;
    let [app, ..] = &flags(&sidecar);
    run(&sidecar, &["publish", "shell.a", r#"{"n": 1}"#, "--app", app], "").await.output();
    assert_eq!(sidecar.last("shell.a").await.expect("kept")["data"], json!({"n": 1}));
    run(&sidecar, &["publish", "shell.a", "just text", "--app", app], "").await.output();
    assert_eq!(sidecar.last("shell.a").await.expect("kept")["data"], "just text");
    run(&sidecar, &["publish", "shell.a", "-", "--app", app], r#"{"from": "stdin"}"#).await.output();
    assert_eq!(sidecar.last("shell.a").await.expect("kept")["data"], json!({"from": "stdin"}));
    let said = run(&sidecar, &["publish", "bad channel", "1", "--app", app], "").await.failure();
    assert!(said.contains("channel"), "{said}");
}

#[tokio::test]
async fn a_node_that_is_not_there_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("bound").to_string();
    drop(free);
    for words in [
        &["publish", "a", "1", "--app", &address][..],
        &["history", "a", "--app", &address],
        &["health", "--admin", &address],
        &["subscribe", "a", "--client", &address],
    ] {
        let said = run_command(directory.path(), words, "").await.failure();
        assert!(said.contains(&address), "{words:?}: {said}");
    }
}

#[tokio::test]
async fn history_prints_what_is_kept() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("shell.a", 0..3).await;
    sidecar.publish_numbers("shell.b", 3..4).await;
    let [app, ..] = &flags(&sidecar);
    let output = run(&sidecar, &["history", "shell.a", "shell.b", "--json", "--app", app], "").await.output();
    let events: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(crate::support::numbers(&events), [0, 1, 2, 3], "{output}");
    let plain = run(&sidecar, &["history", "shell.*", "--app", app], "").await.output();
    assert!(plain.contains("shell.a") && plain.contains("shell.b"), "{plain}");
}

#[tokio::test]
async fn subscribe_prints_events_as_they_come() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("shell.a", 0..2).await;
    let [_, client, _] = &flags(&sidecar);
    let mut follower = crate::support::sidewire(sidecar.directory())
        .args(["subscribe", "shell.>", "--json", "--since", "1h", "--client", client])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let output = follower.stdout.take().expect("stdout is a pipe");
    let lines = std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok).take(4);
        lines.map(|line| serde_json::from_str::<Value>(&line).expect("JSON")).collect::<Vec<_>>()
    });
    eventually("it has subscribed", async || (sidecar.connections().await == 1).then_some(())).await;
    sidecar.publish_numbers("shell.b", 2..4).await;
    eventually("four lines", async || lines.is_finished().then_some(())).await;
    follower.kill().expect("our own child");
    follower.wait().expect("our own child");
    assert_eq!(crate::support::numbers(&lines.join().expect("read")), [0, 1, 2, 3]);
}

#[tokio::test]
async fn health_is_0_while_the_node_is_ready() {
    let mut sidecar = TestSidecar::start().await;
    let [.., admin] = &flags(&sidecar);
    sidecar.ready().await;
    run(&sidecar, &["health", "--admin", admin], "").await.output();
    sidecar.kill();
    run(&sidecar, &["health", "--admin", admin], "").await.failure();
}

#[tokio::test]
async fn the_address_of_a_node_is_taken_from_its_configuration() {
    let mut sidecar = TestSidecar::start().await;
    let [app, client, admin] = &flags(&sidecar);
    let text = format!(
        "[app]\nlisten = \"{app}\"\n[client]\nlisten = \"{client}\"\n[admin]\nlisten = \"{admin}\"\n"
    );
    sidecar.rewrite_config(&text);
    let file = sidecar.config_file().to_string_lossy().into_owned();
    run(&sidecar, &["publish", "a", "1", "--config", &file], "").await.output();
    assert_eq!(sidecar.last("a").await.expect("kept")["data"], 1);
}

#[tokio::test]
async fn the_log_is_counted_verified_and_exported_without_a_node() {
    let mut sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("a.1", 0..700).await;
    sidecar.publish_numbers("a.2", 700..1_000).await;
    assert!(sidecar.terminate().await.success());
    let data = sidecar.data().to_string_lossy().into_owned();

    let stats = run(&sidecar, &["log", "stats", "--data-dir", &data], "").await.output();
    assert!(stats.contains("1000"), "it counts the events: {stats}");
    let verified = run(&sidecar, &["log", "verify", "--data-dir", &data], "").await.output();
    assert!(verified.contains("1000"), "{verified}");
    let exported = run(&sidecar, &["log", "export", "--data-dir", &data], "").await.output();
    let events: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(crate::support::numbers(&events), (0..1_000).collect::<Vec<_>>());

    sidecar.start_again().await;
    assert_eq!(sidecar.all_events("channel=a.*").await.len(), 1_000, "looking has changed nothing");
}

#[tokio::test]
async fn log_verify_finds_damage_and_a_damaged_log_is_served_as_far_as_it_is_good() {
    let mut sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("a", 0..2_000).await;
    assert!(sidecar.terminate().await.success());
    let data = sidecar.data().to_path_buf();
    let (file, size) = largest_file(&data).expect("the log has files");
    let mut bytes = std::fs::read(&file).expect("read");
    // One bit, in the middle of what was written.
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
    bytes[written / 2] ^= 1;
    std::fs::write(&file, &bytes).expect("written");
    let words = ["log", "verify", "--data-dir", &data.to_string_lossy()];
    let said = run_command(sidecar.directory(), &words, "").await;
    assert!(!said.stderr.contains("panicked at"), "{said:?}");
    assert!(!said.status.success(), "one bit of {} ({size} bytes) is wrong: {said:?}", file.display());

    sidecar.start_again().await;
    sidecar.still_healthy().await;
    let kept = crate::support::numbers(&sidecar.all_events("channel=a").await);
    assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "what is left is in order");
    eprintln!("{} of 2000 events are left", kept.len());
}

fn largest_file(directory: &std::path::Path) -> Option<(std::path::PathBuf, u64)> {
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    entries
        // Nothing is in the space that the log only keeps free.
        .filter(|entry| entry.file_name() != "reserve")
        .filter_map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => largest_file(&entry.path()),
            Ok(found) => Some((entry.path(), found.len())),
            Err(_) => None,
        })
        .max_by_key(|(_, size)| *size)
}

#[tokio::test]
async fn help_names_every_command_and_a_wrong_word_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let help = run_command(directory.path(), &["--help"], "").await.output();
    for command in ["run", "check-config", "publish", "subscribe", "history", "health", "log", "echo"] {
        assert!(help.contains(command), "{command}: {help}");
    }
    let version = run_command(directory.path(), &["--version"], "").await.output();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    run_command(directory.path(), &["dance"], "").await.failure();
    run_command(directory.path(), &["run", "--no-such-flag"], "").await.failure();
}
