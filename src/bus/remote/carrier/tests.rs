use super::*;
use crate::bus::Stamped;
use crate::bus::backend::{Origin, SendFailure};
use crate::bus::remote::shared::State;
use crate::cipher::Keyring;
use crate::event::{Channel, Data, EventId, EventName, Expiry, Json, Position, Tags};
use crate::metrics::Metrics;
use crate::outbox::Limits;

/// Never asked: there is no link.
struct NoSender;

impl Sender for NoSender {
    async fn send(&mut self, _parcels: &[Parcel]) -> Result<(), SendFailure> {
        Ok(())
    }

    fn max_event_bytes(&self) -> usize {
        1 << 20
    }
}

fn event(number: u64) -> Stamped {
    let event = Event {
        position: Position::ZERO,
        id: EventId::parse(&format!("id-{number}")).unwrap(),
        id_given: false,
        channel: Channel::parse(&format!("channel.{number}")).unwrap(),
        name: EventName::default(),
        data: Data::Json(Json::parse("1").unwrap()),
        time: 1,
        tags: Tags::default(),
        expiry: Expiry::At(u64::MAX),
        exclude: None,
        from: None,
        way: None,
    };
    Stamped { event, slot: None }
}

#[tokio::test]
async fn what_comes_when_the_bus_has_just_gone_stays_behind_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 1 << 20, max_age: Duration::from_secs(60) };
    let outbox = Outbox::open(&directory.path().join("outbox"), limits, &Keyring::default()).unwrap();
    let shared = Arc::new(Shared::new(Origin(1), 1, Arc::new(Metrics::new())));
    let inflow = Arc::new(Inflow::new(1 << 20, Duration::from_secs(1), Position::ZERO));
    let (_links, links) = mpsc::channel(1);
    let second = Duration::from_secs(1);
    let mut carrier = Carrier::<NoSender>::new(shared.clone(), inflow, outbox, second, second, links);
    shared.accept(vec![event(1), event(2)]).unwrap();
    carrier.take_accepted().await;
    assert_eq!(carrier.window.len(), 2, "on their way");
    // The state is known before the carrier is told that its link is gone.
    shared.set_state(State::Away("gone".into()));
    shared.accept(vec![event(3)]).unwrap();
    carrier.take_accepted().await;
    carrier.lose_link().await;
    let numbers: Vec<u64> = carrier.to_store.iter().map(|direct| direct.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(carrier.window.is_empty());
}
