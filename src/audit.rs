//! The audit log: who connected, was refused, subscribed, published and was cut off, one JSON object a line in a file
//! of its own. A thread writes it, so that nobody waits for the disk.

use crate::publish::unix_ms;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, UNIX_EPOCH};

/// Lines that may wait for the disk. Beyond it they are lost, and a line says how many: clients must not wait, and
/// memory must not grow.
const WAITING_LINES: usize = 10_000;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A client was let in.
    Connected,
    /// A client was not let in, or not allowed something.
    Refused,
    /// A client is on channels.
    Subscribed,
    /// A client published.
    Published,
    /// A client's connection has ended.
    Closed,
    /// The app cut somebody off.
    Disconnected,
    /// The app revoked a token.
    Revoked,
    /// Lines were lost before this one.
    Lost,
}

/// One line, but for its time. No payload and no token ever stands in it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Entry<'e> {
    /// What happened.
    pub action: Action,
    /// Whom it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'e str>,
    /// Which connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<&'e str>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Which channels, as far as it is about some.
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    pub channels: &'e [&'e str],
    /// The close code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'e str>,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Entry<'_> {
    /// A line that says nothing more yet.
    pub const fn new(action: Action) -> Self {
        Self {
            action,
            user: None,
            connection: None,
            ip: None,
            channels: &[],
            code: None,
            reason: None,
            count: None,
        }
    }

    fn line(&self) -> String {
        #[derive(Serialize)]
        struct Line<'l> {
            time: String,
            #[serde(flatten)]
            entry: &'l Entry<'l>,
        }
        let time =
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms())).to_string();
        serde_json::to_string(&Line { time, entry: self }).unwrap_or_default() + "\n"
    }
}

enum Message {
    Line(String),
    Reopen,
    /// Everything before it is to be in the file when it is answered.
    Finish(SyncSender<()>),
}

/// Where lines go; nowhere unless it was opened.
#[derive(Default)]
pub struct Audit {
    writer: Option<SyncSender<Message>>,
    lost: AtomicU64,
}

impl Audit {
    /// Appends to a file that only its owner may read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = append(path)?;
        let (sender, receiver) = sync_channel(WAITING_LINES);
        let path = path.to_owned();
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write(&path, BufWriter::new(file), &receiver))?;
        Ok(Self { writer: Some(sender), lost: AtomicU64::new(0) })
    }

    /// Whether anybody will read what is noted: without that nothing need be put together.
    pub fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Notes something.
    pub fn note(&self, entry: &Entry<'_>) {
        let Some(writer) = &self.writer else { return };
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let line = Entry { count: Some(lost), ..Entry::new(Action::Lost) }.line();
            if writer.try_send(Message::Line(line)).is_err() {
                self.lost.fetch_add(lost + 1, Ordering::Relaxed);
                return;
            }
        }
        if writer.try_send(Message::Line(entry.line())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Goes on in a new file of the same name, after the old one was moved away.
    pub fn reopen(&self) {
        if let Some(writer) = &self.writer {
            // If so much waits, the next reload does it.
            let _ = writer.try_send(Message::Reopen);
        }
    }

    /// Waits until everything is in the file.
    pub fn finish(&self) {
        let Some(writer) = &self.writer else { return };
        let (sender, receiver) = sync_channel(1);
        if writer.send(Message::Finish(sender)).is_ok() {
            let _ = receiver.recv_timeout(Duration::from_secs(5));
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn write(path: &Path, mut file: BufWriter<File>, messages: &Receiver<Message>) {
    let mut failing = false;
    loop {
        let message = match messages.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                tell(&mut failing, file.flush());
                match messages.recv() {
                    Ok(message) => message,
                    Err(_) => break,
                }
            }
        };
        match message {
            Message::Line(line) => tell(&mut failing, file.write_all(line.as_bytes())),
            Message::Reopen => {
                tell(&mut failing, file.flush());
                match append(path) {
                    Ok(fresh) => file = BufWriter::new(fresh),
                    Err(error) => tell(&mut failing, Err(error)),
                }
            }
            Message::Finish(done) => {
                tell(&mut failing, file.flush());
                let _ = done.send(());
            }
        }
    }
}

/// Says once that it fails, and once that it does no longer.
fn tell(failing: &mut bool, result: io::Result<()>) {
    match (result, *failing) {
        (Err(error), false) => tracing::error!(%error, "the audit log cannot be written; lines are lost"),
        (Ok(()), true) => tracing::info!("the audit log is written again"),
        (result, _) => {
            *failing = result.is_err();
            return;
        }
    }
    *failing = !*failing;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_and_a_moved_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let audit = Audit::open(&path).unwrap();
        let entry =
            Entry { user: Some("ann\n\"x"), channels: &["a", "b.*"], ..Entry::new(Action::Subscribed) };
        audit.note(&entry);
        audit.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["action"], "subscribed");
        assert_eq!(line["user"], "ann\n\"x");
        assert_eq!(line["channels"], serde_json::json!(["a", "b.*"]));
        assert!(line["time"].as_str().unwrap().ends_with('Z') && line.get("code").is_none());

        std::fs::rename(&path, directory.path().join("old")).unwrap();
        audit.reopen();
        audit.note(&Entry::new(Action::Closed));
        audit.finish();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn what_is_lost_is_told() {
        let (sender, receiver) = sync_channel(1);
        let audit = Audit { writer: Some(sender), lost: AtomicU64::new(0) };
        for _ in 0..5 {
            audit.note(&Entry::new(Action::Connected));
        }
        let mut lines = Vec::new();
        for _ in 0..2 {
            while let Ok(Message::Line(line)) = receiver.try_recv() {
                lines.push(line);
            }
            audit.note(&Entry::new(Action::Closed));
        }
        assert!(lines[1].contains("\"lost\"") && lines[1].contains("\"count\":4"), "{lines:?}");
        assert!(!Audit::default().is_on());
    }
}
