//! A WebSocket client says who it is, in its first message or with a fresh token later.

use super::conversation::{Subscribe, Work};
use super::session::Session;
use crate::auth::{Identity, Refusal, Right};
use crate::codec::{MessageId, ServerMessage, Token};
use crate::event::Pattern;
use crate::publish::unix_ms;
use crate::server::access::{Access, Denied};
use crate::server::close::CloseReason;
use std::sync::Arc;

impl Session {
    /// Begins to look at a token.
    pub(super) fn identify(&mut self, id: Option<MessageId>, token: &Token) {
        let Some(authority) = self.node.settings().authority.clone() else {
            // Nobody is asked, so every token is good enough.
            return self.tell_authenticated(id);
        };
        let token = token.clone();
        let future = Box::pin(async move { authority.identify(token.expose(), unix_ms()).await });
        self.work = Some(Box::new(Work::Auth { future, id }));
    }

    /// Puts what a token says in force, or says that it is not good.
    pub(super) fn identified(&mut self, id: Option<MessageId>, identified: Result<Identity, Refusal>) {
        let identity = match identified {
            Ok(identity) => Arc::new(identity),
            Err(refusal) => {
                let told = self.node.refused(&refusal);
                self.refuse(id, told.code, &told.message);
                // With a good token it was let in before, and stays until that one ends.
                if matches!((&self.access, refusal), (Access::Pending, Refusal::Unauthorized(_))) {
                    self.registration.handle().close(CloseReason::Unauthorized);
                }
                return;
            }
        };
        // What is on its way to a user would go to another.
        if self.access.user().is_some_and(|user| identity.user.as_deref() != Some(user)) {
            let message = "this connection is another user's: open a new one";
            return self.refuse(id, "forbidden", message);
        }
        self.node.identify(&self.registration, Some(&identity));
        self.admit(Access::Known(identity));
        self.leave_what_is_denied();
        self.tell_authenticated(id);
        if let Some(asked) = self.asked.take() {
            if let Err(denied) = asked.check(&self.access) {
                self.deny(None, &denied);
                self.registration.handle().close(CloseReason::Forbidden);
                return;
            }
            let subscribe =
                Subscribe { id: None, patterns: asked.patterns.clone(), filter: asked.filter.clone() };
            self.open(asked.request(), subscribe);
        }
    }

    /// Leaves the channels that the token in force does not allow.
    fn leave_what_is_denied(&mut self) {
        let denied: Vec<Pattern> = self
            .subscription
            .patterns()
            .into_iter()
            .filter(|pattern| !self.access.allows(Right::Subscribe, pattern))
            .collect();
        if denied.is_empty() {
            return;
        }
        for pattern in &denied {
            self.subscription.leave(pattern);
        }
        self.node.metrics.subscriptions.sub(denied.len() as i64);
        let access = &self.access;
        self.first.retain(|shown| access.require_channel(Right::Subscribe, &shown.event.channel).is_ok());
        self.say(&ServerMessage::Unsubscribed { id: None, channels: &denied });
    }

    fn tell_authenticated(&mut self, id: Option<MessageId>) {
        if id.is_none() {
            return;
        }
        let access = self.access.clone();
        self.say(&ServerMessage::Authenticated {
            id: id.as_ref(),
            user: access.user(),
            expires: access.identity().and_then(|identity| identity.expires),
        });
    }

    /// Refuses what is not allowed: the client is told that, and the log what was missing.
    pub(super) fn deny(&mut self, id: Option<MessageId>, denied: &Denied) {
        let told = match self.access {
            // It has not said who it is, and may still.
            Access::Pending => crate::server::error::ApiError::unauthorized(),
            _ => self.node.denied(&self.access, denied),
        };
        self.refuse(id, told.code, &told.message);
    }
}
