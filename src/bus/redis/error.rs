//! What an error of Redis means to the caller.

use super::RedisAddress;
use crate::bus::backend::{LinkError, SendError};
use redis::{RedisError, ServerError};
use std::io;
use std::sync::Arc;

/// Codes of a server that is there, but not the one to talk to, or not yet: it passes, or another link helps.
const PASSING: [&str; 9] =
    ["LOADING", "READONLY", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "UNBLOCKED", "BUSY"];

/// Codes that mean that another link, perhaps to another server, is needed.
const NEEDS_ANOTHER_LINK: [&str; 9] =
    ["LOADING", "READONLY", "MOVED", "ASK", "MASTERDOWN", "UNBLOCKED", "NOAUTH", "WRONGPASS", "CLUSTERDOWN"];

/// Why there is no link to `address`.
pub(super) fn link_error(address: &RedisAddress, error: RedisError) -> LinkError {
    if let Some(answer) = server_error(&error) {
        let (code, text) = answer;
        let why = format!("Redis at {address} says: {text}");
        return match code.as_str() {
            code if PASSING.contains(&code) => LinkError::Away(why),
            "ERR" if text.contains("syntax error") => {
                LinkError::Refused(format!("{why}; it must be version 6.2 or later"))
            }
            _ => LinkError::Refused(why),
        };
    }
    let why = format!("Redis at {address}: {error}");
    let refused = match error.kind() {
        redis::ErrorKind::AuthenticationFailed
        | redis::ErrorKind::InvalidClientConfig
        | redis::ErrorKind::RESP3NotSupported => true,
        // So the TLS library says that it does not believe the certificate.
        redis::ErrorKind::Io => io_kind(&error) == Some(io::ErrorKind::InvalidData),
        _ => false,
    };
    if refused { LinkError::Refused(why) } else { LinkError::Away(why) }
}

/// Why nothing could be sent to `address`.
pub(super) fn send_error(address: &RedisAddress, error: RedisError) -> SendError {
    match server_error(&error) {
        Some((code, text)) => answer(address, &code, &text),
        None => SendError::Lost(format!("Redis at {address}: {error}")),
    }
}

/// Why the server refused one command.
pub(super) fn refusal(address: &RedisAddress, error: &ServerError) -> SendError {
    answer(address, error.code(), &text_of(error))
}

fn answer(address: &RedisAddress, code: &str, text: &str) -> SendError {
    let why = format!("Redis at {address} says: {text}");
    match code {
        code if NEEDS_ANOTHER_LINK.contains(&code) => SendError::Lost(why),
        "WRONGTYPE" => SendError::Gone(why),
        _ => SendError::Refused(why),
    }
}

/// The code and the words of a server's answer, if the error is one.
fn server_error(error: &RedisError) -> Option<(String, String)> {
    let errors = error.clone().into_server_errors()?;
    let (_, first) = errors.first()?;
    Some((first.code().to_owned(), text_of(first)))
}

fn text_of(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

fn io_kind(error: &RedisError) -> Option<io::ErrorKind> {
    // The library shares what the system told it.
    let source =
        std::error::Error::source(error)?.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?;
    source.downcast_ref::<io::Error>().map(io::Error::kind)
}
