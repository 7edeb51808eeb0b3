//! `sidewire subscribe CHANNEL..`

mod resume;

use super::address::{Listener, NodeAddress};
use super::credential::CredentialArgs;
use super::error::CliError;
use super::history::{HistoryQuery, Pages};
use super::http::HttpClient;
use super::output;
use super::time::TimeArgument;
use super::tls::TrustArgs;
use super::websocket::{self, Socket};
use super::wire::{Bye, ErrorMessage, ServerMessage};
use crate::event::Cursor;
use clap::Args;
use futures_util::{SinkExt as _, StreamExt as _};
use resume::{Backoff, Ending, Place};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// How long a node may be silent before it is asked for a sign of life, and then again before it is given
/// up: a connection that was cut without a word looks just like a quiet one.
const SILENCE: Duration = Duration::from_secs(20);

/// How long to wait for the node's goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Options of `subscribe`.
#[derive(Args, Debug)]
pub struct SubscribeArgs {
    /// Channels and patterns
    #[arg(required = true)]
    pub(super) channels: Vec<String>,
    /// Begin here: RFC 3339, Unix milliseconds, how long ago (such as 10m), or a cursor
    #[arg(long, value_name = "TIME|CURSOR", conflicts_with = "history")]
    pub(super) since: Option<Since>,
    /// Begin with the last N events
    #[arg(long, value_name = "N")]
    pub(super) history: Option<u32>,
    /// Only events of these names; may be repeated or split by commas
    #[arg(long = "event", value_name = "NAME", value_delimiter = ',')]
    pub(super) events: Vec<String>,
    /// Print events as on the wire, one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    /// The client listener: host:port, https://host:port or unix:/path [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) client: Option<NodeAddress>,
    #[command(flatten)]
    pub(super) credential: CredentialArgs,
    #[command(flatten)]
    pub(super) trust: TrustArgs,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    pub(super) config: Option<PathBuf>,
}

/// Where to begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Since {
    Cursor(String),
    Time(TimeArgument),
}

impl std::str::FromStr for Since {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Cursor::parse(text) {
            Ok(_) => Ok(Self::Cursor(text.into())),
            Err(_) => text.parse().map(Self::Time),
        }
    }
}

/// Prints events until it is interrupted, or told by the node not to come back.
pub(super) async fn run(mut args: SubscribeArgs) -> Result<(), CliError> {
    let config = args.config.take();
    // No key of the configuration is a client's token.
    let token = args.credential.token(&config, true, |_| Path::new(""))?;
    let address = NodeAddress::resolve(args.client.take(), &args.trust, config, Listener::Client)?;
    let mut subscriber = Subscriber { address, token, place: Place::new(args.history), args, socket: None };
    tokio::select! {
        result = subscriber.follow() => return result,
        result = interrupted() => result?,
    }
    subscriber.leave().await;
    Ok(())
}

struct Subscriber {
    args: SubscribeArgs,
    address: NodeAddress,
    token: Option<String>,
    place: Place,
    /// Here rather than in `follow`, so that it is still there to be closed when that is interrupted.
    socket: Option<Socket>,
}

impl Subscriber {
    async fn follow(&mut self) -> Result<(), CliError> {
        match self.args.since.take() {
            Some(Since::Cursor(cursor)) => self.place = Place::at(cursor),
            Some(Since::Time(time)) => self.replay(time).await?,
            None => {}
        }
        let mut backoff = Backoff::default();
        let mut connected_before = false;
        loop {
            let ending = match self.session(&mut backoff).await {
                Ok(ending) => ending,
                // A first connection that fails is most likely a wrong address.
                Err(error) if !error.is_passing() || (!connected_before && self.socket.is_none()) => {
                    return Err(error);
                }
                Err(error) => Ending::Lost(error.to_string()),
            };
            connected_before = true;
            self.socket = None;
            let delay = match ending {
                Ending::Done => return Ok(()),
                Ending::Final(error) => return Err(error),
                Ending::Moved => backoff.moved(),
                Ending::Lost(reason) => {
                    let delay = backoff.next_delay();
                    tell(&format!("{reason}; trying again in {:.1} s", delay.as_secs_f32()));
                    delay
                }
            };
            tokio::time::sleep(delay).await;
        }
    }

    /// Prints what was kept since a time, and goes on from there.
    async fn replay(&mut self, time: TimeArgument) -> Result<(), CliError> {
        let time = time.to_query(SystemTime::now());
        let query = HistoryQuery::since(&self.args.channels, &self.args.events, time);
        let mut pages = Pages::new(query, usize::MAX);
        let mut node = HttpClient::new(self.address.clone()).showing(self.token.clone());
        while let Some(page) = pages.next(&mut node).await? {
            output::lines(page.lines(self.args.json)?)?;
            if let Some(cursor) = page.cursor {
                self.place = Place::at(cursor);
            }
        }
        Ok(())
    }

    /// One connection, from its beginning to its end.
    async fn session(&mut self, backoff: &mut Backoff) -> Result<Ending, CliError> {
        self.socket = Some(websocket::open(&self.address, "/v1/ws", self.token.as_deref()).await?);
        let subscribe = self.place.subscribe(&self.args.channels, &self.args.events);
        self.send(Message::text(subscribe)).await?;
        let mut farewell = None;
        loop {
            let message = match self.receive().await {
                Ok(message) => message,
                // After a farewell it does not matter how the connection came down.
                Err(error) => return farewell.ok_or(error),
            };
            match message {
                Message::Text(text) => match ServerMessage::parse(&text)? {
                    ServerMessage::Event(event) => {
                        match self.args.json {
                            true => output::line(&text)?,
                            false => output::line(&event.to_line())?,
                        }
                        self.place.passed(event.cursor);
                    }
                    ServerMessage::Subscribed(subscribed) => {
                        let resume = subscribed.resume.unwrap_or_default();
                        if resume == "unavailable" {
                            return Ok(Ending::Lost("the node cannot read its log now".into()));
                        }
                        backoff.reset();
                        if let Some(notice) = resume::notice(&resume) {
                            tell(notice);
                        }
                        self.place.subscribed(&resume, subscribed.cursor);
                    }
                    ServerMessage::Error(ErrorMessage { code, message }) => {
                        return Err(CliError::Refused { status: None, code, message });
                    }
                    ServerMessage::Bye(Bye { code, reason }) => farewell = Some(Ending::of(code, &reason)),
                    ServerMessage::Other => {}
                },
                Message::Close(frame) => {
                    self.leave().await;
                    let (code, reason) = match &frame {
                        Some(frame) => (frame.code.into(), frame.reason.as_str()),
                        None => (1005, ""),
                    };
                    return Ok(farewell.unwrap_or_else(|| Ending::of(code, reason)));
                }
                _ => {}
            }
        }
    }

    /// The next message. A node that is silent for long is asked for a sign of life.
    async fn receive(&mut self) -> Result<Message, CliError> {
        let mut asked = false;
        loop {
            let socket = self.socket.as_mut().ok_or_else(|| self.address.unreachable("not connected"))?;
            return match tokio::time::timeout(SILENCE, socket.next()).await {
                Ok(Some(Ok(message))) => Ok(message),
                Ok(Some(Err(error))) => Err(self.address.unreachable(error)),
                Ok(None) => Err(self.address.unreachable("the connection was closed")),
                Err(_) if asked => Err(self.address.unreachable("it has gone silent")),
                Err(_) => {
                    asked = true;
                    self.send(Message::Ping(Bytes::new())).await?;
                    continue;
                }
            };
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), CliError> {
        match &mut self.socket {
            Some(socket) => socket.send(message).await.map_err(|error| self.address.unreachable(error)),
            None => Err(self.address.unreachable("not connected")),
        }
    }

    /// Says goodbye, if there is somebody to say it to.
    async fn leave(&mut self) {
        if let Some(mut socket) = self.socket.take() {
            // Whether the node hears it does not matter any more.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.close(None)).await;
        }
    }
}

async fn interrupted() -> Result<(), CliError> {
    let listen =
        |kind| signal(kind).map_err(|error| CliError::Input(format!("cannot listen for signals: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Tells what is no event, where it does not get between them.
fn tell(words: &str) {
    // Nobody may be there to read it, which must not make it a panic.
    let _ = writeln!(std::io::stderr(), "{words}");
}

#[cfg(test)]
mod tests;
