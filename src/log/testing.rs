//! Events and logs for the tests of this part.

use super::{Log, LogOptions};
use crate::event::{
    Author, Channel, ConnectionId, Data, Event, EventId, EventName, Expiry, Filter, Interest, Json, Marks,
    Origin, Pattern, Position, Sender, Tags, UnixMs, Way,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(super) struct Builder(Event);

/// An event that is kept for an hour.
pub(super) fn event(position: u64) -> Builder {
    Builder(Event {
        position: Position(position),
        id: EventId::fresh(),
        id_given: false,
        channel: Channel::parse("test.channel").unwrap(),
        name: EventName::default(),
        data: Data::Json(Json::parse(&format!("{{\"n\":{position}}}")).unwrap()),
        time: now(),
        tags: Tags::default(),
        expiry: Expiry::At(now() + 3_600_000),
        exclude: None,
        from: None,
        way: None,
    })
}

impl Builder {
    pub(super) fn id(mut self, id: &str) -> Self {
        self.0.id = EventId::parse(id).unwrap();
        self.0.id_given = true;
        self
    }

    pub(super) fn channel(mut self, channel: &str) -> Self {
        self.0.channel = Channel::parse(channel).unwrap();
        self
    }

    pub(super) fn name(mut self, name: &str) -> Self {
        self.0.name = EventName::parse(name).unwrap();
        self
    }

    pub(super) fn json(mut self, text: &str) -> Self {
        self.0.data = Data::Json(Json::parse(text).unwrap());
        self
    }

    pub(super) fn bytes(mut self, bytes: Vec<u8>) -> Self {
        self.0.data = Data::Bytes(bytes.into());
        self
    }

    pub(super) fn tag(mut self, name: &str, value: &str) -> Self {
        let pairs = self.0.tags.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let pairs: Vec<_> = pairs.chain([(name.to_owned(), value.to_owned())]).collect();
        self.0.tags = Tags::from_pairs(pairs).unwrap();
        self
    }

    pub(super) fn exclude(mut self, connection: &str) -> Self {
        self.0.exclude = Some(ConnectionId::parse(connection).unwrap());
        self
    }

    pub(super) fn from(mut self, user: Option<&str>) -> Self {
        let connection = ConnectionId::parse("n-1").unwrap();
        self.0.from = Some(Box::new(Author::new(user, connection).unwrap()));
        self
    }

    /// Sent by a node as its so-manieth event, with the marks of the shards, if there are several.
    pub(super) fn way(mut self, sender: Option<(u64, u64)>, marks: &[u64]) -> Self {
        let sender = sender.map(|(origin, number)| Sender { origin: Origin(origin), number });
        let marks = Marks::new(marks.iter().copied().map(Position).collect::<Vec<_>>());
        self.0.way = (sender.is_some() || marks.is_some()).then(|| Box::new(Way { sender, marks }));
        self
    }

    pub(super) fn time(mut self, time: UnixMs) -> Self {
        self.0.time = time;
        self
    }

    pub(super) fn expires(mut self, at: UnixMs) -> Self {
        self.0.expiry = Expiry::At(at);
        self
    }

    pub(super) fn live(mut self) -> Self {
        self.0.expiry = Expiry::Live;
        self
    }

    pub(super) fn build(self) -> Event {
        self.0
    }

    pub(super) fn shared(self) -> Arc<Event> {
        Arc::new(self.0)
    }
}

pub(super) fn now() -> UnixMs {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

pub(super) fn options(dir: &Path) -> LogOptions {
    LogOptions::new(dir.join("log"))
}

pub(super) fn open(dir: &Path) -> Log {
    Log::open(options(dir)).unwrap()
}

pub(super) fn interest(patterns: &[&str]) -> Interest {
    Interest::new(patterns.iter().map(|text| Pattern::parse(text).unwrap()))
}

/// Everything that is kept and matches, by reading on until the end.
pub(super) fn read_all(log: &Log, patterns: &[&str]) -> Vec<Arc<Event>> {
    let interest = interest(patterns);
    let mut events = Vec::new();
    let mut after = Position::ZERO;
    while after < log.head() {
        let budget = super::Budget { events: 500, bytes: 1 << 20 };
        let page = log.read_after(&interest, &Filter::default(), after, log.head(), budget).unwrap();
        assert!(page.reached > after, "a page must get on");
        events.extend(page.events);
        after = page.reached;
    }
    events
}

/// Waits for a condition, as long as a slow machine may need.
pub(super) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(2));
    }
}
