//! Long-poll: what is there, as soon as there is something, or nothing at the timeout.

use super::access::Access;
use super::close::CloseReason;
use super::error::ApiError;
use super::history::list;
use super::node::Node;
use super::request::Parameters;
use super::request_subscription::Asked;
use crate::codec::{Framing, ListEnd, Resume, Shown};
use crate::event::Position;
use crate::metrics::{Metrics, Transport};
use crate::publish::unix_ms;
use crate::subscribe::{Next, Subscription, open};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Longest wait that a client may ask for.
const MAX_TIMEOUT_SECONDS: f64 = 120.0;
/// What a client waits that does not say.
const TIMEOUT: Duration = Duration::from_secs(25);
/// Largest page.
const MAX_LIMIT: u64 = 1000;
/// An answer ends with the event that brings it above this: big events make short pages.
const MAX_BYTES: usize = 4 << 20;

/// `GET /v1/poll`.
pub(super) async fn poll(
    node: &Arc<Node>,
    asked: Asked,
    parameters: &Parameters<'_>,
    access: &Access,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let limit = parameters.number("limit", MAX_LIMIT)?.unwrap_or(100).max(1) as usize;
    let timeout = timeout(parameters)?;
    let _open = Open::new(&node.metrics);
    let registration = node.register(access.identity());
    let opening = open(&node.source, &asked.request()).await;
    node.metrics.resumed(opening.resume.as_str());
    if opening.resume == Resume::Unavailable {
        return Err(ApiError::unavailable("unavailable", "the log cannot be read now: try again"));
    }
    let mut subscription = Subscription::new(node.source.clone(), None);
    for pattern in &asked.patterns {
        subscription.join(pattern, asked.filter.clone());
    }
    subscription.begin(&opening);
    let mut at = opening.start;
    let mut page = Page::begin(opening.first, opening.resume, limit);
    // Asking for more than a page of newest events is served by `GET /v1/events`.
    page.events.truncate(limit);
    // What is published after the token has ended is for the next poll, with another one.
    let deadline =
        tokio::time::Instant::now() + access.lasts(unix_ms()).map_or(timeout, |left| left.min(timeout));
    loop {
        // What is there now is taken without waiting, up to the limit.
        match ready_now(&mut subscription, timeout.is_zero() && !page.is_complete()).await {
            Some(next) => {
                if !page.add(next, &mut at, &mut subscription)? {
                    break;
                }
                continue;
            }
            None if page.is_complete() || timeout.is_zero() => {
                if page.events.len() < limit {
                    at = subscription.settle().max(at);
                }
                break;
            }
            None => {}
        }
        let closed = poll_fn(|context| registration.handle().poll_closed(context));
        let next = tokio::select! {
            next = poll_fn(|context| subscription.poll_next(context)) => next,
            reason = closed => match reason {
                CloseReason::Unauthorized => return Err(ApiError::unauthorized()),
                _ => break,
            },
            () = tokio::time::sleep_until(deadline) => {
                at = subscription.settle().max(at);
                break;
            }
        };
        if !page.add(next, &mut at, &mut subscription)? {
            break;
        }
    }
    let counters = node.metrics.transport(Transport::Poll);
    counters.delivered_events.inc_by(page.events.len() as u64);
    counters.replayed_events.inc_by(page.replayed.0);
    counters.replayed_bytes.inc_by(page.replayed.1);
    let cursor = subscription.cursor_at(at).encode();
    let response = list(asked.format, &page.events, cursor.as_str(), ListEnd::Resume(page.resume));
    counters.delivered_bytes.inc_by(hyper::body::Body::size_hint(response.body()).lower());
    Ok(response)
}

/// What the subscription has now. With `patient`, a read of the log that is under way is waited for, and
/// nothing else: a client without a timeout still gets what the log has.
async fn ready_now(subscription: &mut Subscription, patient: bool) -> Option<Next> {
    poll_fn(|context| match subscription.poll_next(context) {
        Poll::Ready(next) => Poll::Ready(Some(next)),
        Poll::Pending if patient && subscription.is_reading_log() => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

struct Page {
    events: Vec<Arc<Shown>>,
    bytes: usize,
    resume: Resume,
    limit: usize,
    /// Of the events, those that were read from the log, and their bytes.
    replayed: (u64, u64),
}

impl Page {
    /// With what the log had for the client when it came.
    fn begin(events: Vec<Arc<Shown>>, resume: Resume, limit: usize) -> Self {
        let bytes = events.iter().map(|shown| shown.frame(Framing::JsonBody).len() as u64).sum();
        let replayed = (events.len() as u64, bytes);
        Self { events, bytes: 0, resume, limit, replayed }
    }

    /// Events that the bus has not ordered yet; those for which there is no room are left to the next page.
    fn add_early(&mut self, events: Vec<(u64, Arc<Shown>)>, subscription: &mut Subscription) {
        let mut taken = None;
        for (number, shown) in events {
            if self.events.len() >= self.limit || self.bytes >= MAX_BYTES {
                return subscription.rewind_early(taken.unwrap_or(number - 1));
            }
            taken = Some(number);
            self.bytes += shown.frame(Framing::JsonBody).len();
            self.events.push(shown);
        }
    }

    fn is_complete(&self) -> bool {
        !self.events.is_empty()
    }

    /// Adds what came; false when the page is full. `at` moves to the last event that is in.
    fn add(
        &mut self,
        next: Next,
        at: &mut Position,
        subscription: &mut Subscription,
    ) -> Result<bool, ApiError> {
        let is_replayed = matches!(next, Next::Replayed(_));
        let events = match next {
            Next::Batches(batches) => {
                batches.iter().flat_map(|batch| batch.events()).cloned().collect::<Vec<_>>()
            }
            Next::Events(events) | Next::Replayed(events) => events,
            Next::Early(events) => {
                self.add_early(events, subscription);
                *at = (*at).max(subscription.position());
                return Ok(self.events.len() < self.limit && self.bytes < MAX_BYTES);
            }
            Next::Lost => {
                self.resume = Resume::Expired;
                return Ok(true);
            }
            Next::Failed => {
                return Err(ApiError::unavailable("unavailable", "the log cannot be read now: try again"));
            }
        };
        for shown in events {
            if self.events.len() >= self.limit || self.bytes >= MAX_BYTES {
                return Ok(false);
            }
            *at = shown.event.position;
            let bytes = shown.frame(Framing::JsonBody).len();
            if is_replayed {
                self.replayed.0 += 1;
                self.replayed.1 += bytes as u64;
            }
            self.bytes += bytes;
            self.events.push(shown);
        }
        *at = (*at).max(subscription.position());
        Ok(self.events.len() < self.limit && self.bytes < MAX_BYTES)
    }
}

fn timeout(parameters: &Parameters<'_>) -> Result<Duration, ApiError> {
    let Some(text) = parameters.get("timeout") else { return Ok(TIMEOUT) };
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MAX_TIMEOUT_SECONDS).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(ApiError::parameter(
            "invalid_parameter",
            "timeout",
            format!("`timeout` is a number of seconds from 0 to {MAX_TIMEOUT_SECONDS}"),
        )),
    }
}

/// Counts a poll while it is open.
struct Open<'a>(&'a Metrics);

impl<'a> Open<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        let counters = metrics.transport(Transport::Poll);
        counters.connections.inc();
        counters.opened.inc();
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.transport(Transport::Poll).connections.dec();
    }
}
