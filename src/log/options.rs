//! What a log is told at its start, and what it tells about itself.

use crate::cipher::Keyring;
use crate::event::{Channel, Pattern, Position, UnixMs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a publisher-given id is remembered, unless configured.
pub const ID_WINDOW: Duration = Duration::from_secs(3600);
/// How many publisher-given ids are remembered at most, unless configured.
pub const ID_LIMIT: usize = 1_000_000;

/// Who gives the positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Numbering {
    /// The log itself, in the order of arrival.
    Own,
    /// A bus, which keeps the order.
    Bus,
    /// The log itself, of what comes from the shards of a bus: order is within each of them.
    Shards,
}

/// How a log keeps events.
#[derive(Clone)]
pub struct LogOptions {
    /// Where it lives; nobody else's files may be there.
    pub dir: PathBuf,
    /// Who gives the positions.
    pub numbering: Numbering,
    /// How long events are kept at most.
    pub ttl: Duration,
    /// How much of the disk it may take; the oldest events go first.
    pub max_bytes: u64,
    /// Whether packed events are compressed.
    pub compress: bool,
    /// What is written is encrypted with, and what is read decrypted.
    pub keyring: Keyring,
    /// Rules by channel; the first that fits counts.
    pub rules: Vec<Rule>,
    /// How long publisher-given ids are remembered.
    pub id_window: Duration,
    /// How many publisher-given ids are remembered.
    pub id_limit: usize,
    /// Told of each fsync of the hot path.
    pub observer: Option<Arc<dyn LogObserver>>,
}

impl LogOptions {
    /// A log in `dir` with every other option at its default.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            numbering: Numbering::Own,
            ttl: Duration::from_secs(24 * 3600),
            max_bytes: 1 << 30,
            compress: true,
            keyring: Keyring::none(),
            rules: Vec::new(),
            id_window: ID_WINDOW,
            id_limit: ID_LIMIT,
            observer: None,
        }
    }

    /// The rule for a channel.
    pub(super) fn rule(&self, channel: &Channel) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.pattern.matches(channel))
    }

    /// How large a journal grows before it is packed: small for small limits, so that the parts of the log
    /// are many enough to be expired one by one.
    pub(super) fn fold_bytes(&self) -> u64 {
        (self.max_bytes / 16).clamp(256 << 10, 4 << 20)
    }

    /// How much of the disk is kept back for reads and deletions while it is full.
    pub(super) fn reserve_bytes(&self) -> u64 {
        (self.max_bytes / 16).clamp(1 << 20, 4 << 20)
    }

    /// How much of the disk a generation takes before the next is begun.
    pub(super) fn generation_bytes(&self) -> u64 {
        (self.max_bytes / 8).clamp(1 << 20, 64 << 20)
    }
}

/// What holds for the channels that fit a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The channels.
    pub pattern: Pattern,
    /// How long their events are kept, unless the publisher says otherwise.
    pub ttl: Option<Duration>,
    /// How many of the newest events of each channel are kept.
    pub max_events: Option<u64>,
    /// Whether their events are kept at all.
    pub store: bool,
}

/// Who wants to know what the log does.
pub trait LogObserver: Send + Sync {
    /// One fsync made this many events durable.
    fn fsync(&self, took: Duration, events: u64);
}

/// What a log says about itself, without touching the disk.
#[derive(Clone, Debug, Default)]
pub struct LogStats {
    /// Events kept, those that wait for their removal included.
    pub events: u64,
    /// Bytes that the log takes on the disk, without what it keeps back for a disk that is full.
    pub disk_bytes: u64,
    /// Bytes that the kept events take unpacked.
    pub raw_bytes: u64,
    /// Generations of packed events.
    pub generations: u64,
    /// Journals, the active one included.
    pub journals: u64,
    /// The oldest position kept.
    pub oldest: Option<Position>,
    /// When about the oldest kept event was accepted.
    pub oldest_time: Option<UnixMs>,
    /// The newest position.
    pub newest: Position,
    /// Bytes written to journals since the start.
    pub appended_bytes: u64,
    /// Bytes of disk given back since the start.
    pub reclaimed_bytes: u64,
    /// Generations rewritten without their dead events since the start.
    pub compactions: u64,
    /// Fsyncs of journals since the start.
    pub fsyncs: u64,
    /// How long the last of them took.
    pub last_fsync: Duration,
    /// Files and generations that were damaged and put aside.
    pub quarantined: u64,
    /// Damaged places that were met and passed over, each counted once: blocks, pages, groups, missing parts.
    pub damaged: u64,
    /// Journals that wait to be packed.
    pub folds_waiting: u64,
    /// Times that packing failed and was put off.
    pub fold_failures: u64,
    /// Publisher-given ids that are remembered.
    pub ids: u64,
}
