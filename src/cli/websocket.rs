//! A WebSocket to a node.

use super::address::{Connection, NodeAddress};
use super::error::CliError;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, handshake::client::Request};

/// The form of messages that this client speaks.
const SUBPROTOCOL: &str = "sidewire.v1.json";

/// How long a node may take to answer the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// An open WebSocket.
pub(super) type Socket = WebSocketStream<Box<dyn Connection>>;

/// Opens a WebSocket; `target` is path and query.
pub(super) async fn open(
    address: &NodeAddress,
    target: &str,
    token: Option<&str>,
) -> Result<Socket, CliError> {
    let request = request(address, target, token).map_err(|error| CliError::Input(error.to_string()))?;
    let stream = address.connect().await?;
    let handshake = tokio_tungstenite::client_async(request, stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(Error::Http(response))) => {
            let body = response.body().as_deref().unwrap_or_default();
            Err(CliError::from_answer(response.status(), body))
        }
        Ok(Err(Error::Protocol(error))) => Err(CliError::Protocol(format!(
            "{address} does not speak {SUBPROTOCOL}: {error}; is it the client listener of a node?"
        ))),
        Ok(Err(error)) => Err(address.unreachable(error)),
        Err(_) => Err(address.unreachable("no answer to the handshake")),
    }
}

fn request(address: &NodeAddress, target: &str, token: Option<&str>) -> Result<Request, Error> {
    let mut request = format!("ws://{}{target}", address.host()).into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    if let Some(token) = token {
        request.headers_mut().insert("authorization", HeaderValue::from_str(&format!("Bearer {token}"))?);
    }
    Ok(request)
}
