//! How a NATS is set up, for an operator.

use super::link::Link;
use super::options::NatsOptions;
use super::stream::{Kept, Stream};
use crate::bus::backend::LinkError;
use crate::bus::survey::{Remark, Survey, ahead_ms, mebibytes};
use async_nats::jetstream::ContextBuilder;
use async_nats::jetstream::account::Account;
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long all of it may take.
const LONGEST: Duration = Duration::from_secs(8);
/// For one question to JetStream.
const ANSWER: Duration = Duration::from_secs(3);
/// As large as an event may be by default, with its names and tags.
const LARGEST_EVENT: usize = 1 << 20;

/// Looks at a server. `kept` says how events are kept there, if they are.
pub async fn survey(options: &NatsOptions, kept: Option<Kept>) -> Result<Survey, LinkError> {
    let looking = async {
        let link = Link::connect(options).await?;
        tokio::select! {
            biased;
            survey = look(&link, options, kept) => Ok(survey),
            reason = link.broken() => Err(reason),
        }
    };
    tokio::time::timeout(LONGEST, looking)
        .await
        .unwrap_or_else(|_| Err(LinkError::Away(format!("{options} did not answer in {LONGEST:?}"))))
}

async fn look(link: &Link, options: &NatsOptions, kept: Option<Kept>) -> Survey {
    let info = link.client().server_info();
    let mut remarks = Vec::new();
    if info.max_payload < LARGEST_EVENT {
        remarks.push(Remark::Doubtful(format!(
            "max_payload is {} bytes: larger events are refused with 413; raise it, or lower limits.event_bytes",
            info.max_payload
        )));
    }
    let clock_ahead_ms = match kept {
        Some(kept) => look_at_stream(link, &options.namespace, kept, &mut remarks).await,
        None => None,
    };
    let server = format!("NATS {} ({}) at {options}", info.version, info.server_name);
    Survey { server, clock_ahead_ms, remarks }
}

/// What is said of JetStream and of our stream. Returns how far its clock is ahead, if it tells.
async fn look_at_stream(link: &Link, namespace: &str, kept: Kept, remarks: &mut Vec<Remark>) -> Option<i64> {
    let context = ContextBuilder::new().timeout(ANSWER).build(link.client().clone());
    match context.query_account().await {
        Ok(account) => remarks.push(storage(&account, &kept)),
        Err(error) => {
            remarks.push(Remark::Bad(format!(
                "JetStream does not answer ({error}): switch it on in the server's configuration, and allow this account to use it"
            )));
            return None;
        }
    }
    let stream = Stream::new(namespace, kept);
    let asked = SystemTime::now();
    let answer: Result<Value, _> = context.request(format!("STREAM.INFO.{}", stream.name()), &()).await;
    match answer {
        Ok(answer) => {
            remarks.push(stream_remark(stream.name(), &answer));
            answer["ts"].as_str().and_then(read_time).map(|theirs| ahead_ms(theirs, asked))
        }
        Err(error) => {
            remarks.push(Remark::Doubtful(format!("the stream {} is not told: {error}", stream.name())));
            None
        }
    }
}

/// Whether the account has room for what is to be kept.
fn storage(account: &Account, kept: &Kept) -> Remark {
    let (used, most) = match kept.storage {
        super::Storage::File => (account.storage, account.limits.max_storage),
        super::Storage::Memory => (account.memory, account.limits.max_memory),
    };
    // Below zero is no limit.
    let most = most.and_then(|most| u64::try_from(most).ok());
    match (most, kept.max_bytes) {
        (Some(most), Some(wanted)) if wanted > most => Remark::Bad(format!(
            "the account may keep {}, and bus.max_bytes is {}: raise the one or lower the other",
            mebibytes(most),
            mebibytes(wanted)
        )),
        (Some(most), None) => Remark::Doubtful(format!(
            "{} of {} are used, and bus.max_bytes sets no bound: when the account is full events wait on the disks of the nodes",
            mebibytes(used),
            mebibytes(most)
        )),
        (Some(most), Some(_)) => {
            Remark::Good(format!("JetStream uses {} of {}", mebibytes(used), mebibytes(most)))
        }
        (None, _) => Remark::Good(format!("JetStream uses {}, without a limit", mebibytes(used))),
    }
}

fn stream_remark(name: &str, answer: &Value) -> Remark {
    if let Some(state) = answer.get("state") {
        let (messages, bytes) =
            (state["messages"].as_u64().unwrap_or(0), state["bytes"].as_u64().unwrap_or(0));
        return Remark::Good(format!("the stream {name} has {messages} messages, {}", mebibytes(bytes)));
    }
    let error = &answer["error"];
    if error["code"] == 404 {
        return Remark::Good(format!("the stream {name} will be made"));
    }
    let words = error["description"].as_str().unwrap_or("no reason given");
    Remark::Bad(format!("the stream {name} cannot be looked at: {words}"))
}

fn read_time(text: &str) -> Option<i64> {
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_stream_answers_is_put_into_words() {
        let there = json!({"state": {"messages": 3, "bytes": 5_000_000}, "ts": "2026-11-21T10:00:00.5Z"});
        assert_eq!(stream_remark("S", &there), Remark::Good("the stream S has 3 messages, 4 MiB".into()));
        let missing = json!({"error": {"code": 404, "description": "stream not found"}});
        assert_eq!(stream_remark("S", &missing), Remark::Good("the stream S will be made".into()));
        for strange in [json!(null), json!({"error": {"code": 503}})] {
            assert!(matches!(stream_remark("S", &strange), Remark::Bad(_)), "{strange}");
        }
        assert_eq!(read_time("1970-01-01T00:00:01.25Z"), Some(1250));
        assert_eq!(read_time("yesterday"), None);
    }
}
