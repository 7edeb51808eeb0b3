//! An event that is published and must come back: directly, and through whatever stands in between.

use super::super::address::NodeAddress;
use super::super::http::{HttpClient, target};
use crate::cli::error::CliError;
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long an event may take. A bus at the other end of the world does it in less.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much a client listener may say before the event that is waited for.
const MOST_BYTES: usize = 1 << 20;

/// Publishes an event on a channel of its own and polls for it.
pub(super) async fn publish_and_receive(
    app: &NodeAddress,
    app_token: Option<&str>,
    client: &NodeAddress,
    token: Option<&str>,
) -> Result<String, String> {
    let channel = channel();
    let mut reader = HttpClient::new(client.clone());
    let from = poll(&mut reader, &[("channel", &channel), ("timeout", "0")], token).await.map_err(words)?;
    let cursor = from["cursor"].as_str().unwrap_or_default().to_owned();
    let begun = Instant::now();
    publish(app, app_token, &channel).await.map_err(words)?;
    let seconds = PATIENCE.as_secs().to_string();
    let onward = [("channel", channel.as_str()), ("timeout", &seconds), ("cursor", &cursor)];
    let answer = poll(&mut reader, &onward, token).await.map_err(words)?;
    if answer["events"][0]["channel"] != channel {
        return Err(format!(
            "published at {app}, and it did not reach {client} within {} s: are both on the same bus, and is the bus there?",
            PATIENCE.as_secs()
        ));
    }
    Ok(format!("published at {app}, received at {client} after {} ms", begun.elapsed().as_millis()))
}

/// Opens a stream through a proxy and publishes an event, which must come while the stream is open: a proxy that
/// buffers holds it back.
pub(super) async fn through_a_proxy(
    app: &NodeAddress,
    app_token: Option<&str>,
    proxy: &NodeAddress,
    token: Option<&str>,
) -> Result<String, String> {
    let channel = channel();
    let stream = proxy.connect().await.map_err(words)?;
    let (mut read, mut write) = tokio::io::split(stream);
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n",
        with_token("/v1/sse", &[("channel", &channel)], token),
        proxy.host()
    );
    write.write_all(request.as_bytes()).await.map_err(|error| words(proxy.unreachable(error)))?;
    let mut seen = Vec::new();
    let begun = Instant::now();
    let head = read_until(&mut read, &mut seen, b"\r\n\r\n").await;
    if !seen.starts_with(b"HTTP/1.1 200") {
        let line = String::from_utf8_lossy(&seen).lines().next().unwrap_or_default().to_owned();
        return Err(match head {
            Ok(()) => {
                format!("{proxy} answers {line:?} to /v1/sse: does it pass /v1/ on to the client listener?")
            }
            Err(reason) => {
                format!("{proxy} answers nothing to /v1/sse: {reason}; it buffers, or reaches no node")
            }
        });
    }
    let connected = begun.elapsed();
    publish(app, app_token, &channel).await.map_err(words)?;
    let begun = Instant::now();
    read_until(&mut read, &mut seen, channel_in_data(&channel).as_bytes()).await.map_err(|reason| {
        format!("an event does not come through {proxy}: {reason}; switch response buffering off for /v1/sse and /v1/stream")
    })?;
    Ok(format!(
        "a stream through {proxy} opened in {} ms, and an event came in {} ms",
        connected.as_millis(),
        begun.elapsed().as_millis()
    ))
}

/// A channel that nobody else has.
fn channel() -> String {
    format!("sidewire.doctor.{}", uuid::Uuid::now_v7().simple())
}

/// How an event names its channel on the wire.
fn channel_in_data(channel: &str) -> String {
    format!("\"channel\":\"{channel}\"")
}

async fn publish(app: &NodeAddress, token: Option<&str>, channel: &str) -> Result<(), CliError> {
    // Kept for a moment, so that a poll between two requests finds it.
    let event = json!({"channel": channel, "event": "sidewire.doctor", "data": null, "ttl": 60}).to_string();
    HttpClient::new(app.clone())
        .showing(token.map(str::to_owned))
        .post("/v1/publish", "application/json", Bytes::from(event))
        .await?
        .success()?;
    Ok(())
}

async fn poll(
    reader: &mut HttpClient,
    query: &[(&str, &str)],
    token: Option<&str>,
) -> Result<Value, CliError> {
    let body = reader.get(&with_token("/v1/poll", query, token)).await?.success()?;
    serde_json::from_slice(&body).map_err(|error| {
        CliError::Protocol(format!("/v1/poll answers no JSON: {error}; is it the client listener?"))
    })
}

fn with_token(path: &str, query: &[(&str, &str)], token: Option<&str>) -> String {
    target(path, query.iter().copied().chain(token.map(|token| ("token", token))))
}

/// Reads until something has come.
async fn read_until(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    seen: &mut Vec<u8>,
    wanted: &[u8],
) -> Result<(), String> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !seen.windows(wanted.len()).any(|window| window == wanted) {
        if seen.len() > MOST_BYTES {
            return Err("too much else comes".into());
        }
        match tokio::time::timeout_at(deadline, stream.read_buf(seen)).await {
            Err(_) => return Err(format!("nothing within {} s", PATIENCE.as_secs())),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(0)) => return Err("the connection was closed".into()),
            Ok(Ok(_)) => {}
        }
    }
    Ok(())
}

fn words(error: CliError) -> String {
    match &error {
        CliError::Refused { status: Some(status), .. } if status.as_u16() == 401 => {
            format!(
                "{error}; the client listener asks who comes: look with the listener of a node without [auth]"
            )
        }
        _ => error.to_string(),
    }
}
