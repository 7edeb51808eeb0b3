//! What a WebSocket client publishes.

use super::conversation::Work;
use super::session::Session;
use crate::bus::{Outcome, Refused};
use crate::codec::{MessageId, ServerMessage};
use crate::intake::read_message;
use crate::publish::{Ack, Published};
use crate::server::access::Access;
use crate::server::client_publish::sign;
use crate::server::error::ApiError;
use crate::server::publish::{check, error_code};

impl Session {
    /// Begins to publish the event of a message.
    pub(super) fn publish(&mut self, id: Option<MessageId>, message: &str, echo: bool) {
        if matches!(self.access, Access::Pending) {
            let told = ApiError::unauthorized();
            return self.refuse(id, told.code, &told.message);
        }
        let settings = self.node.settings();
        let draft = read_message(message, &settings.intake).and_then(|mut draft| {
            sign(&self.node, &settings, &self.access, &self.registration, &mut draft)?;
            check(&self.node, &settings, &draft).map(|()| draft)
        });
        let mut draft = match draft {
            Ok(draft) => draft,
            Err(error) => return self.refuse(id, error.code, &error.message),
        };
        draft.exclude = (!echo).then(|| self.registration.id());
        let node = self.node.clone();
        let future = Box::pin(async move { node.publisher.publish(vec![draft], Ack::Log).await });
        self.work = Some(Box::new(Work::Publishing { future, id }));
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
            Outcome::Duplicate(_) => "duplicate",
            Outcome::QueueFull
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
