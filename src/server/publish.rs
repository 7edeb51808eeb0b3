//! `POST /v1/publish` and `POST /v1/channels/{channel}`.

use super::error::{ApiError, json};
use super::node::{Node, Settings};
use super::request::{Parameters, read_body};
use crate::bus::{Outcome, Refused};
use crate::event::{CursorText, Draft};
use crate::intake::{self, EntryError};
use crate::publish::{Ack, PacedDraft, Published};
use crate::redact::Opaque;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode};
use std::sync::Arc;

/// `POST /v1/publish`: any of the body forms.
pub(super) async fn publish(
    node: &Arc<Node>,
    settings: &Settings,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let (parts, body) = request.into_parts();
    let ack = ack(parts.uri.query())?;
    let body = read_body(body, settings.body_bytes, settings.body_timeout).await?;
    let content_type = content_type(&parts.headers)?;
    let intake = intake::parse(content_type, &parts.headers, &body, &settings.intake).map_err(refused)?;
    answer(node, settings, intake, ack).await
}

/// `POST /v1/channels/{channel}`: the body is the data.
pub(super) async fn publish_raw(
    node: &Arc<Node>,
    settings: &Settings,
    channel: &str,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or("");
    let ack = ack(Some(query))?;
    let body = read_body(body, settings.body_bytes, settings.body_timeout).await?;
    let content_type = content_type(&parts.headers)?;
    let draft = intake::parse_raw(channel, query, content_type, &parts.headers, &body, &settings.intake)
        .map_err(refused)?;
    answer(node, settings, intake::Intake { entries: vec![Ok(draft)], single: true }, ack).await
}

/// Publishes what can be, and answers for each entry.
pub(super) async fn answer(
    node: &Node,
    settings: &Settings,
    intake: intake::Intake,
    ack: Ack,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let mut errors: Vec<(usize, EntryError)> = Vec::new();
    let mut drafts = Vec::with_capacity(intake.entries.len());
    for (index, entry) in intake.entries.into_iter().enumerate() {
        match entry {
            Ok(draft) => match admit(node, settings, draft) {
                Ok(paced) => drafts.push(paced),
                Err(error) => errors.push((index, error)),
            },
            Err(error) => errors.push((index, error)),
        }
    }
    let published = if drafts.is_empty() {
        Vec::new()
    } else {
        node.publisher.publish(drafts, ack).await.map_err(|refusal| match refusal {
            Refused::QueueFull => ApiError::unavailable(
                "queue_full",
                "too many publishes are waiting for the log: try again in a moment",
            ),
            Refused::TooLarge => ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "the bus does not carry events of this size: publish less at a time, or raise its limit",
            ),
            Refused::Closed => ApiError::unavailable("unavailable", "this node is going away: try again"),
        })?
    };
    if intake.single {
        return match (errors.pop(), published.into_iter().next()) {
            (Some((_, error)), _) => Err(refused(error)),
            (None, Some(published)) => {
                let (status, body) = entry(node, &published, ack);
                if status.is_success() {
                    return Ok(json(status, body));
                }
                node.metrics.error(error_code(published.outcome, ack).1);
                let mut response = json(status, body);
                if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
                    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                }
                Ok(response)
            }
            (None, None) => Err(ApiError::parameter("invalid_event", "channel", "no event in this request")),
        };
    }
    // In the order in which they came: the errors know their places, the rest fills the others.
    let mut body = b"{\"results\":[".to_vec();
    let mut published = published.iter();
    let mut errors = errors.into_iter().peekable();
    let mut index = 0;
    let mut failed = None;
    loop {
        let text = if let Some((_, error)) = errors.next_if(|(at, _)| *at == index) {
            node.metrics.error(error.code);
            refused(error).body().to_string()
        } else if let Some(published) = published.next() {
            let (status, text) = entry(node, published, ack);
            if !status.is_success() {
                node.metrics.error(error_code(published.outcome, ack).1);
                failed = failed.or(Some(status));
            }
            text
        } else {
            break;
        };
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(text.as_bytes());
        index += 1;
    }
    body.extend_from_slice(b"]}");
    Ok(json(StatusCode::OK, body))
}

/// Lets a draft through if the rules of its channel do, at their pace.
pub(super) fn admit(node: &Node, settings: &Settings, draft: Draft) -> Result<PacedDraft, EntryError> {
    node.publisher.check(&draft).map_err(|Opaque| EntryError {
        status: 400,
        code: "opaque_data",
        message:
            "fields are stripped from events of this channel, so its `data` must be JSON: no bytes, and no \
                  text that begins like an object or a list"
                .into(),
        field: Some("data"),
    })?;
    node.rates.pace(settings, draft)
}

/// A result that is no error.
#[derive(serde::Serialize)]
struct Entry<'a> {
    id: &'a str,
    channel: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<CursorText>,
}

/// One result.
fn entry(node: &Node, published: &Published, ack: Ack) -> (StatusCode, String) {
    let (status, word, position) = match published.outcome {
        Outcome::Published(position) => (StatusCode::OK, "published", Some(position)),
        Outcome::Confirmed => (StatusCode::OK, "published", None),
        Outcome::Duplicate(position) => (StatusCode::OK, "duplicate", Some(position)),
        Outcome::Queued => (StatusCode::ACCEPTED, "queued", None),
        Outcome::Conflated => (StatusCode::OK, "conflated", None),
        Outcome::Crowded
        | Outcome::QueueFull
        | Outcome::TooLarge
        | Outcome::NoRoom
        | Outcome::Unavailable
        | Outcome::TimedOut => {
            let (status, code, message) = error_code(published.outcome, ack);
            return (status, serde_json::json!({"code": code, "message": message}).to_string());
        }
    };
    let cursor = position.map(|position| node.source.cursor(position).encode());
    let entry =
        Entry { id: published.id.as_str(), channel: published.channel.as_str(), status: word, cursor };
    (status, serde_json::to_string(&entry).expect("four strings always serialize"))
}

/// The status, the code and the words for an event that was not published.
pub(super) fn error_code(outcome: Outcome, ack: Ack) -> (StatusCode, &'static str, &'static str) {
    match outcome {
        Outcome::Crowded => (
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            "too many channels hold back what comes too fast for their `rate`: publish less to them",
        ),
        Outcome::QueueFull => (
            StatusCode::SERVICE_UNAVAILABLE,
            "queue_full",
            "the bus is away, and as many events as are allowed wait for it: try again later",
        ),
        Outcome::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "the bus does not carry events of this size: publish less at a time, or raise its limit",
        ),
        Outcome::NoRoom => (
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the disk of the log is full: make room, then try again",
        ),
        Outcome::TimedOut if ack == Ack::Bus => (
            StatusCode::GATEWAY_TIMEOUT,
            "bus_timeout",
            "the bus did not confirm in time: the event may still go out; repeat it with the same id",
        ),
        Outcome::TimedOut => (
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the disk did not confirm in time: the event may still go out; repeat it with the same id",
        ),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the log takes no events now: try again"),
    }
}

/// The content type of a request.
pub(super) fn content_type(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str).transpose().map_err(|_| {
        ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "`Content-Type` must be ASCII",
        )
    })
}

/// A refused entry as an answer.
pub(super) fn refused(error: EntryError) -> ApiError {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut api_error = ApiError::new(status, error.code, error.message);
    if status == StatusCode::TOO_MANY_REQUESTS {
        api_error = api_error.with_header(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    api_error.field = error.field.map(str::to_owned);
    api_error
}

/// The level of acknowledgement that a request asks for.
pub(super) fn ack(query: Option<&str>) -> Result<Ack, ApiError> {
    if query.is_none() {
        return Ok(Ack::default());
    }
    match Parameters::parse(query)?.get("ack") {
        None => Ok(Ack::default()),
        Some(text) => Ack::parse(text)
            .ok_or_else(|| ApiError::parameter("invalid_parameter", "ack", "`ack` is none, log or bus")),
    }
}
