//! The logs that the bus is split into. Nearly always there is one, and everything here only passes it on. With
//! several, each channel has its shard, so order holds within a channel; the shards are sent to at the same time,
//! and read as they come. The link is to all of them or to none.

use crate::bus::backend::{
    Arrival, Backend, LinkError, Opened, Parcel, SendError, SendFailure, Sender, Start, Tail,
};
use crate::event::{Epoch, Position, shard_of};
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use std::fmt;
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

/// The shards of a bus, each a log of its own.
pub(super) struct Shards<B>(Vec<B>);

/// An open link to all of them.
pub(super) struct OpenedShards<B: Backend> {
    pub(super) senders: Senders<B::Sender>,
    pub(super) tails: Vec<B::Tail>,
    /// Which log is on each, and where its tail begins.
    pub(super) starts: Vec<(Epoch, Start)>,
}

impl<B: Backend> Shards<B> {
    /// Shards in the order of their numbers: at least one.
    pub(super) fn new(backends: Vec<B>) -> Self {
        debug_assert!(!backends.is_empty());
        Self(backends)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Opens all of them at the same time; `known` says what this node has of each.
    pub(super) async fn open(
        &self,
        known: &[Option<(Epoch, Position)>],
    ) -> Result<OpenedShards<B>, LinkError> {
        let opening = self.0.iter().zip(known).enumerate().map(|(number, (backend, known))| async move {
            backend.open(*known).await.map_err(|error| self.named(number, error))
        });
        let mut senders = Vec::with_capacity(self.count());
        let mut tails = Vec::with_capacity(self.count());
        let mut starts = Vec::with_capacity(self.count());
        for Opened { sender, tail, epoch, start } in try_join_all(opening).await? {
            senders.push(sender);
            tails.push(tail);
            starts.push((epoch, start));
        }
        Ok(OpenedShards { senders: Senders(senders), tails, starts })
    }

    fn named(&self, number: usize, error: LinkError) -> LinkError {
        if self.count() == 1 {
            return error;
        }
        match error {
            LinkError::Away(why) => LinkError::Away(format!("shard {number}: {why}")),
            LinkError::Refused(why) => LinkError::Refused(format!("shard {number}: {why}")),
        }
    }
}

impl<B: fmt::Display> fmt::Display for Shards<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            [only] => only.fmt(f),
            several => write!(f, "{} ({} shards)", several[0], several.len()),
        }
    }
}

/// Puts each parcel on its shard, and probes on every one.
pub(super) struct Senders<S>(Vec<S>);

/// What goes to one shard: parcels, each with its place among all.
#[derive(Default)]
struct Part {
    parcels: Vec<Parcel>,
    places: Vec<usize>,
}

impl Part {
    fn push(&mut self, place: usize, parcel: &Parcel) {
        self.parcels.push(parcel.clone());
        self.places.push(place);
    }
}

impl<S: Sender> Sender for Senders<S> {
    /// What is confirmed is told up to the first parcel that is not, whatever other shards have of those behind
    /// it: they are sent again under their numbers, and the repetitions are dropped.
    async fn send(&mut self, parcels: &[Parcel]) -> Result<(), SendFailure> {
        if let [only] = &mut *self.0 {
            return only.send(parcels).await;
        }
        let mut parts: Vec<Part> = self.0.iter().map(|_| Part::default()).collect();
        for (place, parcel) in parcels.iter().enumerate() {
            match parcel {
                Parcel::Event { event, .. } => {
                    let shard = shard_of(&event.channel, parts.len());
                    parts[shard].push(place, parcel);
                }
                Parcel::Probe { .. } => parts.iter_mut().for_each(|part| part.push(place, parcel)),
            }
        }
        let sends =
            self.0.iter_mut().zip(&parts).enumerate().filter(|(_, (_, part))| !part.parcels.is_empty());
        let sends = sends.map(|(shard, (sender, part))| async move {
            let failure = sender.send(&part.parcels).await.err()?;
            let confirmed = part.places.get(failure.confirmed).copied().unwrap_or(parcels.len());
            Some(SendFailure { confirmed, error: named(shard, failure.error) })
        });
        // Its error is the one of the parcel that follows what is confirmed.
        match join_all(sends).await.into_iter().flatten().min_by_key(|failure| failure.confirmed) {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
    }

    fn max_event_bytes(&self) -> usize {
        self.0.iter().map(Sender::max_event_bytes).min().unwrap_or(usize::MAX)
    }
}

fn named(shard: usize, error: SendError) -> SendError {
    let name = |why: String| format!("shard {shard}: {why}");
    match error {
        SendError::Lost(why) => SendError::Lost(name(why)),
        SendError::Refused(why) => SendError::Refused(name(why)),
        SendError::Unfit(why) => SendError::Unfit(name(why)),
        SendError::Gone(why) => SendError::Gone(name(why)),
    }
}

type Reading<T> = Pin<Box<dyn Future<Output = (usize, T, Result<Vec<Arrival>, LinkError>)> + Send>>;

/// Reads all shards, whichever has something.
pub(super) struct Tails<T> {
    reading: FuturesUnordered<Reading<T>>,
    most: usize,
    longest_silence: Duration,
    is_silence_excused: Excuse,
}

/// Whether silence has another cause than a dead connection.
pub(super) type Excuse = Arc<dyn Fn() -> bool + Send + Sync>;

impl<T: Tail> Tails<T> {
    /// Takes up to about `most` arrivals at a time. A shard from which nothing comes for `longest_silence` is one
    /// whose connection is dead, as probes are sent more often, unless there is an excuse.
    pub(super) fn new(
        tails: Vec<T>,
        most: usize,
        longest_silence: Duration,
        is_silence_excused: Excuse,
    ) -> Self {
        let merged = Self { reading: FuturesUnordered::new(), most, longest_silence, is_silence_excused };
        for (shard, tail) in tails.into_iter().enumerate() {
            merged.read(shard, tail);
        }
        merged
    }

    fn read(&self, shard: usize, mut tail: T) {
        let (most, longest_silence) = (self.most, self.longest_silence);
        let is_excused = self.is_silence_excused.clone();
        // The silence counts from the first look, not from here: until then others may keep the reader busy.
        self.reading.push(Box::pin(async move {
            let read = {
                let mut next = pin!(tail.next(most));
                loop {
                    match tokio::time::timeout(longest_silence, &mut next).await {
                        Ok(read) => break read,
                        Err(_) if is_excused() => {}
                        Err(_) => {
                            break Err(LinkError::Away(format!(
                                "nothing has come back for {} s although probes were sent",
                                longest_silence.as_secs_f32()
                            )));
                        }
                    }
                }
            };
            (shard, tail, read)
        }));
    }

    /// Waits until something is there on any shard: its number, and what is there. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<(usize, Vec<Arrival>), LinkError> {
        match self.reading.next().await {
            Some((shard, tail, Ok(arrivals))) => {
                self.read(shard, tail);
                Ok((shard, arrivals))
            }
            Some((_, _, Err(error))) => Err(error),
            // After an error the link is opened anew.
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::backend::{Content, Origin};
    use crate::event::{Channel, Data, Event, EventId, EventName, Expiry, Json, Tags};
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Notes what it is given, and fails at the parcel that it is told.
    struct Note {
        taken: Arc<Mutex<Vec<u64>>>,
        fails: Option<(usize, SendError)>,
    }

    impl Sender for Note {
        async fn send(&mut self, parcels: &[Parcel]) -> Result<(), SendFailure> {
            let most = self.fails.as_ref().map_or(parcels.len(), |(at, _)| *at);
            let numbers = parcels.iter().take(most).map(|parcel| match parcel {
                Parcel::Event { sequence, .. } => *sequence,
                Parcel::Probe { number, .. } => 1000 + number,
            });
            self.taken.lock().unwrap_or_else(|error| error.into_inner()).extend(numbers);
            match self.fails.take() {
                Some((confirmed, error)) => Err(SendFailure { confirmed, error }),
                None => Ok(()),
            }
        }

        fn max_event_bytes(&self) -> usize {
            self.fails.as_ref().map_or(100, |_| 50)
        }
    }

    fn parcel(channel: &str, sequence: u64) -> Parcel {
        let event = Event {
            position: Position::ZERO,
            id: EventId::fresh(),
            id_given: false,
            channel: Channel::parse(channel).unwrap(),
            name: EventName::default(),
            data: Data::Json(Json::null()),
            time: 1,
            tags: Tags::default(),
            expiry: Expiry::Live,
            exclude: None,
            from: None,
            way: None,
        };
        Parcel::Event { event: Arc::new(event), origin: Origin(1), sequence }
    }

    /// Channels of each of two shards.
    fn channels() -> [String; 2] {
        let on = |shard| {
            let names = (0..100).map(|n| format!("c.{n}"));
            names.into_iter().find(|name| shard_of(&Channel::parse(name).unwrap(), 2) == shard).unwrap()
        };
        [on(0), on(1)]
    }

    async fn send(fails: [Option<(usize, SendError)>; 2]) -> (Vec<Vec<u64>>, Result<(), SendFailure>) {
        let taken: [Arc<Mutex<Vec<u64>>>; 2] = Default::default();
        let notes = taken.iter().zip(fails).map(|(taken, fails)| Note { taken: taken.clone(), fails });
        let mut senders = Senders(notes.collect());
        let [zero, one] = channels();
        let probe = Parcel::Probe { origin: Origin(1), number: 7 };
        let parcels =
            [parcel(&zero, 1), parcel(&one, 2), parcel(&zero, 3), parcel(&one, 4), parcel(&zero, 5), probe];
        let sent = senders.send(&parcels).await;
        (taken.iter().map(|taken| taken.lock().unwrap().clone()).collect(), sent)
    }

    #[tokio::test]
    async fn each_channel_keeps_its_shard_and_its_order() {
        let (taken, sent) = send([None, None]).await;
        assert!(sent.is_ok());
        assert_eq!(taken, [vec![1, 3, 5, 1007], vec![2, 4, 1007]]);
    }

    #[tokio::test]
    async fn what_is_confirmed_ends_at_the_first_that_is_not() {
        let lost = || SendError::Lost("cut".into());
        let unfit = || SendError::Unfit("big".into());
        for (fails, confirmed, error) in [
            ([Some((2, lost())), None], 4, "shard 0: cut"),
            ([None, Some((0, lost()))], 1, "shard 1: cut"),
            ([Some((1, unfit())), Some((1, lost()))], 2, "shard 0: big"),
            ([Some((2, unfit())), Some((1, lost()))], 3, "shard 1: cut"),
            ([None, Some((2, lost()))], 5, "shard 1: cut"),
        ] {
            let (_, sent) = send(fails).await;
            let failure = sent.unwrap_err();
            assert_eq!((failure.confirmed, failure.error.to_string().as_str()), (confirmed, error));
        }
    }

    /// Has so many batches, then nothing.
    struct Batches(VecDeque<Vec<Arrival>>);

    impl Tail for Batches {
        async fn next(&mut self, _: usize) -> Result<Vec<Arrival>, LinkError> {
            match self.0.pop_front() {
                Some(batch) => Ok(batch),
                None => pending().await,
            }
        }
    }

    fn batches(count: u64) -> Batches {
        let arrival = |number| Arrival {
            position: Some(Position(number)),
            content: Content::Probe { origin: Origin(1), number },
        };
        Batches((1..=count).map(|number| vec![arrival(number)]).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn all_shards_are_read_each_in_its_order_and_a_silent_one_is_told() {
        let excused = Arc::new(AtomicBool::new(true));
        let (excuse, started) = (excused.clone(), tokio::time::Instant::now());
        let is_excused = move || excuse.load(Ordering::Relaxed);
        let tails = vec![batches(50), batches(3)];
        let mut tails = Tails::new(tails, 10, Duration::from_secs(10), Arc::new(is_excused));
        let mut read = [Vec::new(), Vec::new()];
        for _ in 0..53 {
            let (shard, arrivals) = tails.next().await.unwrap();
            read[shard].extend(arrivals.into_iter().filter_map(|arrival| arrival.position));
        }
        assert_eq!(read[0], (1..=50).map(Position).collect::<Vec<_>>());
        assert_eq!(read[1], (1..=3).map(Position).collect::<Vec<_>>());
        let waited = tokio::time::timeout(Duration::from_secs(95), tails.next()).await;
        assert!(waited.is_err(), "silence has an excuse");
        excused.store(false, Ordering::Relaxed);
        let error = tails.next().await.unwrap_err();
        assert!(error.to_string().contains("nothing has come back for 10 s"), "{error}");
        assert_eq!(started.elapsed(), Duration::from_secs(100));
    }
}
