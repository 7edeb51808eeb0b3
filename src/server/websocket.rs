//! WebSocket clients: the handshake, then one small task for each.

mod conversation;
mod identification;
mod publishing;
mod session;

use super::access::{Access, Guest, is_token_protocol};
use super::connection::Takeover;
use super::error::ApiError;
use super::host::Origin;
use super::node::Node;
use super::request_subscription::{Asked, Format};
use crate::codec::Encoding;
use crate::subscribe::open;
use crate::websocket::{Accept, HandshakeError, accept};
use hyper::Request;
use hyper::body::Incoming;
use session::Session;
use std::sync::Arc;

const JSON: &str = "sidewire.v1.json";
const MESSAGE_PACK: &str = "sidewire.v1.msgpack";

/// A handshake that is going to be accepted.
pub(super) struct Handshake {
    accept: Accept,
    protocol: Option<&'static str>,
    encoding: Encoding,
}

/// Checks the handshake and chooses the subprotocol: the first of the client's that we speak. A client that
/// offers none gets the `format` of its URL. One that is a token is none to be spoken, and not sent back.
pub(super) fn handshake(
    request: &Request<Incoming>,
    format: Format,
    _origin: &Origin,
) -> Result<Handshake, ApiError> {
    let accept = accept(request.headers(), request.method(), request.version()).map_err(refused)?;
    let protocol = accept.offered_protocols.iter().find_map(|offered| match offered.as_str() {
        JSON => Some(JSON),
        MESSAGE_PACK => Some(MESSAGE_PACK),
        _ => None,
    });
    if protocol.is_none() && !accept.offered_protocols.iter().all(|offered| is_token_protocol(offered)) {
        return Err(ApiError::parameter(
            "invalid_protocol",
            "Sec-WebSocket-Protocol",
            format!("this server speaks {JSON} and {MESSAGE_PACK}: offer one of them, or none"),
        ));
    }
    let encoding = match (protocol, format) {
        (Some(MESSAGE_PACK), _) | (None, Format::MessagePack) => Encoding::MessagePack,
        _ => Encoding::Json,
    };
    Ok(Handshake { accept, protocol, encoding })
}

/// Begins a session: decides where its first subscription starts, then takes the socket.
pub(super) async fn begin(node: Arc<Node>, handshake: Handshake, asked: Asked, guest: Guest) -> Takeover {
    let opening = if asked.patterns.is_empty() || matches!(guest.access, Access::Pending) {
        None
    } else {
        Some(open(&node.source, &asked.request()).await)
    };
    let head = handshake.accept.response_head(handshake.protocol);
    Box::new(move |stream, unread| {
        let session = Session::new(node, handshake.encoding, asked, opening, guest, stream, head);
        tokio::spawn(session.run(unread));
    })
}

fn refused(error: HandshakeError) -> ApiError {
    let mut api_error = ApiError::new(error.status(), "invalid_handshake", error.to_string());
    for (name, value) in &error.headers() {
        api_error = api_error.with_header(name.clone(), value.clone());
    }
    api_error
}
