//! The way of events from a subscription to a socket. No queue: what the socket does not take is read again
//! from the position up to which it did. The only bytes kept for a blocked client are the rest of the frame
//! that was cut, so that 10,000 clients that never read cost next to nothing.

use super::stream::Stream;
use crate::codec::{Framing, Shown};
use crate::event::{EventName, Position};
use crate::hub::Batch;
use crate::metrics::{Metrics, Transport};
use crate::subscribe::{Next, Subscription};
use bytes::Bytes;
use std::cell::Cell;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Writes at one wake-up before other tasks get their turn.
const WRITES_AT_ONCE: u32 = 64;

/// Most pieces of one vectored write.
const PIECES: usize = 64;

/// A rest up to this size is copied, so that it does not keep a whole batch in memory.
const COPIED_REST_BYTES: usize = 4096;

/// One delivery in so many is timed.
const TIMED_ONE_IN: u32 = 64;

/// The sending side of a client.
pub(super) struct Outlet {
    stream: Stream,
    framing: Framing,
    transport: Transport,
    metrics: Arc<Metrics>,
    _counted: Counted,
    /// What was begun and must be finished before anything else.
    rest: Bytes,
    /// The socket was full at the last write.
    blocked: bool,
    /// The event that ends the connection is among what was begun.
    ending: bool,
    /// Since when it has taken nothing.
    stalled_since: Option<Instant>,
    /// Looks at a stall when that may have lasted too long. It outlives the stall, so that a client that is
    /// merely slow does not make one for each write.
    stall_timer: Option<Pin<Box<Sleep>>>,
}

/// Why delivering stopped, other than for lack of events or room.
pub(super) enum Halt {
    /// Something is no longer kept: the client is to be told before what is left follows.
    Lost,
    /// An event that ends the connection was written.
    Done,
    /// The log cannot be read.
    Failed,
    /// The socket is broken.
    Broken,
}

impl From<io::Error> for Halt {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// How far a write got.
struct Written {
    events: usize,
    bytes: usize,
    complete: bool,
}

impl Outlet {
    /// The outlet of a socket; `begin` is sent first.
    pub(super) fn new(
        stream: Stream,
        framing: Framing,
        transport: Transport,
        metrics: Arc<Metrics>,
        begin: Bytes,
    ) -> Self {
        let counted = Counted::new(metrics.clone(), transport);
        Self {
            stream,
            framing,
            transport,
            metrics,
            _counted: counted,
            rest: begin,
            blocked: false,
            ending: false,
            stalled_since: None,
            stall_timer: None,
        }
    }

    /// The socket.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether everything that was handed over is in the socket.
    pub(super) fn is_flushed(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether something waits and the socket takes nothing.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled_since.is_some()
    }

    /// Ready when something has waited for as long as `limit` says, and the socket took nothing of it. To be
    /// polled after a write that is pending: then it wakes the task by itself. A client that was not stalled of
    /// late has no timer.
    pub(super) fn poll_stalled(
        &mut self,
        limit: impl Fn() -> Duration,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            if let Some(timer) = &mut self.stall_timer {
                ready!(timer.as_mut().poll(context));
            }
            let Some(since) = self.stalled_since else {
                self.stall_timer = None;
                return Poll::Pending;
            };
            let due = since + limit();
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            match &mut self.stall_timer {
                Some(timer) => timer.as_mut().reset(due),
                None => self.stall_timer = Some(Box::pin(tokio::time::sleep_until(due))),
            }
        }
    }

    /// The socket, and what was begun and must be finished.
    pub(super) fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.rest)
    }

    /// Sends something that is no event. Only after a flush.
    pub(super) fn send(&mut self, bytes: Bytes) {
        debug_assert!(self.rest.is_empty());
        self.rest = bytes;
    }

    /// Ready when the socket has taken everything and may take more.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.blocked || !self.rest.is_empty() {
            if std::mem::take(&mut self.blocked) {
                self.stalled_since.get_or_insert_with(Instant::now);
                if self.stream.poll_write_ready(context)?.is_pending() {
                    self.blocked = true;
                    return Poll::Pending;
                }
                if self.rest.is_empty() {
                    // It has room: if there is nothing more to write, nothing is stalled.
                    self.stalled_since = None;
                }
                continue;
            }
            match self.stream.try_write(&self.rest) {
                Ok(written) => {
                    self.stalled_since = None;
                    let _ = self.rest.split_to(written);
                    if self.rest.is_empty() {
                        self.rest = Bytes::new();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes single events in order, and takes those that are out of `events`.
    pub(super) fn poll_events(
        &mut self,
        events: &mut Vec<Arc<Shown>>,
        close_on: &[EventName],
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Halt>> {
        loop {
            ready!(self.poll_flush(context))?;
            if self.ending {
                return Poll::Ready(Err(Halt::Done));
            }
            if events.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let done = cut_after(events, close_on);
            let (written, _) = self.write_events(events)?;
            let begun = written.events + usize::from(!self.rest.is_empty());
            self.count(&written, true);
            events.drain(..begun.min(events.len()));
            self.ending = done && events.is_empty();
        }
    }

    /// Writes whatever the subscription has, until there is nothing more or the socket takes nothing more.
    pub(super) fn poll_deliver(
        &mut self,
        subscription: &mut Subscription,
        close_on: &[EventName],
        context: &mut Context<'_>,
    ) -> Poll<Halt> {
        for _ in 0..WRITES_AT_ONCE {
            match ready!(self.poll_flush(context)) {
                Ok(()) => {}
                Err(_) => return Poll::Ready(Halt::Broken),
            }
            if self.ending {
                return Poll::Ready(Halt::Done);
            }
            let before = subscription.position();
            let next = ready!(subscription.poll_next(context));
            let result = match next {
                Next::Batches(batches) => self.write_batches(&batches, before, subscription),
                Next::Events(events) => self.deliver(events, false, before, close_on, subscription),
                Next::Replayed(events) => self.deliver(events, true, before, close_on, subscription),
                Next::Early(events) => self.deliver_early(events, close_on, subscription),
                Next::Lost => Err(Halt::Lost),
                Next::Failed => Err(Halt::Failed),
            };
            let falls = subscription.take_falls();
            if falls > 0 {
                self.metrics.slow_client_falls.inc_by(u64::from(falls));
            }
            if let Err(halt) = result {
                return Poll::Ready(halt);
            }
        }
        // Others first.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn write_batches(
        &mut self,
        batches: &[Arc<Batch>],
        before: Position,
        subscription: &mut Subscription,
    ) -> Result<(), Halt> {
        let length: usize;
        let result = if let [only] = batches {
            let bytes = only.joined(self.framing);
            length = bytes.len();
            self.stream.try_write(bytes)
        } else {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            for (piece, batch) in pieces.iter_mut().zip(batches) {
                *piece = IoSlice::new(batch.joined(self.framing));
            }
            let pieces = &pieces[..batches.len().min(PIECES)];
            length = pieces.iter().map(|piece| piece.len()).sum();
            self.stream.try_write_vectored(pieces)
        };
        let taken = taken(result)?;
        if taken == length {
            self.stalled_since = None;
            let events = batches.iter().map(|batch| batch.events().len()).sum();
            self.count(&Written { events, bytes: length, complete: true }, false);
            self.time(batches);
            return Ok(());
        }
        let events = batches.iter().flat_map(|batch| batch.events());
        let (written, position) = self.cut(events, taken, before);
        self.count(&written, false);
        subscription.rewind(position);
        Ok(())
    }

    fn deliver(
        &mut self,
        mut events: Vec<Arc<Shown>>,
        replayed: bool,
        before: Position,
        close_on: &[EventName],
        subscription: &mut Subscription,
    ) -> Result<(), Halt> {
        let done = cut_after(&mut events, close_on);
        let last = events.last().map_or(before, |shown| shown.event.position);
        let mut reached = before;
        let mut left = &events[..];
        while !left.is_empty() {
            let (written, position) = self.write_events_after(left, reached)?;
            self.count(&written, replayed);
            if !written.complete {
                // Its rest is kept, even if the event itself is the last one.
                self.ending = done && position == last;
                subscription.rewind(position);
                return Ok(());
            }
            left = &left[written.events..];
            reached = position;
        }
        self.ending = done;
        Ok(())
    }

    /// Events that have no place in the log yet: what the socket did not take is asked for again by number.
    fn deliver_early(
        &mut self,
        events: Vec<(u64, Arc<Shown>)>,
        close_on: &[EventName],
        subscription: &mut Subscription,
    ) -> Result<(), Halt> {
        let (numbers, mut events): (Vec<u64>, Vec<Arc<Shown>>) = events.into_iter().unzip();
        let done = cut_after(&mut events, close_on);
        let mut out = 0;
        while out < events.len() {
            let (written, _) = self.write_events(&events[out..])?;
            self.count(&written, false);
            out += written.events + usize::from(!written.complete && !self.rest.is_empty());
            if !written.complete {
                self.ending = done && out == events.len();
                subscription.rewind_early(out.checked_sub(1).map_or(numbers[0] - 1, |last| numbers[last]));
                return Ok(());
            }
        }
        self.ending = done;
        Ok(())
    }

    fn write_events(&mut self, events: &[Arc<Shown>]) -> Result<(Written, Position), Halt> {
        self.write_events_after(events, Position::ZERO)
    }

    /// One vectored write of as many events as fit; `before` is the position reached so far.
    fn write_events_after(
        &mut self,
        events: &[Arc<Shown>],
        before: Position,
    ) -> Result<(Written, Position), Halt> {
        let events = &events[..events.len().min(PIECES)];
        let mut pieces = [IoSlice::new(&[]); PIECES];
        for (piece, shown) in pieces.iter_mut().zip(events) {
            *piece = IoSlice::new(shown.frame(self.framing));
        }
        let pieces = &pieces[..events.len()];
        let taken = taken(self.stream.try_write_vectored(pieces))?;
        Ok(self.cut(events.iter(), taken, before))
    }

    /// Where a write of `taken` bytes ended among these events: keeps the rest of the one that was cut, and
    /// says up to which position everything is out or kept.
    fn cut<'a>(
        &mut self,
        events: impl Iterator<Item = &'a Arc<Shown>>,
        taken: usize,
        before: Position,
    ) -> (Written, Position) {
        let mut written = Written { events: 0, bytes: taken, complete: true };
        let mut position = before;
        let mut left = taken;
        if taken > 0 {
            self.stalled_since = None;
        }
        for shown in events {
            let frame = shown.frame(self.framing);
            if left < frame.len() {
                written.complete = false;
                if left > 0 {
                    let rest = shown.frame_bytes(self.framing).slice(left..);
                    self.rest =
                        if rest.len() <= COPIED_REST_BYTES { Bytes::copy_from_slice(&rest) } else { rest };
                    position = shown.event.position;
                }
                self.blocked = true;
                break;
            }
            left -= frame.len();
            written.events += 1;
            position = shown.event.position;
        }
        (written, position)
    }

    fn count(&self, written: &Written, replayed: bool) {
        let counters = self.metrics.transport(self.transport);
        counters.delivered_events.inc_by(written.events as u64);
        counters.delivered_bytes.inc_by(written.bytes as u64);
        if replayed {
            counters.replayed_events.inc_by(written.events as u64);
            counters.replayed_bytes.inc_by(written.bytes as u64);
        }
    }

    fn time(&self, batches: &[Arc<Batch>]) {
        thread_local!(static DELIVERIES: Cell<u32> = const { Cell::new(0) });
        let count = DELIVERIES.get().wrapping_add(1);
        DELIVERIES.set(count);
        if count.is_multiple_of(TIMED_ONE_IN) {
            self.metrics.delivery_seconds.observe(batches[0].accepted().elapsed().as_secs_f64());
        }
    }
}

/// Counts a connection while it is open.
struct Counted(Arc<Metrics>, Transport);

impl Counted {
    fn new(metrics: Arc<Metrics>, transport: Transport) -> Self {
        let counters = metrics.transport(transport);
        counters.connections.inc();
        counters.opened.inc();
        Self(metrics, transport)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.transport(self.1).connections.dec();
    }
}

/// The bytes that a write took; a socket that is full took none.
fn taken(result: io::Result<usize>) -> Result<usize, Halt> {
    match result {
        Ok(taken) => Ok(taken),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        Err(_) => Err(Halt::Broken),
    }
}

/// Drops what comes after the first event that ends the connection; true if there is one.
fn cut_after(events: &mut Vec<Arc<Shown>>, close_on: &[EventName]) -> bool {
    if close_on.is_empty() {
        return false;
    }
    match events.iter().position(|shown| close_on.contains(&shown.event.name)) {
        Some(last) => {
            events.truncate(last + 1);
            true
        }
        None => false,
    }
}
