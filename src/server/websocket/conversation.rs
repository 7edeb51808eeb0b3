//! What a WebSocket client says and is told. Messages are worked on one by one, in order; what takes longer
//! (reading the log) is work that the session moves on.

use super::publishing::Publish;
use super::session::{Session, WAITING_BYTES};
use crate::audit::Action;
use crate::auth::{Identity, Refusal, Right};
use crate::codec::{self, ClientMessage, MessageId, Resume, ServerMessage};
use crate::event::{Cursor, Filter, Interest, Pattern, Position};
use crate::log::{Order, Query, QueryPage};
use crate::server::history::blocking;
use crate::subscribe::{Had, LogReader, MAX_HISTORY, Opening, Request, Subscription, open};
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Events of one `history` answer, unless the client says.
const HISTORY_LIMIT: usize = 100;

/// What a message began that cannot be done at once. Messages are worked on one by one, in order.
pub(super) enum Work {
    Opening {
        future: BoxFuture<Opening>,
        asked: Subscribe,
    },
    /// Waits until the client has everything up to now.
    Opened {
        opening: Opening,
        asked: Subscribe,
    },
    /// Events that only the new channels missed; what is live waits.
    Replaying {
        reader: LogReader,
        addition: Addition,
        told_lost: Position,
    },
    History {
        future: BoxFuture<Result<QueryPage, NoHistory>>,
        id: Option<MessageId>,
    },
    Auth {
        future: BoxFuture<Result<Identity, Refusal>>,
        id: Option<MessageId>,
    },
    Publishing(Publish),
}

/// Why there is no history for a client.
pub(super) enum NoHistory {
    /// The log of its cursor is gone.
    Reset,
    /// The log cannot be read now.
    Unavailable,
}

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A `subscribe` in work.
pub(super) struct Subscribe {
    pub(super) id: Option<MessageId>,
    pub(super) patterns: Vec<Pattern>,
    pub(super) filter: Option<Arc<Filter>>,
}

/// One in work beside others that have begun.
pub(super) struct Addition {
    asked: Subscribe,
    /// What its client has got on its channels.
    had: Option<Arc<Had>>,
}

impl Session {
    /// Works on messages until one begins something longer; true if there was any.
    pub(super) fn work_on_messages(&mut self) -> bool {
        let mut progress = false;
        while self.work.is_none() && self.waiting_bytes <= WAITING_BYTES {
            let Some(message) = self.inbox.pop_front() else { break };
            progress = true;
            match message {
                Ok(message) => self.answer(message),
                Err(error) => self.refuse(error.id, error.code, &error.message),
            }
        }
        if self.inbox.is_empty() && self.inbox.capacity() > 0 {
            self.inbox = VecDeque::new();
        }
        progress
    }

    pub(super) fn answer(&mut self, message: ClientMessage) {
        match message {
            ClientMessage::Auth { id, token } => self.identify(id, &token),
            ClientMessage::Publish { id, message, echo } => self.publish(id, &message, echo),
            ClientMessage::Ping { id } => self.say(&ServerMessage::Pong { id: id.as_ref() }),
            ClientMessage::Subscribe(asked) => {
                let codec::Subscribe { id, channels, cursor, history, last, filter } = asked;
                let most = self.node.settings().subscriptions;
                if self.subscription.len() + channels.len() > most {
                    let message = format!("a connection takes at most {most} channels and patterns");
                    return self.refuse(id, "too_many_channels", &message);
                }
                let keeps = history.unwrap_or(0) > 0 || last;
                let allowed = self.access.require(Right::Subscribe, &channels).and_then(|()| match keeps {
                    true => self.access.require(Right::History, &channels),
                    false => Ok(()),
                });
                if let Err(denied) = allowed {
                    return self.deny(id, &denied);
                }
                let filter = (!filter.is_open()).then(|| Arc::new(filter));
                let request = Request {
                    interest: Interest::new(channels.iter().cloned()),
                    filter: filter.clone(),
                    cursor,
                    history: history.unwrap_or(0),
                    last,
                };
                self.open(request, Subscribe { id, patterns: channels, filter });
            }
            ClientMessage::Unsubscribe { id, channels } => {
                let left: Vec<_> =
                    channels.iter().filter(|pattern| self.subscription.leave(pattern)).collect();
                self.node.metrics.subscriptions.sub(left.len() as i64);
                let channels: Vec<_> = left.into_iter().cloned().collect();
                self.say(&ServerMessage::Unsubscribed { id: id.as_ref(), channels: &channels });
            }
            ClientMessage::History { id, channel, after, limit } => {
                if let Err(denied) = self.access.require(Right::History, [&channel]) {
                    return self.deny(id, &denied);
                }
                let source = self.node.source.clone();
                if limit.is_some_and(|limit| limit > MAX_HISTORY) {
                    let message =
                        format!("`limit` is at most {MAX_HISTORY}: ask for the next page by its cursor");
                    return self.refuse(id, "invalid_parameter", &message);
                }
                let mut query = Query {
                    interest: Interest::new([channel]),
                    filter: Filter::default(),
                    since: None,
                    until: None,
                    after: Position::ZERO,
                    before: None,
                    limit: limit.unwrap_or(HISTORY_LIMIT),
                    offset: 0,
                    order: Order::Ascending,
                };
                let read = move || {
                    let Some(cursor) = after else { return source.log.query(&query).map(Ok) };
                    match source.known_position(&cursor)? {
                        Some(position) => query.after = position,
                        None => return Ok(Err(NoHistory::Reset)),
                    }
                    let mut page = source.log.query(&query)?;
                    source.keep_between(&mut page.events, Some(&cursor), None);
                    Ok(Ok(page))
                };
                let future: BoxFuture<_> =
                    Box::pin(async move { blocking(read).await.unwrap_or(Err(NoHistory::Unavailable)) });
                self.work = Some(Box::new(Work::History { future, id }));
            }
            ClientMessage::Unavailable { id, kind } => {
                let message = format!("`{kind}` is not available in this version");
                self.refuse(id, "forbidden", &message);
            }
        }
    }

    /// Moves what a message began; true if it got further.
    pub(super) fn poll_work(&mut self, idle: bool, context: &mut Context<'_>) -> bool {
        let Some(mut work) = self.work.take() else { return false };
        match &mut *work {
            Work::Opening { future, .. } => {
                let Poll::Ready(opening) = future.as_mut().poll(context) else {
                    self.work = Some(work);
                    return false;
                };
                let Work::Opening { asked, .. } = *work else { unreachable!("matched above") };
                self.work = Some(Box::new(Work::Opened { opening, asked }));
                true
            }
            Work::Opened { .. } if !idle && !self.subscription.is_empty() => {
                self.work = Some(work);
                false
            }
            Work::Opened { .. } => {
                let Work::Opened { opening, asked } = *work else { unreachable!("matched above") };
                self.begin_subscription(opening, asked);
                true
            }
            Work::Replaying { reader, told_lost, addition } => {
                if !idle {
                    self.work = Some(work);
                    return false;
                }
                if reader.is_done() {
                    let Work::Replaying { addition, .. } = *work else { unreachable!("matched above") };
                    self.join_later(&addition);
                    return true;
                }
                let Poll::Ready(page) = reader.poll_page(context) else {
                    self.work = Some(work);
                    return false;
                };
                match page {
                    Some(page) => {
                        let lost = page.lost && page.after >= *told_lost;
                        *told_lost = if lost { Position::MAX } else { *told_lost };
                        self.first = page.events;
                        if let Some(had) = &addition.had {
                            self.first.retain(|shown| !had.has(&shown.event));
                        }
                        self.work = Some(work);
                        if lost {
                            self.tell_lost(page.after);
                        }
                    }
                    None => {
                        let Work::Replaying { addition, .. } = *work else { unreachable!("matched above") };
                        self.refuse(
                            addition.asked.id,
                            "unavailable",
                            "the log cannot be read now: subscribe again",
                        );
                    }
                }
                true
            }
            Work::Auth { future, .. } => {
                let Poll::Ready(identified) = future.as_mut().poll(context) else {
                    self.work = Some(work);
                    return false;
                };
                let Work::Auth { id, .. } = *work else { unreachable!("matched above") };
                self.identified(id, identified);
                true
            }
            Work::Publishing(publish) => {
                let Poll::Ready(published) = publish.future.as_mut().poll(context) else {
                    self.work = Some(work);
                    return false;
                };
                let Work::Publishing(Publish { id, .. }) = *work else { unreachable!("matched above") };
                self.tell_published(id, Ok(published));
                true
            }
            Work::History { future, .. } => {
                let Poll::Ready(page) = future.as_mut().poll(context) else {
                    self.work = Some(work);
                    return false;
                };
                let Work::History { id, .. } = *work else { unreachable!("matched above") };
                self.tell_history(id, page);
                true
            }
        }
    }

    /// Begins to look where a subscription starts.
    pub(super) fn open(&mut self, request: Request, asked: Subscribe) {
        let node = self.node.clone();
        let future: BoxFuture<_> = Box::pin(async move { open(&node.source, &request).await });
        self.work = Some(Box::new(Work::Opening { future, asked }));
    }

    /// Tells where a subscription begins, and begins it.
    pub(super) fn begin_subscription(&mut self, opening: Opening, asked: Subscribe) {
        self.node.metrics.resumed(opening.resume.as_str());
        if opening.resume == Resume::Unavailable {
            return self.refuse(asked.id, "unavailable", "the log cannot be read now: subscribe again");
        }
        let cursor = opening.cursor(&self.node.source);
        self.tell_subscribed(asked.id.as_ref(), &asked.patterns, &cursor, opening.resume);
        if self.subscription.is_empty() {
            self.subscription.begin(&opening);
            self.first = opening.first;
            self.join(&asked, |subscription, pattern, filter| subscription.join(pattern, filter));
            return;
        }
        self.first = opening.first;
        let addition = Addition { asked, had: opening.had.map(Arc::new) };
        // The other channels stand at `at`. What the new ones missed before it comes first, by itself.
        let at = self.subscription.settle();
        if opening.start < at {
            let interest = Interest::new(addition.asked.patterns.iter().cloned());
            let filter = addition.asked.filter.clone();
            let reader = LogReader::new(self.node.source.clone(), interest, filter, opening.start, at);
            self.work = Some(Box::new(Work::Replaying { reader, addition, told_lost: opening.told_lost }));
        } else {
            self.join_later(&addition);
        }
    }

    fn join_later(&mut self, addition: &Addition) {
        let had = addition.had.as_ref();
        self.join(&addition.asked, |subscription, pattern, filter| {
            subscription.join_later(pattern, filter, had);
        });
    }

    fn join(&mut self, asked: &Subscribe, join: impl Fn(&mut Subscription, &Pattern, Option<Arc<Filter>>)) {
        if self.node.audit.is_on() {
            let channels: Vec<&str> = asked.patterns.iter().map(Pattern::as_str).collect();
            self.node.audit_channels(Action::Subscribed, &self.registration, &self.access, &channels);
        }
        let before = self.subscription.len();
        for pattern in &asked.patterns {
            join(&mut self.subscription, pattern, asked.filter.clone());
        }
        self.node.metrics.subscriptions.add((self.subscription.len() - before) as i64);
    }

    pub(super) fn tell_subscribed(
        &mut self,
        id: Option<&MessageId>,
        patterns: &[Pattern],
        cursor: &Cursor,
        resume: Resume,
    ) {
        let cursor = cursor.encode();
        self.say(&ServerMessage::Subscribed { id, channels: patterns, cursor: cursor.as_str(), resume });
    }

    /// Something after `at` is no longer kept; what is left follows.
    pub(super) fn tell_lost(&mut self, at: Position) {
        let patterns = self.subscription.patterns();
        let cursor = self.subscription.cursor_at(at);
        self.tell_subscribed(None, &patterns, &cursor, Resume::Expired);
    }

    pub(super) fn tell_history(&mut self, id: Option<MessageId>, page: Result<QueryPage, NoHistory>) {
        let page = match page {
            Ok(page) => page,
            Err(NoHistory::Reset) => {
                return self.refuse(id, "reset", "the log of this cursor is gone: ask without it");
            }
            Err(NoHistory::Unavailable) => {
                return self.refuse(id, "unavailable", "the log cannot be read now: try again");
            }
        };
        let events = self.node.source.shown(page.events);
        let cursor = self.node.source.cursor(page.reached).encode();
        self.say(&ServerMessage::History {
            id: id.as_ref(),
            events: &events,
            cursor: cursor.as_str(),
            more: page.more,
        });
    }

    pub(super) fn refuse(&mut self, id: Option<MessageId>, code: &'static str, message: &str) {
        self.node.metrics.error(code);
        self.say(&ServerMessage::Error { id: id.as_ref(), code, message });
    }

    pub(super) fn say(&mut self, message: &ServerMessage<'_>) {
        self.push(message.encode(self.encoding));
    }

    pub(super) fn push(&mut self, frame: Bytes) {
        self.waiting_bytes += frame.len();
        self.waiting.push_back(frame);
    }
}
