//! Which server of a Redis to talk to.

use super::access::{ANSWER, Access, To};
use super::error::link_error;
use super::{RedisAddress, RedisOptions, RedisServers};
use crate::bus::backend::LinkError;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redis::Value;
use redis::aio::MultiplexedConnection;

/// The server that has our keys and may be written to.
pub(super) async fn find(options: &RedisOptions, access: &Access) -> Result<RedisAddress, LinkError> {
    match &options.servers {
        RedisServers::Single(address) => Ok(address.clone()),
        RedisServers::Sentinel { sentinels, master, .. } => {
            first_good(sentinels, |sentinel| master_by(access, sentinel, master)).await
        }
        RedisServers::Cluster(nodes) => {
            let key = options.events_key();
            let key = key.as_str();
            first_good(nodes, |node| async move { master_of(access, node, key).await }).await
        }
    }
}

/// Asks all at once and takes the first answer that holds: one of them may be frozen. Without any, the error of
/// one that was there counts before that of one that was not.
async fn first_good<'a, Answer: Future<Output = Result<RedisAddress, LinkError>>>(
    addresses: &'a [RedisAddress],
    ask: impl Fn(&'a RedisAddress) -> Answer,
) -> Result<RedisAddress, LinkError> {
    let mut answers: FuturesUnordered<_> = addresses.iter().map(ask).collect();
    let mut worst = None;
    while let Some(answer) = answers.next().await {
        match (answer, &worst) {
            (Ok(address), _) => return Ok(address),
            (Err(_), Some(LinkError::Refused(_))) => {}
            (Err(error), _) => worst = Some(error),
        }
    }
    Err(worst.unwrap_or_else(|| LinkError::Refused("no server of Redis is configured".into())))
}

async fn master_by(access: &Access, sentinel: &RedisAddress, name: &str) -> Result<RedisAddress, LinkError> {
    let mut connection = access.connect(sentinel, To::Sentinel, ANSWER).await?;
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let answer = ask(&mut connection, sentinel, &command).await?;
    let address = match &answer {
        Value::Nil => {
            return Err(LinkError::Refused(format!("the Sentinel at {sentinel} knows no master {name:?}")));
        }
        Value::Array(parts) => match parts.as_slice() {
            [host, port] => address(host, port),
            _ => None,
        },
        _ => None,
    };
    let address = address.ok_or_else(|| strange(sentinel))?;
    // A Sentinel may not have heard yet that another one took over.
    let mut connection = access.connect(&address, To::Data, ANSWER).await?;
    let role = ask(&mut connection, &address, &redis::cmd("ROLE")).await?;
    match &role {
        Value::Array(parts) if parts.first().and_then(text) == Some("master") => Ok(address),
        _ => Err(LinkError::Away(format!("{address}, which the Sentinel at {sentinel} names, is no master"))),
    }
}

async fn master_of(access: &Access, node: &RedisAddress, key: &str) -> Result<RedisAddress, LinkError> {
    let mut connection = access.connect(node, To::Data, ANSWER).await?;
    // A node that is cut off from most others knows the slots as they were.
    let mut command = redis::cmd("CLUSTER");
    command.arg("INFO");
    let info = ask(&mut connection, node, &command).await?;
    if !text(&info).unwrap_or_default().contains("cluster_state:ok") {
        return Err(LinkError::Away(format!("the cluster is not whole, as {node} sees it")));
    }
    let mut command = redis::cmd("CLUSTER");
    command.arg("KEYSLOT").arg(key);
    let slot = match ask(&mut connection, node, &command).await? {
        Value::Int(slot) => slot,
        _ => return Err(strange(node)),
    };
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let Value::Array(ranges) = ask(&mut connection, node, &command).await? else { return Err(strange(node)) };
    for range in &ranges {
        // The first and the last slot, then the master, then its replicas.
        let Value::Array(range) = range else { return Err(strange(node)) };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else {
            return Err(strange(node));
        };
        if (*first..=*last).contains(&slot) {
            let found = match master.as_slice() {
                // A node that does not know its own address means the one that we asked.
                [host, port, ..] if text(host).is_none_or(|host| host.is_empty() || host == "?") => {
                    port_of(port).map(|port| RedisAddress { host: node.host.clone(), port })
                }
                [host, port, ..] => address(host, port),
                _ => None,
            };
            return found.ok_or_else(|| strange(node));
        }
    }
    Err(LinkError::Away(format!("the cluster of {node} has no master for slot {slot}, where {key} belongs")))
}

async fn ask(
    connection: &mut MultiplexedConnection,
    address: &RedisAddress,
    command: &redis::Cmd,
) -> Result<Value, LinkError> {
    let answer = connection.send_packed_command(command).await.and_then(Value::extract_error);
    answer.map_err(|error| link_error(address, error))
}

fn strange(address: &RedisAddress) -> LinkError {
    LinkError::Refused(format!("{address} gives an answer that is not that of a Redis of this kind"))
}

fn address(host: &Value, port: &Value) -> Option<RedisAddress> {
    Some(RedisAddress { host: text(host)?.to_owned(), port: port_of(port)? })
}

fn port_of(value: &Value) -> Option<u16> {
    match value {
        Value::Int(port) => u16::try_from(*port).ok(),
        _ => text(value)?.parse().ok(),
    }
}

/// The text of an answer.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}
