//! How far this node has read the bus: where each shard stands, and whose parcels it has seen there.

use super::checkpoint::{Checkpoint, ShardCheckpoint};
use super::landing::Landing;
use super::seen::Seen;
use crate::bus::backend::{Origin, Start};
use crate::event::{Epoch, Marks, Position, Sender};
use std::path::Path;
use std::time::{Duration, Instant};

/// How far the bus has been read.
pub(super) struct Reader {
    shards: Vec<Shard>,
    /// The last position in the log that was handed on.
    pub(super) landed: Position,
    /// Whether there was a link since the start.
    pub(super) was_connected: bool,
    /// Whether the log has events of some bus.
    was_on_a_bus: bool,
    checkpointed: Instant,
    dirty: bool,
}

/// How far one shard has been read.
#[derive(Default)]
struct Shard {
    /// Which log is on it; none if this node was never on it.
    epoch: Option<Epoch>,
    /// The position of the last arrival.
    position: Option<Position>,
    /// Up to here the log had its events when reading began.
    in_log: Position,
    seen: Seen,
    /// The newest of our probes that has come back on it.
    probe: u64,
    /// The last read took all that was there.
    caught_up: bool,
}

impl Shard {
    /// How far the log has it. What is read again after a start is below what the log had then.
    fn landed(&self) -> Position {
        self.position.unwrap_or_default().max(self.in_log)
    }
}

impl Reader {
    /// Where the log and the checkpoint say that reading goes on, on so many shards.
    pub(super) fn restore(landing: &dyn Landing, dir: &Path, count: usize) -> Self {
        let on_bus = landing.on_bus();
        let mut reader = Self {
            shards: (0..count).map(|_| Shard::default()).collect(),
            landed: landing.head(),
            was_connected: false,
            was_on_a_bus: on_bus.is_some(),
            checkpointed: Instant::now(),
            dirty: false,
        };
        let on_bus = match on_bus {
            Some(on_bus) if on_bus.len() == count => on_bus,
            Some(on_bus) => {
                tracing::warn!(
                    before = on_bus.len(),
                    now = count,
                    "bus.shards has changed: that is another bus, and cursors of before are answered `reset`"
                );
                return reader;
            }
            None => return reader,
        };
        for (shard, (epoch, position)) in reader.shards.iter_mut().zip(&on_bus) {
            (shard.epoch, shard.position, shard.in_log) = (Some(*epoch), Some(*position), *position);
        }
        // One that is ahead of the log would take for repetitions what the log has lost.
        if let Some(checkpoint) =
            Checkpoint::read(dir).filter(|checkpoint| checkpoint.landed <= reader.landed)
            && checkpoint.shards.iter().map(|shard| shard.epoch).eq(on_bus.iter().map(|(epoch, _)| *epoch))
        {
            for (shard, checkpoint) in reader.shards.iter_mut().zip(checkpoint.shards) {
                shard.position = Some(checkpoint.position);
                shard.in_log = shard.in_log.max(checkpoint.position);
                shard.seen = checkpoint.seen;
            }
            for (number, shard) in reader.shards.iter().enumerate() {
                for (origin, ranges) in shard.seen.ranges() {
                    if let Some((_, last)) = ranges.last() {
                        landing.note_in_log(Sender { origin, number: *last }, number);
                    }
                }
            }
        }
        reader
    }

    /// Whether the bus has one order.
    pub(super) fn is_one(&self) -> bool {
        self.shards.len() == 1
    }

    /// Whether the log has events of some bus.
    pub(super) fn was_on_a_bus(&self) -> bool {
        self.was_on_a_bus
    }

    /// What this node has of each shard.
    pub(super) fn known(&self) -> Vec<Option<(Epoch, Position)>> {
        self.shards.iter().map(|shard| shard.epoch.zip(shard.position)).collect()
    }

    /// Where reading begins on a link whose tails begin so.
    pub(super) fn begins(&self, starts: &[(Epoch, Start)]) -> Vec<(Epoch, Position)> {
        let begin = |(shard, (epoch, start)): (&Shard, &(Epoch, Start))| match start {
            Start::Continues | Start::Now => (*epoch, shard.position.unwrap_or_default()),
            Start::Gap { up_to: after } | Start::Anew { after } => (*epoch, *after),
        };
        self.shards.iter().zip(starts).map(begin).collect()
    }

    /// Whether the bus no longer keeps something that this node has not read. What begins right behind a position
    /// at which nothing stood is no gap.
    pub(super) fn misses_something(&self, starts: &[(Epoch, Start)]) -> bool {
        self.shards.iter().zip(starts).any(|(shard, (_, start))| match start {
            Start::Gap { up_to } => *up_to > shard.landed(),
            Start::Continues | Start::Anew { .. } | Start::Now => false,
        })
    }

    /// There is a new link.
    pub(super) fn begin_link(&mut self) {
        self.was_connected = true;
        for shard in &mut self.shards {
            shard.caught_up = false;
        }
    }

    /// Reading goes on after these positions.
    pub(super) fn go_to(&mut self, marks: &[Position]) {
        for (shard, position) in self.shards.iter_mut().zip(marks) {
            shard.position = Some(*position);
        }
        self.dirty = true;
    }

    /// The shards hold these logs, read after these positions. The log has what is on them up to `begins`, and has
    /// come to `head` itself.
    pub(super) fn begin_epoch(
        &mut self,
        shards: &[(Epoch, Position)],
        begins: &[(Epoch, Position)],
        head: Position,
    ) {
        for (shard, ((epoch, position), (_, begin))) in self.shards.iter_mut().zip(shards.iter().zip(begins))
        {
            (shard.epoch, shard.position, shard.in_log) = (Some(*epoch), Some(*position), *begin);
        }
        self.landed = head;
        self.was_on_a_bus = true;
        self.dirty = true;
    }

    /// The logs of the shards when one of them has another from `position` on; none if that is no news.
    pub(super) fn with_epoch(
        &self,
        number: usize,
        epoch: Epoch,
        position: Position,
    ) -> Option<Vec<(Epoch, Position)>> {
        if self.shards[number].epoch == Some(epoch) {
            return None;
        }
        let own = self.shards.iter().map(|shard| {
            // Every shard has an epoch as soon as there was a link.
            (shard.epoch.unwrap_or(epoch), shard.position.unwrap_or_default())
        });
        let mut shards: Vec<_> = own.collect();
        shards[number] = (epoch, position);
        Some(shards)
    }

    /// Everything on a shard up to here has been read.
    pub(super) fn note_read(&mut self, number: usize, position: Position) {
        self.shards[number].position = Some(position);
        self.dirty = true;
    }

    /// How far the log has each shard, with all that was handed on.
    pub(super) fn read_up_to(&self) -> Vec<Position> {
        self.shards.iter().map(Shard::landed).collect()
    }

    /// The same on several shards, with an arrival at `position` of one of them.
    pub(super) fn marks(&self, number: usize, position: Position) -> Option<Marks> {
        let mark = |(other, shard): (usize, &Shard)| if other == number { position } else { shard.landed() };
        Marks::new(self.shards.iter().enumerate().map(mark).collect::<Vec<_>>())
    }

    /// How far the log has what is on these logs: what comes after their positions, unless it was read before.
    pub(super) fn landed_of(&self, shards: &[(Epoch, Position)]) -> Vec<(Epoch, Position)> {
        let landed = |(shard, (epoch, after)): (&Shard, &(Epoch, Position))| {
            let had = if shard.epoch == Some(*epoch) { shard.landed() } else { Position::ZERO };
            (*epoch, had.max(*after))
        };
        self.shards.iter().zip(shards).map(landed).collect()
    }

    /// Whether the log had the event at `position` of a shard when reading began.
    pub(super) fn has_landed(&self, number: usize, position: Position) -> bool {
        position <= self.shards[number].in_log
    }

    /// Notes a parcel; false if it came before.
    pub(super) fn note_seen(&mut self, number: usize, origin: Origin, sequence: u64) -> bool {
        let is_one = self.is_one();
        let seen = &mut self.shards[number].seen;
        // The numbers between are on other shards.
        if is_one { seen.insert(origin, sequence) } else { seen.insert_growing(origin, sequence) }
    }

    /// Notes that a probe of ours has come back on a shard; true once it is back on all.
    pub(super) fn is_probe_back(&mut self, number: usize, probe: u64) -> bool {
        if self.is_one() {
            return true;
        }
        let shard = &mut self.shards[number];
        shard.probe = shard.probe.max(probe);
        self.shards.iter().all(|shard| shard.probe >= probe)
    }

    /// Notes whether the last read of a shard took all that was there; true if that holds for all.
    pub(super) fn note_caught_up(&mut self, number: usize, caught_up: bool) -> bool {
        self.shards[number].caught_up = caught_up;
        self.shards.iter().all(|shard| shard.caught_up)
    }

    /// Whether there is something new to note since so long.
    pub(super) fn is_checkpoint_due(&self, interval: Duration) -> bool {
        self.dirty && self.checkpointed.elapsed() >= interval
    }

    /// What is to be noted now; none before there was a link.
    pub(super) fn checkpoint(&mut self) -> Option<Checkpoint> {
        let shard = |shard: &Shard| {
            Some(ShardCheckpoint { epoch: shard.epoch?, position: shard.position?, seen: shard.seen.clone() })
        };
        let shards = self.shards.iter().map(shard).collect::<Option<Vec<_>>>()?;
        self.checkpointed = Instant::now();
        self.dirty = false;
        Some(Checkpoint { landed: self.landed, shards })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Channel, Event, Expiry, Origin};
    use std::io;

    /// A log that has come to some place on some shards.
    struct Log(Vec<(Epoch, Position)>);

    impl Landing for Log {
        fn on_bus(&self) -> Option<Vec<(Epoch, Position)>> {
            Some(self.0.clone()).filter(|shards| !shards.is_empty())
        }

        fn came_to(&self, _: &[Epoch]) -> Option<Vec<Position>> {
            None
        }

        fn epoch(&self) -> Epoch {
            Epoch(0)
        }

        fn head(&self) -> Position {
            Position(500)
        }

        fn local(&self, position: Position) -> Position {
            position
        }

        fn expiry(&self, _: &Channel) -> Expiry {
            Expiry::Live
        }

        fn begin_era(&self, _: &[(Epoch, Position)], _: bool) -> io::Result<Position> {
            Ok(self.head())
        }

        fn skip_to(&self, _: &[Position]) -> io::Result<Position> {
            Ok(self.head())
        }

        fn note_gap(&self) -> io::Result<Position> {
            Ok(self.head())
        }

        fn control(&self, _: &Event) -> bool {
            false
        }

        fn note_missed_controls(&self) {}

        fn begin_run(&self, _: Origin, _: usize) {}

        fn note_in_log(&self, _: Sender, _: usize) {}

        fn note_read(&self, _: &[Position]) {}
    }

    const A: Epoch = Epoch(1);
    const B: Epoch = Epoch(2);

    fn log() -> Log {
        Log(vec![(A, Position(50)), (B, Position(70))])
    }

    fn positions(marks: &Marks) -> Vec<u64> {
        marks.positions().iter().map(|position| position.0).collect()
    }

    #[test]
    fn what_is_read_again_after_a_start_moves_no_mark_back() {
        let dir = tempfile::tempdir().unwrap();
        let shard =
            |epoch, position| ShardCheckpoint { epoch, position: Position(position), seen: Seen::default() };
        let checkpoint = Checkpoint { landed: Position(400), shards: vec![shard(A, 20), shard(B, 90)] };
        checkpoint.write(dir.path()).unwrap();
        let mut reader = Reader::restore(&log(), dir.path(), 2);
        // The first shard is read from the checkpoint on; the log is behind that on the second, without an event.
        assert_eq!(reader.known(), [Some((A, Position(20))), Some((B, Position(90)))]);
        assert!(reader.has_landed(0, Position(50)) && !reader.has_landed(0, Position(51)));
        assert_eq!(positions(&reader.marks(1, Position(91)).unwrap()), [50, 91]);
        reader.note_read(0, Position(30));
        assert_eq!(positions(&reader.marks(1, Position(92)).unwrap()), [50, 92]);
        reader.note_read(0, Position(60));
        assert_eq!(reader.read_up_to(), [Position(60), Position(90)]);

        // One that is ahead of the log says nothing, nor does one of other logs.
        for (landed, epoch) in [(501, A), (400, Epoch(9))] {
            let shards = vec![shard(epoch, 20), shard(B, 90)];
            Checkpoint { landed: Position(landed), shards }.write(dir.path()).unwrap();
            let reader = Reader::restore(&log(), dir.path(), 2);
            assert_eq!(reader.known(), [Some((A, Position(50))), Some((B, Position(70)))]);
        }
        let other = Reader::restore(&log(), dir.path(), 3);
        assert!(other.was_on_a_bus() && other.known() == [None; 3], "another number of shards");
    }

    #[test]
    fn one_shard_with_another_log_leaves_what_is_known_of_the_others() {
        let mut reader = Reader::restore(&log(), std::path::Path::new("/nowhere"), 2);
        assert_eq!(reader.with_epoch(0, A, Position(60)), None);
        reader.note_read(1, Position(80));
        let shards = reader.with_epoch(0, Epoch(3), Position(5)).unwrap();
        assert_eq!(shards, [(Epoch(3), Position(5)), (B, Position(80))]);
        let begins = reader.landed_of(&shards);
        reader.begin_epoch(&shards, &begins, Position(600));
        assert!(!reader.has_landed(0, Position(6)), "its positions begin anew");
        assert!(reader.has_landed(1, Position(80)) && !reader.has_landed(1, Position(81)));
    }

    #[test]
    fn a_gap_is_one_only_where_something_may_have_stood() {
        let reader = Reader::restore(&log(), std::path::Path::new("/nowhere"), 2);
        let gap = |up_to| (A, Start::Gap { up_to: Position(up_to) });
        let whole = (B, Start::Continues);
        assert!(!reader.misses_something(&[gap(50), whole]) && reader.misses_something(&[gap(51), whole]));
        assert_eq!(reader.begins(&[gap(51), whole]), [(A, Position(51)), (B, Position(70))]);
    }

    #[test]
    fn a_probe_is_back_when_it_is_back_on_all_shards() {
        let mut reader = Reader::restore(&log(), std::path::Path::new("/nowhere"), 2);
        assert!(!reader.is_probe_back(0, 1) && !reader.is_probe_back(0, 2));
        assert!(reader.is_probe_back(1, 1) && reader.is_probe_back(1, 2));
        assert!(!reader.note_caught_up(0, true) && reader.note_caught_up(1, true));
    }
}
