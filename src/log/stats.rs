//! What the log counts, and what it says about itself.

use super::options::LogStats;
use super::view::Source;
use super::{Shared, lock};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts since the start.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) stored_events: AtomicU64,
    pub(super) synced_events: AtomicU64,
    pub(super) appended_bytes: AtomicU64,
    pub(super) fsyncs: AtomicU64,
    pub(super) last_fsync_us: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) disk_bytes: AtomicU64,
    pub(super) reclaimed_bytes: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) quarantined: AtomicU64,
    pub(super) fold_failures: AtomicU64,
}

impl Shared {
    /// See [`super::Log::stats`].
    pub(super) fn stats(&self) -> LogStats {
        let has_active = lock(&self.writer).active.is_some();
        let view = self.view();
        let mut stats = LogStats {
            newest: self.head(),
            oldest: view.sources.first().map(Source::first),
            fsyncs: self.counters.fsyncs.load(Ordering::Relaxed),
            last_fsync: Duration::from_micros(self.counters.last_fsync_us.load(Ordering::Relaxed)),
            appended_bytes: self.counters.appended_bytes.load(Ordering::Relaxed),
            disk_bytes: self.counters.disk_bytes.load(Ordering::Relaxed),
            generations: view.generations.len() as u64,
            reclaimed_bytes: self.counters.reclaimed_bytes.load(Ordering::Relaxed),
            compactions: self.counters.compactions.load(Ordering::Relaxed),
            quarantined: self.counters.quarantined.load(Ordering::Relaxed),
            fold_failures: self.counters.fold_failures.load(Ordering::Relaxed),
            damaged: self.counters.damaged.load(Ordering::Relaxed),
            ids: lock(&self.ids).len() as u64,
            ..LogStats::default()
        };
        for source in &view.sources {
            match source {
                Source::Packed(packed) => {
                    stats.events += packed.fold.events;
                    stats.raw_bytes += packed.fold.raw_bytes;
                    let is_empty = packed.fold.events == 0;
                    stats.oldest_time = stats.oldest_time.or((!is_empty).then_some(packed.fold.min_time));
                }
                Source::Memory(table) => {
                    stats.journals += 1;
                    stats.events += table.len() as u64;
                    stats.raw_bytes += table.footprint() as u64;
                    stats.oldest_time = stats.oldest_time.or(table.first_time());
                }
            }
        }
        stats.folds_waiting = stats.journals.saturating_sub(u64::from(has_active));
        stats
    }
}
