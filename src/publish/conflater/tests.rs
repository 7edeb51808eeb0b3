use super::*;
use crate::bus::Receipt;
use crate::event::{Data, EventName, Expiry, Json, Tags};
use proptest::prelude::*;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

const INTERVAL: Duration = Duration::from_millis(100);

/// A bus that notes what it is given, and when.
#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
    is_full: AtomicBool,
}

impl Bus for Recorder {
    fn publish(&self, events: Vec<Stamped>) -> Result<Vec<Position>, Refused> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(Refused::QueueFull);
        }
        let mut recorded = self.events.lock().unwrap();
        for Stamped { event, slot } in events {
            recorded.push(event);
            if let Some(slot) = slot {
                slot.settle(Outcome::Published(Position(recorded.len() as u64)));
            }
        }
        Ok(Vec::new())
    }

    fn probe(&self, _: oneshot::Sender<()>) -> Result<(), Refused> {
        Ok(())
    }

    fn close(&self) {}
}

impl fmt::Display for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a recorder")
    }
}

struct Bench {
    bus: Arc<Recorder>,
    conflater: Arc<Conflater>,
    begin: Instant,
    receipts: Vec<Receipt>,
}

impl Bench {
    fn new() -> Self {
        let bus = Arc::<Recorder>::default();
        let conflater = Conflater::new(bus.clone(), Arc::default());
        Self { bus, conflater, begin: Instant::now(), receipts: Vec::new() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.begin + Duration::from_millis(ms)
    }

    /// Publishes one event whose data is its number.
    fn publish(
        &mut self,
        ms: u64,
        channel: &str,
        number: usize,
        id: Option<&str>,
    ) -> Result<Passed, Refused> {
        let receipt = Receipt::new(1);
        let stamped = Stamped { event: event(channel, number, id), slot: Some(receipt.slot(0)) };
        let events = self.bus.events.lock().unwrap().clone();
        let is_known = |id: &EventId| events.iter().any(|event| event.id == *id);
        let passed = self.conflater.pass(vec![(stamped, Some(INTERVAL))], self.at(ms), is_known)?;
        self.receipts.push(receipt);
        Ok(passed[0])
    }

    fn release(&self, ms: u64) {
        self.conflater.release(self.at(ms));
    }

    fn sent(&self) -> Vec<String> {
        let events = self.bus.events.lock().unwrap();
        events.iter().map(|event| format!("{}{}", event.channel, number(event))).collect()
    }

    async fn outcomes(self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for receipt in self.receipts {
            outcomes.extend(receipt.outcomes(Duration::ZERO).await);
        }
        outcomes
    }
}

fn event(channel: &str, number: usize, id: Option<&str>) -> Event {
    Event {
        position: Position::ZERO,
        id: id.map_or_else(EventId::fresh, |id| EventId::parse(id).unwrap()),
        id_given: id.is_some(),
        channel: Channel::parse(channel).unwrap(),
        name: EventName::default(),
        data: Data::Json(Json::parse(&number.to_string()).unwrap()),
        time: 0,
        tags: Tags::default(),
        expiry: Expiry::Live,
        exclude: None,
        from: None,
        way: None,
    }
}

fn number(event: &Event) -> usize {
    match &event.data {
        Data::Json(json) => json.as_str().parse().unwrap(),
        Data::Bytes(_) => unreachable!("numbers are JSON"),
    }
}

#[tokio::test]
async fn of_what_comes_too_fast_the_newest_goes_out_when_it_is_time() {
    let mut bench = Bench::new();
    for number in 0..5 {
        bench.publish(number as u64 * 10, "a", number, None).unwrap();
    }
    bench.publish(45, "b", 9, None).unwrap();
    bench.release(99);
    assert_eq!(bench.sent(), ["a0", "b9"], "another channel does not wait");
    bench.release(100);
    assert_eq!(bench.sent(), ["a0", "b9", "a4"]);
    bench.publish(199, "a", 5, None).unwrap();
    bench.release(199);
    bench.release(200);
    bench.publish(300, "a", 6, None).unwrap();
    assert_eq!(bench.sent()[3..], ["a5", "a6"]);
    let published = |position| Outcome::Published(Position(position));
    let conflated = Outcome::Conflated;
    let expected = [
        published(1),
        conflated,
        conflated,
        conflated,
        published(3),
        published(2),
        published(4),
        published(5),
    ];
    assert_eq!(bench.outcomes().await, expected);
}

#[tokio::test]
async fn a_repetition_replaces_nothing() {
    let mut bench = Bench::new();
    bench.publish(0, "a", 0, Some("first")).unwrap();
    bench.publish(1, "a", 1, Some("second")).unwrap();
    bench.publish(2, "a", 2, Some("third")).unwrap();
    // What went out goes on, to be found a repetition; what was replaced stays so; what waits goes on waiting.
    assert_eq!(bench.publish(3, "a", 0, Some("first")), Ok(Passed::Sent(None)));
    assert_eq!(bench.publish(3, "a", 1, Some("second")), Ok(Passed::Conflated));
    assert_eq!(bench.publish(3, "a", 2, Some("third")), Ok(Passed::Held));
    bench.conflater.flush();
    assert_eq!(bench.sent(), ["a0", "a0", "a2"]);
    assert_eq!(bench.publish(4, "a", 2, Some("third")), Ok(Passed::Sent(None)));
}

#[tokio::test]
async fn a_refused_request_leaves_no_trace_and_what_was_promised_is_tried_again() {
    let mut bench = Bench::new();
    bench.bus.is_full.store(true, Ordering::Relaxed);
    assert_eq!(bench.publish(0, "a", 0, None), Err(Refused::QueueFull));
    bench.bus.is_full.store(false, Ordering::Relaxed);
    assert_eq!(bench.publish(1, "a", 1, None), Ok(Passed::Sent(None)));
    let unawaited = Stamped { event: event("a", 2, None), slot: None };
    bench.conflater.pass(vec![(unawaited, Some(INTERVAL))], bench.at(2), |_| false).unwrap();
    bench.bus.is_full.store(true, Ordering::Relaxed);
    bench.release(101);
    bench.bus.is_full.store(false, Ordering::Relaxed);
    bench.release(200);
    assert_eq!(bench.sent(), ["a1"]);
    bench.release(201);
    assert_eq!(bench.sent(), ["a1", "a2"]);
    assert_eq!(bench.conflater.lock().held_bytes, 0);
}

#[tokio::test]
async fn channels_and_bytes_that_wait_are_bounded() {
    let mut bench = Bench::new();
    for number in 0..MAX_LANES {
        assert_eq!(bench.publish(0, &format!("c.{number}"), 0, None), Ok(Passed::Sent(None)));
    }
    assert_eq!(bench.publish(1, "more", 0, None), Ok(Passed::Crowded));
    assert_eq!(bench.publish(100, "more", 0, None), Ok(Passed::Sent(None)), "the others are quiet now");
    let large = |channel: &str| {
        let mut event = event(channel, 0, None);
        event.data = Data::Bytes(vec![0; MAX_HELD_BYTES / 2].into());
        vec![(Stamped { event, slot: None }, Some(INTERVAL))]
    };
    for (channel, last) in [("x", Passed::Held), ("y", Passed::Crowded), ("x", Passed::Held)] {
        bench.publish(200, channel, 0, None).unwrap();
        let passed = bench.conflater.pass(large(channel), bench.at(201), |_| false).unwrap();
        assert_eq!(passed, [last], "{channel}");
    }
}

proptest! {
    /// Whatever comes when: what goes out is in order and not too fast, every publisher is told once and the truth,
    /// and the newest event of each channel goes out in the end.
    #[test]
    fn nothing_is_lost_but_what_a_newer_one_replaced(
        steps in prop::collection::vec((0u64..60, 0usize..3, any::<bool>(), any::<bool>()), 1..120)
    ) {
        let mut bench = Bench::new();
        let (mut now, mut times) = (0, Vec::new());
        let mut note = |bench: &Bench, now: u64| {
            let sent = bench.bus.events.lock().unwrap().len();
            times.resize(sent, now);
        };
        let mut newest = HashMap::new();
        for (number, (pause, channel, is_held_up, has_id)) in steps.iter().enumerate() {
            for ms in (0..=*pause).step_by(7) {
                // The task may run late.
                if !is_held_up {
                    bench.release(now + ms);
                    note(&bench, now + ms);
                }
            }
            now += pause;
            let channel = ["a", "b", "c"][*channel];
            let id = has_id.then(|| format!("id-{number}"));
            bench.publish(now, channel, number, id.as_deref()).unwrap();
            note(&bench, now);
            newest.insert(channel, number);
        }
        bench.release(now + 1000);
        note(&bench, now + 1000);
        let sent = bench.bus.events.lock().unwrap().clone();
        for (channel, newest) in newest {
            let of_channel: Vec<_> = sent.iter().zip(&times).filter(|(event, _)| event.channel.as_str() == channel).collect();
            for pair in of_channel.windows(2) {
                prop_assert!(number(pair[0].0) < number(pair[1].0));
                prop_assert!(*pair[1].1 >= *pair[0].1 + INTERVAL.as_millis() as u64, "{:?}", times);
            }
            prop_assert_eq!(of_channel.last().map(|(event, _)| number(event)), Some(newest));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for (number, outcome) in runtime.block_on(bench.outcomes()).into_iter().enumerate() {
            match outcome {
                Outcome::Published(position) => prop_assert_eq!(self::number(&sent[position.0 as usize - 1]), number),
                Outcome::Conflated => prop_assert!(sent.iter().all(|event| self::number(event) != number)),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
