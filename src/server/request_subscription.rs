//! What a client asks for in the parameters of its URL, the same on every transport.

use super::access::{Access, Denied};
use super::error::ApiError;
use super::request::{Parameters, parse_cursor};
use crate::auth::Right;
use crate::event::{Cursor, EventName, Filter, Interest, Pattern};
use crate::subscribe::{MAX_HISTORY, Request};
use hyper::HeaderMap;
use std::sync::Arc;

/// A subscription as asked for in a URL.
pub(super) struct Asked {
    /// The channels and patterns, in order.
    pub patterns: Vec<Pattern>,
    /// Which of their events.
    pub filter: Option<Arc<Filter>>,
    /// Where to begin.
    pub cursor: Option<Cursor>,
    /// Or the last so many events first.
    pub history: usize,
    /// Or the newest of each channel first.
    pub last: bool,
    /// The events after which the connection is closed.
    pub close_on: Arc<[EventName]>,
    /// The form of events.
    pub format: Format,
}

/// The form of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// JSON.
    Json,
    /// MessagePack.
    MessagePack,
}

impl Asked {
    /// Reads the parameters; a route adds its channel. `last_event_id` is the header's, which is newer than
    /// what the URL says: a browser repeats the URL of its first connection.
    pub(super) fn read(
        parameters: &Parameters<'_>,
        headers: &HeaderMap,
        route: Option<(Pattern, Arc<[EventName]>)>,
        most: usize,
    ) -> Result<Self, ApiError> {
        let mut patterns = parameters.patterns(most)?;
        let mut close_on: Arc<[EventName]> = Arc::new([]);
        if let Some((pattern, names)) = route {
            patterns.retain(|known| *known != pattern);
            patterns.insert(0, pattern);
            close_on = names;
        }
        let cursor = match headers.get("last-event-id") {
            Some(value) if !value.is_empty() => {
                let text = value.to_str().unwrap_or_default();
                Some(parse_cursor(text, "Last-Event-ID")?)
            }
            _ => match parameters.cursor("cursor")? {
                Some(cursor) => Some(cursor),
                None => parameters.cursor("last_event_id")?,
            },
        };
        let filter = parameters.filter()?;
        Ok(Self {
            patterns,
            filter: (!filter.is_open()).then(|| Arc::new(filter)),
            cursor,
            history: parameters.number("history", MAX_HISTORY as u64)?.unwrap_or(0) as usize,
            last: parameters.flag("last")?,
            close_on,
            format: match parameters.get("format") {
                None | Some("json") => Format::Json,
                Some("msgpack") => Format::MessagePack,
                Some(_) => {
                    return Err(ApiError::parameter(
                        "invalid_parameter",
                        "format",
                        "`format` is json or msgpack",
                    ));
                }
            },
        })
    }

    /// Refuses what the client may not have. A cursor needs no right of its own: what came while a client was away
    /// it could have had live.
    pub(super) fn check(&self, access: &Access) -> Result<(), Denied> {
        access.require(Right::Subscribe, &self.patterns)?;
        if self.history > 0 || self.last {
            access.require(Right::History, &self.patterns)?;
        }
        Ok(())
    }

    /// Refuses a request for no channel at all.
    pub(super) fn require_channels(&self) -> Result<(), ApiError> {
        if self.patterns.is_empty() {
            return Err(ApiError::parameter(
                "invalid_channel",
                "channel",
                "name at least one channel or pattern: ?channel=a.b&channel=c.*",
            ));
        }
        Ok(())
    }

    /// The same for the flow out.
    pub(super) fn request(&self) -> Request {
        Request {
            interest: Interest::new(self.patterns.iter().cloned()),
            filter: self.filter.clone(),
            cursor: self.cursor.clone(),
            history: self.history,
            last: self.last,
        }
    }
}
