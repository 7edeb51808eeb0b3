//! What a WebSocket client publishes.

use super::conversation::{BoxFuture, Work};
use super::session::Session;
use crate::bus::{Outcome, Refused};
use crate::codec::{MessageId, ServerMessage};
use crate::intake::read_message;
use crate::publish::{Ack, Published};
use crate::server::access::Access;
use crate::server::client_publish::sign;
use crate::server::error::ApiError;
use crate::server::publish::{admit, error_code};
use std::task::{Context, Poll};

/// Publishes of one client that may wait at a time for what replaces them; of more, one after the other.
const MAX_HELD: usize = 16;

/// A publish on its way.
pub(super) struct Publish {
    pub(super) future: BoxFuture<Vec<Published>>,
    pub(super) id: Option<MessageId>,
}

impl Session {
    /// Begins to publish the event of a message.
    pub(super) fn publish(&mut self, id: Option<MessageId>, message: &str, echo: bool) {
        if matches!(self.access, Access::Pending) {
            let told = ApiError::unauthorized();
            return self.refuse(id, told.code, &told.message);
        }
        let settings = self.node.settings();
        let paced = read_message(message, &settings.intake).and_then(|mut draft| {
            sign(&self.node, &settings, &self.access, &self.registration, &mut draft)?;
            admit(&self.node, &settings, draft)
        });
        let mut paced = match paced {
            Ok(paced) => paced,
            Err(error) => return self.refuse(id, error.code, &error.message),
        };
        paced.draft.exclude = (!echo).then(|| self.registration.id());
        // What has to wait for its time must not hold up what replaces it.
        let may_be_held = paced.interval.is_some() && self.held.len() < MAX_HELD;
        match self.node.publisher.begin(vec![paced], Ack::Log) {
            Err(refused) => self.tell_published(id, Err(refused)),
            Ok(publishing) => {
                let publish = Publish { future: Box::pin(publishing.published()), id };
                if may_be_held {
                    self.held.push(publish);
                } else {
                    self.work = Some(Box::new(Work::Publishing(publish)));
                }
            }
        }
    }

    /// Tells what became of publishes that had to wait for their time; true if any is done.
    pub(super) fn poll_held(&mut self, context: &mut Context<'_>) -> bool {
        let (mut index, mut progress) = (0, false);
        while let Some(publish) = self.held.get_mut(index) {
            match publish.future.as_mut().poll(context) {
                Poll::Pending => index += 1,
                Poll::Ready(published) => {
                    let Publish { id, .. } = self.held.remove(index);
                    self.tell_published(id, Ok(published));
                    progress = true;
                }
            }
        }
        progress
    }

    /// Tells what became of it.
    pub(super) fn tell_published(
        &mut self,
        id: Option<MessageId>,
        published: Result<Vec<Published>, Refused>,
    ) {
        let published = match published {
            Ok(mut published) => published.pop(),
            Err(Refused::QueueFull) => {
                return self.refuse(
                    id,
                    "queue_full",
                    "too many publishes are waiting: try again in a moment",
                );
            }
            Err(Refused::TooLarge) => {
                let (_, code, message) = error_code(Outcome::TooLarge, Ack::Log);
                return self.refuse(id, code, message);
            }
            Err(Refused::Closed) => None,
        };
        let Some(Published { id: event_id, outcome, .. }) = published else {
            return self.refuse(id, "unavailable", "this node is going away: try again");
        };
        let status = match outcome {
            Outcome::Published(_) | Outcome::Confirmed => "published",
            Outcome::Queued => "queued",
            Outcome::Conflated => "conflated",
            Outcome::Duplicate(_) => "duplicate",
            Outcome::Crowded
            | Outcome::QueueFull
            | Outcome::TooLarge
            | Outcome::NoRoom
            | Outcome::Unavailable
            | Outcome::TimedOut => {
                let (_, code, message) = error_code(outcome, Ack::Log);
                return self.refuse(id, code, message);
            }
        };
        self.say(&ServerMessage::Published { id: id.as_ref(), event_id: event_id.as_str(), status });
    }
}
