//! One Redis stream as the log that all nodes share.

use super::access::{ANSWER, Access, To};
use super::entry_id::EntryId;
use super::epochs::{Epochs, Look, Relation};
use super::error::link_error;
use super::sender::StreamSender;
use super::server::{self, text};
use super::tail::{READ_ANSWER, StreamTail};
use super::{RedisAddress, RedisOptions};
use crate::bus::backend::{Backend, LinkError, Opened, Start};
use crate::bus::envelope;
use crate::event::{Epoch, Position};
use redis::Value;
use redis::aio::MultiplexedConnection;
use std::fmt;
use std::time::Duration;

/// How long all of opening may take.
const OPEN: Duration = Duration::from_secs(6);
/// How often a node looks again after the epoch changed under it. Once is enough but for a race.
const LOOKS: usize = 4;
/// A sender's batch may be large and the link thin; whoever sends bounds it more tightly.
const SEND_ANSWER: Duration = Duration::from_secs(30);

const LOOK: &str = include_str!("look.lua");
const BEGIN: &str = include_str!("begin.lua");

/// Events as entries of one stream: one order for all nodes, kept for a while.
#[derive(Clone, Debug)]
pub struct RedisStream {
    options: RedisOptions,
}

impl RedisStream {
    /// The stream of a namespace; nothing is connected yet.
    pub fn new(options: RedisOptions) -> Self {
        Self { options }
    }

    async fn connect(&self, known: Option<(Epoch, Position)>) -> Result<Opened<Self>, LinkError> {
        let access = Access::read(&self.options).await?;
        let address = server::find(&self.options, &access).await?;
        // A blocked read holds up all that follows it on a connection: so there are two.
        let (mut commands, reads) = tokio::try_join!(
            access.connect(&address, To::Data, SEND_ANSWER),
            access.connect(&address, To::Data, READ_ANSWER)
        )?;
        let mut stream = Stream { connection: &mut commands, address: &address, options: &self.options };
        for _ in 0..LOOKS {
            let (look, now) = stream.look(known).await?;
            match look.relate(known) {
                Relation::Readable { epoch, start, after } => {
                    let events = self.options.events_key();
                    let retention = self.options.retention;
                    let sender = StreamSender::new(commands, address.clone(), &events, retention, now);
                    let is_there = start == Start::Continues && look.has_known;
                    let tail = StreamTail::new(reads, address, events, after, start, is_there, retention);
                    return Ok(Opened { sender, tail, epoch, start });
                }
                Relation::Lost => stream.begin_epoch(&look.epochs, known).await?,
            }
        }
        Err(LinkError::Away(format!("the log on Redis at {address} changes too fast to be read")))
    }
}

impl Backend for RedisStream {
    type Sender = StreamSender;
    type Tail = StreamTail;

    fn is_ordered(&self) -> bool {
        true
    }

    async fn open(&self, known: Option<(Epoch, Position)>) -> Result<Opened<Self>, LinkError> {
        match tokio::time::timeout(OPEN, self.connect(known)).await {
            Ok(opened) => opened,
            Err(_) => Err(LinkError::Away(format!("{self} did not answer in {OPEN:?}"))),
        }
    }
}

impl fmt::Display for RedisStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.servers.fmt(f)
    }
}

/// The stream on the server.
struct Stream<'a> {
    connection: &'a mut MultiplexedConnection,
    address: &'a RedisAddress,
    options: &'a RedisOptions,
}

impl Stream<'_> {
    /// What is on it, and the server's time in ms.
    async fn look(&mut self, known: Option<(Epoch, Position)>) -> Result<(Look, u64), LinkError> {
        let fresh = fresh_epoch();
        let id = known.map(|(_, position)| EntryId::at(position));
        let mut command = self.script(LOOK);
        command.arg(fresh.to_string()).arg(id.map_or(String::new(), |id| id.to_string()));
        command.arg(least_ms(known));
        add_epoch_entry(&mut command, fresh);
        let answer = self.run(&command).await?;
        read_look(&answer).ok_or_else(|| {
            LinkError::Refused(format!(
                "{} on Redis at {} is not what a node writes; delete it, or use another bus.namespace",
                self.options.epochs_key(),
                self.address
            ))
        })
    }

    async fn begin_epoch(
        &mut self,
        seen: &Epochs,
        known: Option<(Epoch, Position)>,
    ) -> Result<(), LinkError> {
        let fresh = fresh_epoch();
        let mut command = self.script(BEGIN);
        command.arg(seen.to_string()).arg(seen.to_continue().to_string());
        command.arg(fresh.to_string()).arg(least_ms(known));
        add_epoch_entry(&mut command, fresh);
        if self.run(&command).await? == Value::Int(1) {
            tracing::warn!(
                epoch = %fresh,
                server = %self.address,
                "the newest events that this node has are lost on the bus: a new epoch begins there"
            );
        }
        Ok(())
    }

    fn script(&self, text: &str) -> redis::Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(text).arg(2).arg(self.options.events_key()).arg(self.options.epochs_key());
        command
    }

    async fn run(&mut self, command: &redis::Cmd) -> Result<Value, LinkError> {
        let answer = tokio::time::timeout(ANSWER, self.connection.send_packed_command(command)).await;
        match answer {
            Ok(answer) => {
                answer.and_then(Value::extract_error).map_err(|error| link_error(self.address, error))
            }
            Err(_) => Err(LinkError::Away(format!("Redis at {} did not answer in {ANSWER:?}", self.address))),
        }
    }
}

fn add_epoch_entry(command: &mut redis::Cmd, epoch: Epoch) {
    for (name, text) in envelope::epoch_fields(epoch) {
        command.arg(name).arg(&*text);
    }
}

/// A new entry must come after all that this node has read.
fn least_ms(known: Option<(Epoch, Position)>) -> u64 {
    known.map_or(0, |(_, position)| EntryId::at(position).ms + 1)
}

/// Random, so that no two logs share one. Never 0, which is no epoch anywhere.
fn fresh_epoch() -> Epoch {
    Epoch((uuid::Uuid::now_v7().as_u128() as u64).max(1))
}

fn read_look(answer: &Value) -> Option<(Look, u64)> {
    let Value::Array(parts) = answer else { return None };
    let [epochs, first, last, known, now] = parts.as_slice() else { return None };
    let look = Look {
        epochs: Epochs::parse(text(epochs)?)?,
        first: match text(first)? {
            "" => None,
            id => Some(EntryId::parse(id)?),
        },
        last: EntryId::parse(text(last)?)?,
        has_known: *known != Value::Int(0),
    };
    Some((look, text(now)?.parse().ok()?))
}
