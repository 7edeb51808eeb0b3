//! Opening a link to JetStream: what the log there is to this node.

use super::link::Link;
use super::options::NatsOptions;
use super::publisher::Publisher;
use super::stream::{Kept, Stream};
use super::tail::{Reading, StreamTail};
use crate::bus::backend::{Backend, LinkError, Opened, Start};
use crate::event::{Channel, Epoch, Position};
use async_nats::jetstream::ContextBuilder;
use std::fmt;
use std::time::Duration;

/// For connecting, looking and making, all together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(8);
/// For one question to JetStream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// JetStream: one stream, in which the place of a message is the position of its event.
#[derive(Debug)]
pub struct JetStream {
    options: NatsOptions,
    stream: Stream,
}

impl JetStream {
    /// The stream of the namespace on these servers, kept so.
    pub fn new(options: NatsOptions, kept: Kept) -> Self {
        let stream = Stream::new(&options.namespace, kept);
        Self { options, stream }
    }

    async fn open_on(
        &self,
        link: &Link,
        known: Option<(Epoch, Position)>,
    ) -> Result<Opened<Self>, LinkError> {
        let context = ContextBuilder::new().timeout(ANSWER_TIMEOUT).build(link.client().clone());
        let (mut epoch, mut state) = self.stream.ensure(&context).await?;
        let mut relation = relate(known, epoch, state.first_sequence, state.last_sequence);
        if relation.is_none() {
            (epoch, state) = self.stream.renew(&context, epoch).await?;
            relation = relate(known, epoch, state.first_sequence, state.last_sequence);
        }
        let start = relation.ok_or_else(|| {
            LinkError::Away(format!(
                "the epoch of the NATS stream {} could not be renewed",
                self.stream.name()
            ))
        })?;
        let from = match (start, known) {
            (Start::Continues | Start::Now, Some((_, position))) => position.0 + 1,
            (Start::Continues | Start::Now, None) => state.last_sequence + 1,
            (Start::Gap { up_to: before } | Start::Anew { after: before }, _) => before.0 + 1,
        };
        let reading = Reading {
            stream: self.stream.name().to_owned(),
            controls: self.stream.subject(&Channel::control()),
            epoch,
            last: state.last_sequence,
            from,
            exactly: !matches!(start, Start::Anew { .. }),
        };
        let tail = StreamTail::begin(link.clone(), context, reading).await?;
        let sender = Publisher::begin(link.clone(), self.stream.clone(), state.last_sequence).await?;
        Ok(Opened { sender, tail, epoch, start })
    }

    async fn connect(&self, known: Option<(Epoch, Position)>) -> Result<Opened<Self>, LinkError> {
        let link = Link::connect(&self.options).await?;
        tokio::select! {
            biased;
            opened = self.open_on(&link, known) => opened,
            // A right that is missing shows here, as the question that needs it gets no answer.
            reason = link.broken() => Err(reason),
        }
    }
}

/// What the log is to a node; none if it has lost what the node has of it.
fn relate(known: Option<(Epoch, Position)>, epoch: Epoch, first: u64, last: u64) -> Option<Start> {
    // An empty stream that never held anything begins with 0.
    let before = Position(first.max(1) - 1);
    match known {
        Some((ours, Position(known))) if ours == epoch => match () {
            () if known > last => None,
            () if known < before.0 => Some(Start::Gap { up_to: before }),
            () => Some(Start::Continues),
        },
        _ => Some(Start::Anew { after: before }),
    }
}

impl Backend for JetStream {
    type Sender = Publisher;
    type Tail = StreamTail;

    fn is_ordered(&self) -> bool {
        true
    }

    async fn open(&self, known: Option<(Epoch, Position)>) -> Result<Opened<Self>, LinkError> {
        // Boxed, as it is large and waits seldom.
        let opened = tokio::time::timeout(OPEN_TIMEOUT, Box::pin(self.connect(known))).await;
        opened.unwrap_or_else(|_| {
            Err(LinkError::Away(format!("NATS was not ready within {} s", OPEN_TIMEOUT.as_secs())))
        })
    }
}

impl fmt::Display for JetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (stream {})", self.options, self.stream.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_is_to_a_node() {
        const OURS: Epoch = Epoch(1);
        let known = |position| Some((OURS, Position(position)));
        let gap = |up_to| Some(Start::Gap { up_to: Position(up_to) });
        let anew = |after| Some(Start::Anew { after: Position(after) });
        for (known, epoch, first, last, start) in [
            (known(0), OURS, 0, 0, Some(Start::Continues)),
            (known(0), OURS, 1, 5, Some(Start::Continues)),
            (known(5), OURS, 1, 5, Some(Start::Continues)),
            (known(5), OURS, 6, 9, Some(Start::Continues)),
            (known(5), OURS, 7, 9, gap(6)),
            // Everything was purged: an empty stream begins after its last.
            (known(9), OURS, 10, 9, Some(Start::Continues)),
            (known(5), OURS, 10, 9, gap(9)),
            (known(6), OURS, 1, 5, None),
            (known(6), OURS, 0, 0, None),
            (known(6), Epoch(2), 1, 5, anew(0)),
            (known(2), Epoch(2), 4, 5, anew(3)),
            (None, OURS, 0, 0, anew(0)),
            (None, OURS, 4, 5, anew(3)),
        ] {
            assert_eq!(relate(known, epoch, first, last), start, "{known:?} {epoch:?} {first} {last}");
        }
    }
}
