//! What released versions left behind (`tests/fixtures`): this version reads it, and what it cannot read it refuses.

use crate::support::{Setup, TestSidecar, run_command};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What one version left behind, unpacked.
struct Left {
    version: String,
    config: PathBuf,
    directory: TempDir,
}

impl Left {
    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// What a client could read there.
    fn events(&self) -> Vec<Value> {
        let text =
            std::fs::read_to_string(self.directory.path().join("events.ndjson")).expect("it was unpacked");
        text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }

    fn setup(&self) -> Setup {
        let config = std::fs::read_to_string(&self.config).expect("a configuration");
        Setup::new().config(&config).data_directory(&self.data())
    }
}

/// One for each released version.
fn left() -> Vec<Left> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let versions =
        std::fs::read_dir(&fixtures).expect("fixtures").map(|entry| entry.expect("an entry").path());
    let left: Vec<Left> = versions
        .map(|place| {
            let directory = TempDir::with_prefix("sidewire-upgrade-").expect("a temporary directory");
            let mut unpack = Command::new("tar");
            unpack.args(["--extract", "--no-same-owner", "--file"]).arg(place.join("left.tar.gz"));
            let done = unpack.arg("--directory").arg(directory.path()).status().expect("tar is everywhere");
            assert!(done.success(), "{place:?}: {done}");
            let version = place.file_name().expect("a version").to_string_lossy().into_owned();
            Left { version, config: place.join("sidewire.toml"), directory }
        })
        .collect();
    assert!(left.iter().any(|left| left.version == "0.1.0"), "the first version is among them");
    left
}

async fn all_events(sidecar: &TestSidecar) -> Vec<Value> {
    sidecar.all_events("channel=%3E").await
}

#[tokio::test]
async fn a_configuration_of_any_version_is_read() {
    for left in left() {
        let file = left.config.display().to_string();
        let said = run_command(left.directory.path(), &["check-config", &file], "").await.output();
        assert_eq!(said, format!("{file}: ok\n"), "{}", left.version);
    }
}

#[tokio::test]
async fn a_log_of_any_version_is_read_and_written_on() {
    for left in left() {
        let wanted = left.events();
        let mut sidecar = left.setup().start().await;
        assert_eq!(all_events(&sidecar).await, wanted, "{}", left.version);
        // Cursors that clients hold go on from where they were.
        for place in [0, wanted.len() / 2, wanted.len() - 2] {
            let cursor = wanted[place]["cursor"].as_str().expect("a cursor");
            let rest = sidecar.all_events(&format!("channel=%3E&after={cursor}")).await;
            assert_eq!(rest, wanted[place + 1..], "{} after {place}", left.version);
            let poll = sidecar
                .client()
                .get(&format!("/v1/poll?channel=%3E&timeout=0&cursor={cursor}"))
                .await
                .success();
            assert_eq!(poll["resume"], "ok", "{} after {place}", left.version);
        }
        sidecar.publish(&json!({"channel": "new", "data": 1})).await;
        assert!(sidecar.terminate().await.success());
        sidecar.start_again().await;
        assert_eq!(all_events(&sidecar).await[..wanted.len()], wanted, "{}, after a restart", left.version);
        assert_eq!(sidecar.last("new").await.expect("it was kept")["data"], 1);
        assert!(sidecar.terminate().await.success());
        let data = left.data().display().to_string();
        run_command(left.directory.path(), &["log", "verify", "--data-dir", &data], "").await.output();
    }
}

#[tokio::test]
async fn a_log_of_a_version_to_come_is_refused_and_left_alone() {
    for left in left() {
        let meta = left.data().join("meta");
        let mut bytes = std::fs::read(&meta).expect("a log has it");
        // The number of the format, little-endian, after eight bytes that say what this is; a checksum at the end.
        bytes[8..12].copy_from_slice(&9_999_u32.to_le_bytes());
        let end = bytes.len() - 4;
        let sum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
        std::fs::write(&meta, &bytes).expect("it is ours");
        let before = contents(&left.data());
        let said = left.setup().refused().await;
        assert!(said.contains("format 9999") && said.contains("run the newer sidewire"), "{said}");
        assert_eq!(contents(&left.data()), before, "{}", left.version);
    }
}

/// Every file below a directory with its bytes.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            let bytes = std::fs::read(&path).expect("a file");
            files.push((path, bytes));
        }
    }
    files.sort();
    files
}
