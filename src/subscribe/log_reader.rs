//! Reads a stretch of the log page by page, away from the async threads.

use super::Source;
use crate::codec::Shown;
use crate::event::{Filter, Interest, Position};
use crate::log::{Budget, Page, ReadError};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// One page: small, since a client that is slow throws away what its socket did not take.
const PAGE: Budget = Budget { events: 256, bytes: 64 << 10 };

/// A reader between two positions.
pub struct LogReader {
    source: Arc<Source>,
    interest: Arc<Interest>,
    filter: Arc<Filter>,
    at: Position,
    until: Position,
    page: Option<JoinHandle<Result<Page, ReadError>>>,
}

/// Some events of the stretch, in order.
pub struct Stretch {
    /// The position after which it begins.
    pub after: Position,
    /// Everything wanted up to here is in it.
    pub reached: Position,
    /// The events.
    pub events: Vec<Arc<Shown>>,
    /// Something wanted is no longer kept.
    pub lost: bool,
}

impl LogReader {
    /// Reads what is after `at` and not after `until`.
    pub fn new(
        source: Arc<Source>,
        interest: Interest,
        filter: Option<Arc<Filter>>,
        at: Position,
        until: Position,
    ) -> Self {
        let filter = filter.unwrap_or_default();
        Self { source, interest: Arc::new(interest), filter, at, until, page: None }
    }

    /// Whether everything has been read.
    pub fn is_done(&self) -> bool {
        self.at >= self.until
    }

    /// Where it ends.
    pub fn until(&self) -> Position {
        self.until
    }

    /// The position up to which it has read.
    pub fn position(&self) -> Position {
        self.at
    }

    /// Goes back to a position.
    pub fn rewind(&mut self, position: Position) {
        self.at = position;
        self.page = None;
    }

    /// The next page; `None` when the log cannot be read.
    pub fn poll_page(&mut self, context: &mut Context<'_>) -> Poll<Option<Stretch>> {
        let page = self.page.get_or_insert_with(|| {
            let source = self.source.clone();
            let (interest, filter) = (self.interest.clone(), self.filter.clone());
            let (at, until) = (self.at, self.until);
            tokio::task::spawn_blocking(move || source.log.read_after(&interest, &filter, at, until, PAGE))
        });
        let outcome = ready!(Pin::new(page).poll(context));
        self.page = None;
        let page = match outcome {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the log could not be read for a client");
                return Poll::Ready(None);
            }
            Err(_) => return Poll::Ready(None),
        };
        let after = std::mem::replace(&mut self.at, page.reached);
        let events = self.source.shown(page.events);
        Poll::Ready(Some(Stretch { after, reached: page.reached, events, lost: page.lost }))
    }
}
