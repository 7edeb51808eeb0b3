//! What waits, segment by segment, and up to where the bus has it.

use super::record::{self, Head, Unfit};
use super::rejected::Rejected;
use super::segment::{self, Fault, Segment, Window};
use super::{Entry, Number};
use crate::cipher::Keyring;
use crate::event::UnixMs;
use std::collections::VecDeque;
use std::fs;
use std::io;

/// All segments, the oldest first.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) segments: VecDeque<Segment>,
    /// Everything up to this number is on the bus.
    pub(super) settled: u64,
    /// How many records of the oldest segment that is.
    settled_records: u64,
    /// When the oldest that waits was accepted.
    pub(super) oldest_ms: Option<UnixMs>,
    keyring: Keyring,
}

impl Index {
    pub(super) fn new(settled: u64, keyring: &Keyring) -> Self {
        let keyring = keyring.clone();
        Self { segments: VecDeque::new(), settled, settled_records: 0, oldest_ms: None, keyring }
    }

    /// Events that wait.
    pub(super) fn events(&self) -> u64 {
        let records: u64 = self.segments.iter().map(|segment| segment.records).sum();
        records.saturating_sub(self.settled_records)
    }

    /// Bytes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The newest number that was accepted.
    pub(super) fn last(&self) -> u64 {
        self.segments.iter().map(|segment| segment.last).max().unwrap_or(0).max(self.settled)
    }

    /// Removes segments of which nothing waits, but not the newest unless told, and looks where in the oldest
    /// one the first event stands that does.
    pub(super) fn trim(&mut self, newest_as_well: bool) {
        while let Some(oldest) = self.segments.front() {
            if oldest.last > self.settled || (self.segments.len() == 1 && !newest_as_well) {
                break;
            }
            if let Err(error) = fs::remove_file(&oldest.path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %oldest.path.display(), %error, "a settled part of the outbox stays on the disk until the next start");
            }
            self.segments.pop_front();
        }
        self.find_oldest();
    }

    fn find_oldest(&mut self) {
        let Some(oldest) = self.segments.front() else {
            (self.settled_records, self.oldest_ms) = (0, None);
            return;
        };
        if oldest.last <= self.settled {
            (self.settled_records, self.oldest_ms) = (oldest.records, None);
            return;
        }
        let found = Window::open(&oldest.path).map_err(Fault::from).and_then(|mut window| {
            let place = oldest.place_after(&mut window, self.settled)?;
            Ok((place.ordinal, segment::time_at(&mut window, place, oldest.bytes)?))
        });
        match found {
            Ok(found) => (self.settled_records, self.oldest_ms) = found,
            // The next read finds the same, and mends the index or says what is wrong.
            Err(fault) => tracing::warn!(path = %oldest.path.display(), ?fault, "the outbox cannot be read"),
        }
    }

    /// Reads from the segment that holds the first event after a number, up to the bounds; nothing if there is
    /// none. A record that turns out to be unreadable is left out from then on.
    pub(super) fn read(
        &mut self,
        after: u64,
        most_events: usize,
        most_bytes: u64,
        rejected: &Rejected,
    ) -> io::Result<Vec<(Number, Entry)>> {
        let mut after = after.max(self.settled);
        loop {
            let at = self.segments.partition_point(|segment| segment.last <= after);
            let Some(segment) = self.segments.get(at) else { return Ok(Vec::new()) };
            let mut entries = Vec::new();
            match collect(segment, &self.keyring, after, most_events, most_bytes, &mut entries) {
                // What comes before a bad record is good; the next read meets the bad one again.
                _ if !entries.is_empty() => return Ok(entries),
                Ok(()) => after = segment.last,
                Err(Stop::Unreadable(Fault::Io(error))) => return Err(error),
                Err(Stop::Unreadable(Fault::Damaged)) => self.leave_out(at, None)?,
                Err(Stop::Unfit { number, record, why }) => {
                    tracing::error!(number, why, "an event in the outbox makes no sense: it is set aside");
                    rejected.add(&record, why)?;
                    self.leave_out(at, Some(number))?;
                }
            }
        }
    }

    /// Looks anew at what a segment holds, without the record of a number.
    pub(super) fn leave_out(&mut self, at: usize, number: Option<u64>) -> io::Result<()> {
        let floor =
            at.checked_sub(1).and_then(|before| self.segments.get(before)).map_or(0, |segment| segment.last);
        let Some(old) = self.segments.get_mut(at) else { return Ok(()) };
        let mut bytes = fs::read(&old.path)?;
        bytes.truncate(usize::try_from(old.bytes).unwrap_or(usize::MAX));
        let mut left_out = std::mem::take(&mut old.left_out);
        left_out.extend(number);
        let wanted = |head: &Head| head.number > floor && !left_out.contains(&head.number);
        let mut new = Segment::scan(old.path.clone(), &bytes, wanted);
        let lost = old.records.saturating_sub(new.records);
        if number.is_none() {
            if lost == 0 {
                old.left_out = left_out;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a record changes while it is read"));
            }
            tracing::error!(
                path = %old.path.display(), events = lost,
                "a part of the outbox is damaged: what is whole is kept, the rest is lost"
            );
        }
        // The file is as long as it was, and has the numbers that it had: what follows goes behind them.
        new.close_at(old.bytes);
        new.last = old.last;
        new.left_out = left_out;
        *old = new;
        self.find_oldest();
        Ok(())
    }

    /// The record of a number, if it can be read.
    pub(super) fn find(&self, number: u64) -> io::Result<Option<FoundRecord>> {
        let segment = self.segments.partition_point(|segment| segment.last < number);
        let Some(holder) = self.segments.get(segment) else { return Ok(None) };
        let found = Window::open(&holder.path).map_err(Fault::from).and_then(|mut window| {
            let place = holder.place_after(&mut window, number.saturating_sub(1))?;
            let head = window.head(place.offset, holder.bytes)?;
            if head.number != number {
                return Ok(None);
            }
            let bytes = window.record(place.offset, &head, holder.bytes)?.to_vec();
            let is_oldest = segment == 0 && place.ordinal == self.settled_records;
            Ok(Some(FoundRecord { segment, bytes, is_oldest }))
        });
        match found {
            Ok(found) => Ok(found),
            Err(Fault::Io(error)) => Err(error),
            Err(Fault::Damaged) => Ok(None),
        }
    }
}

/// A record that was asked for.
pub(super) struct FoundRecord {
    /// Which of the segments it is in.
    pub(super) segment: usize,
    pub(super) bytes: Vec<u8>,
    /// Whether nothing before it waits.
    pub(super) is_oldest: bool,
}

/// Why no more records are read.
enum Stop {
    Unreadable(Fault),
    /// It is what was written, and yet no event.
    Unfit {
        number: u64,
        record: Vec<u8>,
        why: &'static str,
    },
}

impl<E: Into<Fault>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Unreadable(error.into())
    }
}

/// Reads records of a segment after a number until the bounds; at least one.
fn collect(
    segment: &Segment,
    keyring: &Keyring,
    after: u64,
    most_events: usize,
    most_bytes: u64,
    entries: &mut Vec<(Number, Entry)>,
) -> Result<(), Stop> {
    let mut window = Window::open(&segment.path)?;
    let mut place = segment.place_after(&mut window, after)?;
    let mut bytes = 0;
    while place.offset < segment.bytes && entries.len() < most_events.max(1) {
        let head = window.head(place.offset, segment.bytes)?;
        bytes += head.record_bytes();
        if bytes > most_bytes && !entries.is_empty() {
            break;
        }
        let record = window.record(place.offset, &head, segment.bytes)?;
        match record::entry(record, keyring) {
            Ok(entry) => entries.push((Number(head.number), entry)),
            // It makes sense to whoever has the key.
            Err(Unfit::Locked(missing)) => return Err(io::Error::other(missing).into()),
            Err(Unfit::Senseless(why)) => {
                return Err(Stop::Unfit { number: head.number, record: record.to_vec(), why });
            }
        }
        place = segment.next(place, &head);
    }
    Ok(())
}
