//! Giving disk space back: the oldest generations when the log takes too much, and those whose every event
//! has ceased to be kept.

use super::directory;
use super::generation::Generation;
use super::liveness::unix_ms;
use super::writer::Active;
use super::{Shared, lock};
use crate::event::UnixMs;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A journal is packed at least this often, however little there is in it, so that its events can expire.
const SHORTEST_SEAL: Duration = Duration::from_secs(60);
/// One that nothing was added to for this long is packed if it takes much memory: a burst must not stay in it
/// for hours.
const LEFT_ALONE: Duration = Duration::from_secs(10);
const MUCH_MEMORY: usize = 4 << 20;

impl Shared {
    /// Seals a journal that grew old, so that time limits are kept on the disk also when little is published,
    /// or that keeps much in memory for nobody.
    pub(super) fn seal_if_old(&self) {
        let oldest = (self.options.ttl / 4).max(SHORTEST_SEAL);
        let mut writer = lock(&self.writer);
        if writer.active.as_ref().is_some_and(|Active { table, .. }| {
            let is_left = table.idle() >= LEFT_ALONE && table.footprint() >= MUCH_MEMORY;
            table.created.elapsed() >= oldest || is_left
        }) {
            self.seal(&mut writer);
        }
    }

    /// Seals the active journal, whatever is in it.
    pub(super) fn seal_active(&self) {
        self.seal(&mut lock(&self.writer));
    }

    /// Removes the oldest generations while they hold no living event, or the log with `room` more bytes would
    /// take more than its limit. One without a living event behind an older one that has some is rewritten
    /// instead: what is removed is always everything up to a position.
    pub(super) fn expire(&self, room: u64) -> io::Result<()> {
        let now = unix_ms();
        while let Some(oldest) = self.view().generations.first().cloned() {
            if !self.is_all_expired(&oldest, now) {
                break;
            }
            self.remove_generation(&oldest)?;
        }
        loop {
            let used = self.measure();
            if used.saturating_add(room.min(self.options.max_bytes / 4)) <= self.options.max_bytes {
                return Ok(());
            }
            if let Some(aside) = self.oldest_aside() {
                tracing::warn!(path = %aside.display(), "a damaged part that was put aside is removed: the log takes too much of the disk");
                directory::remove(&aside)?;
                continue;
            }
            let Some(oldest) = self.view().generations.first().cloned() else { return Ok(()) };
            self.remove_generation(&oldest)?;
        }
    }

    fn is_all_expired(&self, generation: &Arc<Generation>, now: UnixMs) -> bool {
        let view = self.view();
        let mut folds = view.folds_of(generation).peekable();
        folds.peek().is_some() && folds.all(|packed| packed.fold.max_expiry <= now)
    }

    /// What the directory takes on the disk.
    pub(super) fn measure(&self) -> u64 {
        let dir = self.directory.path();
        let view = self.view();
        let mut bytes: u64 = view.generations.iter().map(|generation| generation.disk_bytes()).sum();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            // Generations are measured when they change: there may be thousands of files in them.
            // What is kept back for a full disk is on top of the limit: it holds no events. So are events that
            // wait for the bus: they have a limit of their own, and are not the log's to remove.
            let name = name.to_string_lossy();
            let is_foreign = name == super::reserve::FILE || name == directory::OUTBOX;
            if !name.starts_with(super::generation::PREFIX) && !is_foreign {
                bytes += directory::disk_use(&entry.path());
            }
        }
        self.counters.disk_bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    fn oldest_aside(&self) -> Option<std::path::PathBuf> {
        let names = self.directory.names().ok()?;
        names
            .iter()
            .find(|name| name.starts_with("quarantined-"))
            .map(|name| self.directory.path().join(name))
    }
}
