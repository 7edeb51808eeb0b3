//! How a Redis is set up, for an operator.

use super::access::{ANSWER, Access, To};
use super::error::link_error;
use super::server::{self, text};
use super::{RedisAddress, RedisOptions};
use crate::bus::backend::LinkError;
use crate::bus::survey::{Remark, Survey, ahead_ms, mebibytes};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// How long all of it may take.
const LONGEST: Duration = Duration::from_secs(8);
/// The oldest version that has what a stream needs.
const OLDEST: (u32, u32) = (6, 2);

/// Looks at the server that has our keys. `keeps` says whether events are kept there, or only pass.
pub async fn survey(options: &RedisOptions, keeps: bool) -> Result<Survey, LinkError> {
    let looking = async {
        let access = Access::read(options).await?;
        let address = server::find(options, &access).await?;
        let mut connection = access.connect(&address, To::Data, ANSWER).await?;
        look(&mut connection, &address, keeps).await
    };
    tokio::time::timeout(LONGEST, looking).await.unwrap_or_else(|_| {
        Err(LinkError::Away(format!("{} did not answer in {LONGEST:?}", options.servers)))
    })
}

async fn look(
    connection: &mut MultiplexedConnection,
    address: &RedisAddress,
    keeps: bool,
) -> Result<Survey, LinkError> {
    let asked = SystemTime::now();
    let time = ask(connection, &redis::cmd("TIME")).await.map_err(|error| link_error(address, error))?;
    let clock_ahead_ms = read_time(&time).map(|theirs| ahead_ms(theirs, asked));
    let (version, remarks) = match ask(connection, &redis::cmd("INFO")).await {
        Ok(info) => {
            let info = fields(text(&info).unwrap_or_default());
            let version =
                info.get("redis_version").map_or("of unknown version", |version| *version).to_owned();
            (version, remarks(&info, keeps))
        }
        Err(error) => {
            let words =
                format!("its settings are not told ({error}): allow this user INFO to have them checked");
            ("of unknown version".to_owned(), vec![Remark::Doubtful(words)])
        }
    };
    Ok(Survey { server: format!("Redis {version} at {address}"), clock_ahead_ms, remarks })
}

async fn ask(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, redis::RedisError> {
    connection.send_packed_command(command).await.and_then(Value::extract_error)
}

/// Seconds and microseconds.
fn read_time(answer: &Value) -> Option<i64> {
    let Value::Array(parts) = answer else { return None };
    let [seconds, micros] = parts.as_slice() else { return None };
    let (seconds, micros): (i64, i64) = (text(seconds)?.parse().ok()?, text(micros)?.parse().ok()?);
    seconds.checked_mul(1000)?.checked_add(micros / 1000)
}

/// The lines `name:value` of an answer to `INFO`.
fn fields(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.split_once(':')).collect()
}

fn remarks(info: &HashMap<&str, &str>, keeps: bool) -> Vec<Remark> {
    let mut remarks = Vec::new();
    if let Some(version) = info.get("redis_version")
        && is_older(version)
    {
        let (major, minor) = OLDEST;
        remarks
            .push(Remark::Bad(format!("version {version} is too old: it must be {major}.{minor} or later")));
    }
    if keeps {
        remarks.push(memory(info));
        remarks.push(persistence(info));
    }
    remarks
}

fn is_older(version: &str) -> bool {
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => (major, minor) < OLDEST,
        _ => false,
    }
}

/// Whether it would drop our keys when memory is short.
fn memory(info: &HashMap<&str, &str>) -> Remark {
    let number = |name: &str| info.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    let (used, most) = (number("used_memory"), number("maxmemory"));
    let policy = info.get("maxmemory_policy").copied().unwrap_or("unknown");
    match most {
        _ if policy.starts_with("allkeys") => Remark::Bad(format!(
            "maxmemory-policy is {policy}: when memory is short Redis drops the log, and all clients begin anew; set noeviction or a volatile- policy"
        )),
        0 => Remark::Doubtful(format!(
            "maxmemory is not set: {} are used, and nothing stops Redis before the system does; set it, with noeviction",
            mebibytes(used)
        )),
        most if used > most / 10 * 9 => Remark::Doubtful(format!(
            "{} of {} (maxmemory) are used: when it is full events wait on the disks of the nodes; raise it or lower bus.retention",
            mebibytes(used),
            mebibytes(most)
        )),
        most => Remark::Good(format!("{} of {} are used, {policy}", mebibytes(used), mebibytes(most))),
    }
}

/// Whether what it has confirmed survives its restart.
fn persistence(info: &HashMap<&str, &str>) -> Remark {
    let is = |name: &str, value: &str| info.get(name) == Some(&value);
    if is("aof_enabled", "1") {
        return if is("aof_last_write_status", "err") {
            Remark::Bad("the append-only file cannot be written: look at the disk of Redis".into())
        } else {
            Remark::Good("an append-only file is kept".into())
        };
    }
    Remark::Doubtful(
        "no append-only file is kept: what was confirmed since the last snapshot is gone if Redis ends; set `appendonly yes`"
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<Remark> {
        remarks(&fields(text), true)
    }

    #[test]
    fn settings_that_break_promises_are_named() {
        let good = "redis_version:7.2.4\r\nused_memory:1048576\r\nmaxmemory:104857600\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\naof_last_write_status:ok\r\n";
        assert!(said(good).iter().all(|remark| matches!(remark, Remark::Good(_))), "{:?}", said(good));
        for (from, to, bad) in [
            ("noeviction", "allkeys-lru", true),
            ("maxmemory:104857600", "maxmemory:0", false),
            ("used_memory:1048576", "used_memory:104857599", false),
            ("aof_enabled:1", "aof_enabled:0", false),
            ("status:ok", "status:err", true),
            ("7.2.4", "6.0.16", true),
        ] {
            let said = said(&good.replace(from, to));
            let found = said.iter().any(|remark| match remark {
                Remark::Good(_) => false,
                Remark::Doubtful(_) => !bad,
                Remark::Bad(_) => bad,
            });
            assert!(found, "{from} -> {to}: {said:?}");
        }
        assert!(
            remarks(&fields("redis_version:7.0.0"), false).is_empty(),
            "nothing is kept on plain channels"
        );
    }

    #[test]
    fn nothing_that_a_server_says_is_a_panic() {
        for text in ["", ":", "redis_version:", "redis_version:x.y\nmaxmemory:-1", "redis_version:6"] {
            said(text);
        }
        assert_eq!(
            read_time(&Value::Array(vec![Value::BulkString(b"9223372036854775807".to_vec()), Value::Nil])),
            None
        );
    }
}
