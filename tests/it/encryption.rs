//! What is kept on disk says nothing to who has not the key: events, the outbox, events that the bus refused. Keys
//! come and go, and without one nothing is touched.

use crate::support::{BusKind, Fleet, Setup, TestSidecar, eventually, run_command};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const MARK: &str = "marked-4711";

/// A directory with a file of keys in it.
struct KeyFile(TempDir);

impl KeyFile {
    fn new(keys: &[u8]) -> Self {
        let file = Self(TempDir::with_prefix("sidewire-keys-").expect("a temporary directory"));
        file.write(keys);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("keys")
    }

    /// One line for each number; 0 is `none`.
    fn write(&self, keys: &[u8]) {
        let line = |key: &u8| if *key == 0 { "none".to_owned() } else { format!("{key:02x}").repeat(32) };
        fs::write(self.path(), keys.iter().map(line).collect::<Vec<_>>().join("\n")).expect("written");
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o600)).expect("it is ours");
    }

    /// Uncompressed, so that what is not encrypted shows; small, so that journals are packed soon.
    fn config(&self) -> String {
        format!("[log]\nencryption_key_file = {:?}\ncompress = false\nmax_bytes = \"4MiB\"\n", self.path())
    }
}

fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().is_some_and(|name| name != "reserve") {
            let bytes = fs::read(&path).expect("a file");
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

/// The files in which the mark is to be seen.
fn shown(directory: &Path) -> Vec<PathBuf> {
    let has_mark = |bytes: &[u8]| bytes.windows(MARK.len()).any(|part| part == MARK.as_bytes());
    files(directory).into_iter().filter(|(_, bytes)| has_mark(bytes)).map(|(path, _)| path).collect()
}

/// Publishes events with the mark wherever a publisher can write something.
async fn publish_marked(sidecar: &TestSidecar, numbers: std::ops::Range<u64>) {
    let events: Vec<Value> = numbers
        .map(|n| {
            json!({
                "channel": format!("{MARK}.a"), "event": format!("{MARK}-event"), "id": format!("{MARK}-{n}"),
                "tags": {MARK: MARK}, "data": {"n": n, MARK: [MARK, "x".repeat(2_000)]},
            })
        })
        .collect();
    for batch in events.chunks(100) {
        sidecar.publish(&Value::Array(batch.to_vec())).await;
    }
}

async fn all(sidecar: &TestSidecar) -> Vec<Value> {
    sidecar.all_events("channel=%3E").await
}

#[tokio::test]
async fn what_was_published_shows_in_no_file_and_survives_a_kill() {
    let keys = KeyFile::new(&[1]);
    let mut sidecar = TestSidecar::with_config(&keys.config()).await;
    publish_marked(&sidecar, 0..700).await;
    let before = all(&sidecar).await;
    assert_eq!(before.len(), 700);
    sidecar.kill();
    assert_eq!(shown(sidecar.data()), Vec::<PathBuf>::new());
    sidecar.start_again().await;
    assert!(all(&sidecar).await.ends_with(&before[300..]), "the oldest may have gone by size, no other");
    let again = json!({"channel": format!("{MARK}.a"), "id": format!("{MARK}-699"), "data": 1});
    assert_eq!(sidecar.publish(&again).await["status"], "duplicate");
    let packed = |(path, _): &(PathBuf, Vec<u8>)| path.to_string_lossy().contains("generation-");
    assert!(files(sidecar.data()).iter().any(packed), "something was packed as well");
    sidecar.kill();
    assert_eq!(shown(sidecar.data()), Vec::<PathBuf>::new());
    // The control: what is looked for is found where there is no key.
    let mut plain = TestSidecar::with_config("[log]\ncompress = false\n").await;
    publish_marked(&plain, 0..10).await;
    plain.kill();
    assert!(!shown(plain.data()).is_empty());
}

#[tokio::test]
async fn the_outbox_and_what_the_bus_refused_show_nothing_either() {
    let keys = KeyFile::new(&[1]);
    let mut fleet = Fleet::with_config(BusKind::RedisStream, 1, "hedge = \"50ms\"", &keys.config()).await;
    fleet.proxy.cut().await;
    fleet.notices_that_the_bus_is_away().await;
    publish_marked(&fleet.nodes[0], 0..20).await;
    let node = &mut fleet.nodes[0];
    node.kill();
    assert_eq!(shown(node.data()), Vec::<PathBuf>::new());
    let is_segment = |(path, _): &(PathBuf, Vec<u8>)| path.to_string_lossy().ends_with(".seg");
    assert!(files(node.data()).iter().any(is_segment), "they wait in the outbox");
    keys.write(&[2]);
    let config = fs::read_to_string(node.config_file()).expect("a configuration");
    let said = Setup::new().config(&config).data_directory(node.data()).refused().await;
    assert!(said.contains("encrypted with the key") && said.contains("outbox-"), "{said}");
    keys.write(&[2, 1]);
    node.start_again().await;
    fleet.proxy.restore().await;
    let came = fleet.nodes[0].wait_for_events("channel=%3E", 20).await;
    assert!(came.iter().all(|event| event["data"][MARK][0] == MARK));
}

#[tokio::test]
async fn without_the_right_key_the_start_is_refused_and_nothing_is_touched() {
    let keys = KeyFile::new(&[1]);
    let mut sidecar = TestSidecar::with_config(&keys.config()).await;
    publish_marked(&sidecar, 0..300).await;
    let before = all(&sidecar).await;
    sidecar.kill();
    let left = files(sidecar.data());
    let wrong = KeyFile::new(&[2, 3]);
    let data = sidecar.data().to_owned();
    for (config, words) in
        [(wrong.config(), "add the line with that key to it"), (String::new(), "no key is configured")]
    {
        let said = Setup::new().config(&config).data_directory(&data).refused().await;
        assert!(
            said.contains("is encrypted with the key") || said.contains("others, is encrypted"),
            "{said}"
        );
        assert!(said.contains(words), "{said}");
        assert!(files(&data) == left, "something was changed: {said}");
    }
    for (text, words) in [("geheim", "line 1 is no key"), ("", "is empty")] {
        fs::write(wrong.path(), text).expect("written");
        let said = Setup::new().config(&wrong.config()).data_directory(&data).refused().await;
        assert!(said.contains("log.encryption_key_file") && said.contains(words), "{said}");
        assert!(text.is_empty() || !said.contains(text), "{said}");
    }
    keys.write(&[1]);
    fs::set_permissions(keys.path(), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let said = Setup::new().config(&keys.config()).data_directory(&data).refused().await;
    assert!(said.contains("every user of this host") && said.contains("chmod 600"), "{said}");
    assert!(files(&data) == left);
    keys.write(&[1]);
    sidecar.start_again().await;
    assert_eq!(all(&sidecar).await, before);
}

#[tokio::test]
async fn keys_are_rotated_without_a_restart_and_commands_say_who_needs_which() {
    let keys = KeyFile::new(&[1]);
    let mut sidecar = TestSidecar::with_config(&keys.config()).await;
    sidecar.wait_for_log(&["events are encrypted on disk"]).await;
    publish_marked(&sidecar, 0..300).await;
    eventually("something that is packed with the first key", async || {
        let lists = std::fs::read_dir(sidecar.data()).expect("a directory").flatten();
        let length =
            |entry: fs::DirEntry| fs::metadata(entry.path().join("folds")).map_or(0, |meta| meta.len());
        // More than its header.
        lists.map(length).any(|length| length > 20).then_some(())
    })
    .await;
    keys.write(&[2, 1]);
    sidecar.signal(Signal::HUP);
    let line = sidecar.wait_for_log(&["what is written from now on is encrypted with this key"]).await;
    publish_marked(&sidecar, 300..600).await;
    keys.write(&[2]);
    sidecar.signal(Signal::HUP);
    sidecar.wait_for_log(&["a key that is gone from log.encryption_key_file is still needed"]).await;
    fs::write(keys.path(), "geheim").expect("written");
    sidecar.signal(Signal::HUP);
    sidecar.wait_for_log(&["not reloaded", "line 1 is no key"]).await;
    let before = all(&sidecar).await;
    assert_eq!(before.len(), 600);
    sidecar.kill();

    let (data, directory) = (sidecar.data().display().to_string(), sidecar.directory().to_owned());
    let log = async |words: &[&str]| {
        let arguments: Vec<&str> =
            ["log"].iter().chain(words).chain(&["--data-dir", &data]).copied().collect();
        run_command(&directory, &arguments, "").await
    };
    keys.write(&[2]);
    let file = keys.path().display().to_string();
    let with_keys = ["--key-file", &file];
    let stats = log(&["stats", with_keys[0], with_keys[1]]).await;
    assert!(!stats.status.success(), "the first key is missing: {stats:?}");
    let named: Vec<&str> = stats.stdout.lines().filter(|line| line.starts_with("key ")).collect();
    assert_eq!(named.len(), 2, "{stats:?}");
    assert!(named.iter().all(|line| line.contains("generation-") || line.contains("journal-")), "{stats:?}");
    let second = line.rsplit("key=").next().expect("it names the key").trim();
    assert!(named.iter().any(|line| line.contains(second)), "{second} in {stats:?}");
    for command in ["verify", "export"] {
        let said = log(&[command, with_keys[0], with_keys[1]]).await.failure();
        assert!(said.contains("is encrypted with the key"), "{said}");
        let said = log(&[command]).await.failure();
        assert!(said.contains("no key is configured"), "{said}");
    }
    keys.write(&[2, 1]);
    let stats = log(&["stats", with_keys[0], with_keys[1]]).await.output();
    assert!(stats.contains("events: 600"), "{stats}");
    assert!(log(&["verify", with_keys[0], with_keys[1]]).await.output().ends_with("ok\n"));
    let exported = log(&["export", with_keys[0], with_keys[1]]).await.output();
    assert_eq!(exported.lines().count(), 600);
    assert_eq!(log(&["rejected", with_keys[0], with_keys[1]]).await.output(), "");

    // And off again: what is there is still read, what comes is written as it is.
    keys.write(&[0, 2, 1]);
    sidecar.start_again().await;
    assert_eq!(all(&sidecar).await, before);
    sidecar.publish(&json!({"channel": "plain", "data": MARK})).await;
    sidecar.kill();
    assert!(!shown(sidecar.data()).is_empty());
}

#[tokio::test]
async fn damage_costs_what_is_damaged_and_is_told() {
    let keys = KeyFile::new(&[1]);
    let mut sidecar = TestSidecar::with_config(&keys.config()).await;
    for n in 0..50 {
        publish_marked(&sidecar, n..n + 1).await;
    }
    let before = all(&sidecar).await;
    sidecar.kill();
    let journal = |(path, _): &(PathBuf, Vec<u8>)| path.to_string_lossy().contains("/journal-");
    let (path, mut bytes) = files(sidecar.data()).into_iter().find(journal).expect("a journal");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("it is ours");
    sidecar.start_again().await;
    let after = all(&sidecar).await;
    assert_eq!(after.len(), 49, "one group is lost");
    assert!(after.iter().all(|event| before.contains(event)));
    sidecar.wait_for_log(&["a damaged part of a journal was passed over"]).await;
    sidecar.still_healthy().await;
}
