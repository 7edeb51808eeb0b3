//! What is kept: queries, the newest event of a channel, deletion.

use super::access::Access;
use super::error::{ApiError, json, with_type};
use super::node::Node;
use super::request::Parameters;
use super::request_subscription::Format;
use crate::auth::Right;
use crate::codec::{Encoding, Framing, ListEnd, Shown, list_body};
use crate::event::{Channel, Interest, Pattern, Position};
use crate::log::{Order, Query, ReadError};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use std::sync::Arc;

/// Largest page.
const MAX_LIMIT: u64 = 1000;
/// Largest offset: beyond it a cursor is the way.
const MAX_OFFSET: u64 = 100_000;
/// Most channels and patterns of a query.
const MAX_PATTERNS: usize = 1024;

/// `GET /v1/events`. Where no channel is named, it is narrowed to what may be seen.
pub(super) async fn events(
    node: &Arc<Node>,
    query: Option<&str>,
    access: &Access,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let parameters = Parameters::parse(query)?;
    let format = format(&parameters)?;
    let mut patterns = parameters.patterns(MAX_PATTERNS)?;
    let allowed = if patterns.is_empty() {
        access.all_with(Right::History).map(|all| patterns = all)
    } else {
        access.require(Right::History, &patterns)
    };
    allowed.map_err(|denied| node.denied(access, &denied))?;
    let (after, before) = (parameters.cursor("after")?, parameters.cursor("before")?);
    let position = async |name| -> Result<Option<Position>, ApiError> {
        let Some(cursor) = parameters.cursor(name)? else { return Ok(None) };
        let source = node.source.clone();
        let known = blocking(move || match name {
            "before" => source.known_end(&cursor),
            _ => source.known_position(&cursor),
        });
        known.await?.map(Some).ok_or_else(|| {
            ApiError::new(
                StatusCode::GONE,
                "reset",
                format!("the log that the cursor `{name}` belongs to is gone: query without it"),
            )
        })
    };
    let order = match parameters.get("order") {
        None | Some("asc") => Order::Ascending,
        Some("desc") => Order::Descending,
        Some(_) => return Err(ApiError::parameter("invalid_parameter", "order", "`order` is asc or desc")),
    };
    let query = Query {
        interest: Interest::new(patterns),
        filter: parameters.filter()?,
        since: parameters.time("since")?,
        until: parameters.time("until")?,
        after: position("after").await?.unwrap_or(Position::ZERO),
        before: position("before").await?,
        limit: parameters.number("limit", MAX_LIMIT)?.unwrap_or(100) as usize,
        offset: parameters.number("offset", MAX_OFFSET)?.unwrap_or(0) as usize,
        order,
    };
    let log = node.source.log.clone();
    let mut page = blocking(move || log.query(&query)).await?;
    node.source.keep_between(&mut page.events, after.as_ref(), before.as_ref());
    let events = node.source.shown(page.events);
    let cursor = node.source.cursor(page.reached).encode();
    Ok(list(format, &events, cursor.as_str(), ListEnd::More(page.more)))
}

/// `GET /v1/channels/{channel}/last`.
pub(super) async fn last(
    node: &Arc<Node>,
    channel: Channel,
    query: Option<&str>,
    access: &Access,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let format = format(&Parameters::parse(query)?)?;
    access.require_channel(Right::History, &channel).map_err(|denied| node.denied(access, &denied))?;
    let log = node.source.log.clone();
    let name = channel.clone();
    let Some(event) = blocking(move || log.last(&name)).await? else {
        return Err(ApiError::not_found(format!("the log has no event of `{channel}`")));
    };
    let shown = {
        let cursor = node.source.log.cursors().of_event(&event);
        Shown::new(event, &cursor)
    };
    Ok(match format {
        Format::Json => json(StatusCode::OK, shown.frame_bytes(Framing::JsonBody)),
        Format::MessagePack => {
            with_type(StatusCode::OK, "application/msgpack", shown.frame_bytes(Framing::MessagePackBody))
        }
    })
}

/// `DELETE /v1/events`.
pub(super) async fn delete(node: &Arc<Node>, query: Option<&str>) -> Result<Response<Full<Bytes>>, ApiError> {
    let parameters = Parameters::parse(query)?;
    let older_than = parameters.time("older_than")?;
    let patterns: Vec<Pattern> = parameters.patterns(MAX_PATTERNS)?;
    if older_than.is_none() && patterns.is_empty() {
        return Err(ApiError::parameter(
            "invalid_parameter",
            "older_than",
            "say what to delete: `older_than`, `channel` or both; `channel=>` is everything",
        ));
    }
    let log = node.source.log.clone();
    let deleted = tokio::task::spawn_blocking(move || {
        let interest = Interest::new(patterns);
        log.delete(older_than, (!interest.is_empty()).then_some(&interest))
    })
    .await
    .map_err(|_| unreadable())?
    .map_err(|error| {
        tracing::warn!(%error, "events could not be deleted");
        ApiError::unavailable("unavailable", "the log could not be changed now: try again")
    })?;
    Ok(json(StatusCode::OK, format!("{{\"deleted\":{deleted}}}")))
}

/// A list of events as an answer.
pub(super) fn list(
    format: Format,
    events: &[Arc<Shown>],
    cursor: &str,
    end: ListEnd,
) -> Response<Full<Bytes>> {
    match format {
        Format::Json => json(StatusCode::OK, list_body(Encoding::Json, events, cursor, end)),
        Format::MessagePack => with_type(
            StatusCode::OK,
            "application/msgpack",
            list_body(Encoding::MessagePack, events, cursor, end),
        ),
    }
}

fn format(parameters: &Parameters<'_>) -> Result<Format, ApiError> {
    match parameters.get("format") {
        None | Some("json") => Ok(Format::Json),
        Some("msgpack") => Ok(Format::MessagePack),
        Some(_) => Err(ApiError::parameter("invalid_parameter", "format", "`format` is json or msgpack")),
    }
}

/// Reads the log where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            // Told once, where it happens; here it would be a line for each request.
            tracing::debug!(%error, "the log could not be read");
            Err(unreadable())
        }
        Err(_) => Err(unreadable()),
    }
}

fn unreadable() -> ApiError {
    ApiError::unavailable("unavailable", "the log cannot be read now: try again")
}
