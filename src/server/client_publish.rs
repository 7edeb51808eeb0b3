//! Publishes of clients: only where they may, and never in another's name.

use super::access::{Access, Denied};
use super::error::ApiError;
use super::node::{Node, Settings};
use super::publish::{self, content_type};
use super::registry::Registration;
use super::request::read_body;
use crate::audit::Action;
use crate::auth::Right;
use crate::event::{Author, Draft};
use crate::intake::{self, EntryError};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use std::sync::Arc;

/// `POST /v1/publish` of the client listener: the same bodies as the app's.
pub(super) async fn publish(
    node: &Arc<Node>,
    settings: &Settings,
    access: &Access,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, ApiError> {
    let (parts, body) = request.into_parts();
    let ack = publish::ack(parts.uri.query())?;
    let registration = node.register(access.identity());
    let body = read_body(body, settings.message_bytes, settings.body_timeout).await?;
    let content_type = content_type(&parts.headers)?;
    let mut intake =
        intake::parse(content_type, &parts.headers, &body, &settings.intake).map_err(publish::refused)?;
    for entry in &mut intake.entries {
        if let Ok(draft) = entry
            && let Err(error) = sign(node, settings, access, &registration, draft)
        {
            *entry = Err(error);
        }
    }
    publish::answer(node, settings, intake, ack).await
}

/// Makes a draft a client's own, or refuses it.
pub(super) fn sign(
    node: &Node,
    settings: &Settings,
    access: &Access,
    registration: &Registration,
    draft: &mut Draft,
) -> Result<(), EntryError> {
    may_publish(settings, access, draft).map_err(|denied| {
        let told = node.denied(access, &denied);
        EntryError {
            status: StatusCode::FORBIDDEN.as_u16(),
            code: told.code,
            message: told.message,
            field: None,
        }
    })?;
    if draft.exclude.is_some() {
        return Err(EntryError {
            status: StatusCode::FORBIDDEN.as_u16(),
            code: "forbidden",
            message: "clients may not say who does not get an event: leave `exclude` out".into(),
            field: Some("exclude"),
        });
    }
    // An id that a client chose must not make an event of the app a duplicate.
    draft.id = draft.id.take().map(|id| id.on_channel(&draft.channel));
    node.audit_channels(Action::Published, registration, access, &[draft.channel.as_str()]);
    let author = Author::new(access.user(), registration.id())?;
    draft.from = Some(Box::new(author));
    Ok(())
}

fn may_publish(settings: &Settings, access: &Access, draft: &Draft) -> Result<(), Denied> {
    let rule = settings.rules.iter().find(|rule| rule.pattern.matches(&draft.channel));
    match (rule.and_then(|rule| rule.publish), access) {
        (Some(false), _) => Err(Denied::by_rule(&draft.channel)),
        // Where nobody is asked who he is, publishing is not given away with reading.
        (None, Access::Open) => Err(Denied::by_rule(&draft.channel)),
        _ => access.require_channel(Right::Publish, &draft.channel),
    }
}
