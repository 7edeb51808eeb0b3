//! One connection to a NATS server, which is over for good when it breaks.
//!
//! Left to itself the client library would connect anew underneath, and send then what it was handed meanwhile:
//! late, and behind what the layer above has sent again. So once connected it is left no server to return to.

use super::options::NatsOptions;
use crate::bus::backend::{LinkError, SendError};
use async_nats::{Client, ConnectError, ConnectErrorKind, Event, ServerError, rustls};
use std::error::Error as _;
use std::future::ready;
use std::time::Duration;
use tokio::sync::watch;

/// For each server that is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A server that answers none of three pings is given up: a frozen one is noticed within 4.5 s.
const PING_INTERVAL: Duration = Duration::from_millis(1500);
/// Messages that wait for one subscription. What pulls or counts its answers stays far below; a plain
/// subscriber that lets more than these gather has lost some, and the link breaks.
const MOST_WAITING: usize = 8192;
/// Where nothing listens.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// The connection. It closes when the last copy is dropped.
#[derive(Clone)]
pub(super) struct Link {
    client: Client,
    broken: watch::Receiver<Option<LinkError>>,
}

impl Link {
    /// Connects to one of the servers.
    pub(super) async fn connect(options: &NatsOptions) -> Result<Self, LinkError> {
        let (breaking, broken) = watch::channel(None);
        let servers = options.addresses()?;
        let options = options
            .for_connect()
            .await?
            .name("sidewire")
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(MOST_WAITING)
            // One round of all servers, when connecting now and when not connecting again later.
            .max_reconnects(servers.len())
            .ignore_discovered_servers()
            .event_callback(move |event| {
                if let Some(reason) = reason(&event) {
                    breaking.send_if_modified(|broken| {
                        let first = broken.is_none();
                        broken.get_or_insert(reason);
                        first
                    });
                }
                ready(())
            });
        let client = options.connect(servers).await.map_err(|error| refusal(&error))?;
        client
            .set_server_pool(NOWHERE)
            .await
            .map_err(|error| LinkError::Away(format!("the connection broke at once: {error}")))?;
        Ok(Self { client, broken })
    }

    /// For what is asked of the server.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until the link breaks, and says why it did.
    pub(super) async fn broken(&self) -> LinkError {
        let mut broken = self.broken.clone();
        let reason = match broken.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            // The client has ended without a word.
            Err(_) => None,
        };
        reason.unwrap_or_else(|| LinkError::Away("the connection to the NATS server is closed".into()))
    }

    /// Fails if the link is known to have broken.
    pub(super) fn check(&self) -> Result<(), LinkError> {
        self.broken.borrow().clone().map_or(Ok(()), Err)
    }

    /// Why nothing can be sent on a link that broke.
    pub(super) async fn lost(&self) -> SendError {
        not_sent(self.broken().await)
    }
}

/// What a broken link means for what was to be sent on it.
pub(super) fn not_sent(reason: LinkError) -> SendError {
    match reason {
        LinkError::Away(why) => SendError::Lost(why),
        LinkError::Refused(why) => SendError::Refused(why),
    }
}

/// Why an event of the client ends the link, if it does.
fn reason(event: &Event) -> Option<LinkError> {
    match event {
        Event::Connected | Event::Draining | Event::ClientError(_) => None,
        Event::Disconnected | Event::Closed => {
            Some(LinkError::Away("the connection to the NATS server broke".into()))
        }
        Event::LameDuckMode => Some(LinkError::Away("the NATS server is shutting down".into())),
        Event::SlowConsumer(_) => Some(LinkError::Away(
            "messages came from the NATS server faster than this node took them, and some are lost".into(),
        )),
        Event::ServerError(ServerError::SlowConsumer(_)) => {
            Some(LinkError::Away("the NATS server has cut this node off as a slow consumer".into()))
        }
        Event::ServerError(ServerError::AuthorizationViolation) => {
            Some(LinkError::Refused(UNAUTHORISED.into()))
        }
        Event::ServerError(ServerError::Other(text)) => {
            let lower = text.to_ascii_lowercase();
            let forbidden = ["permission", "authoriz", "authentication", "expired", "revoked"];
            let text = format!("the NATS server says: {text}");
            Some(if forbidden.iter().any(|word| lower.contains(word)) {
                LinkError::Refused(text)
            } else {
                LinkError::Away(text)
            })
        }
    }
}

const UNAUTHORISED: &str = "the NATS server does not accept these credentials; check user, password, token, bus.credentials_file or bus.nkey_file, and what the server's accounts allow";

/// What a failed connect means.
fn refusal(error: &ConnectError) -> LinkError {
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => LinkError::Refused(UNAUTHORISED.into()),
        ConnectErrorKind::Authentication => {
            LinkError::Refused("the nkey cannot be used; check the seed in its file".into())
        }
        ConnectErrorKind::Tls | ConnectErrorKind::ServerParse => {
            LinkError::Refused(format!("cannot connect to NATS: {}", chain(error)))
        }
        _ if is_tls(error) => LinkError::Refused(format!(
            "cannot connect to NATS: {}; check bus.tls_ca_file and the names in the server's certificate",
            chain(error)
        )),
        _ => LinkError::Away(format!("cannot connect to NATS: {}", chain(error))),
    }
}

/// An error with what caused it.
fn chain(error: &ConnectError) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn is_tls(error: &ConnectError) -> bool {
    error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::get_ref)
        .is_some_and(|inner| inner.is::<rustls::Error>())
}
