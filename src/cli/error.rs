//! Why a command failed.

use super::address::NodeAddress;
use crate::config::ConfigError;
use hyper::StatusCode;
use serde::Deserialize;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub enum CliError {
    /// The configuration that tells where the node is.
    Config(ConfigError),
    /// No node answers there, or it stopped to.
    Unreachable {
        /// Where.
        address: NodeAddress,
        /// The system's words.
        reason: String,
    },
    /// The node answered, and said no.
    Refused {
        /// The HTTP status, if it was an answer over HTTP.
        status: Option<StatusCode>,
        /// The node's code, such as `invalid_channel`.
        code: String,
        /// The node's words.
        message: String,
    },
    /// The node answered what no node should.
    Protocol(String),
    /// What was typed, or read from standard input, cannot be used.
    Input(String),
    /// The node is not ready.
    NotReady(String),
    /// Whoever read standard output has gone: nothing is wrong.
    OutputClosed,
    /// Standard output cannot be written.
    Output(io::Error),
}

impl CliError {
    /// Tells it on standard error; the exit code of the process.
    pub(super) fn report(self) -> ExitCode {
        if matches!(self, Self::OutputClosed) {
            return ExitCode::SUCCESS;
        }
        // Nobody may be there to read it, which must not make it a panic.
        let _ = writeln!(io::stderr(), "{self}");
        ExitCode::FAILURE
    }

    /// What a node said with a status that is not a success.
    pub(super) fn from_answer(status: StatusCode, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Answer {
            code: String,
            message: String,
        }
        let (code, message) = match serde_json::from_slice::<Answer>(body) {
            Ok(Answer { code, message }) => (code, message),
            // Not ours: a proxy's page, or another server.
            Err(_) => {
                let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
                (format!("http_{}", status.as_u16()), text.trim().to_owned())
            }
        };
        Self::Refused { status: Some(status), code, message }
    }

    /// Whether to try again may help.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status: Some(status), .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Refused { status: None, code, .. } => code == "unavailable" || code == "rate_limited",
            _ => false,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Unreachable { address, reason } => {
                write!(f, "unreachable: no answer from {address}: {reason}; is the node running there?")
            }
            Self::Refused { code, message, .. } => write!(f, "{code}: {message}"),
            Self::Protocol(message) | Self::Input(message) | Self::NotReady(message) => f.write_str(message),
            Self::OutputClosed => f.write_str("standard output is closed"),
            Self::Output(error) => write!(f, "standard output: {error}"),
        }
    }
}

impl std::error::Error for CliError {}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_nodes_words() {
        let body = br#"{"code":"invalid_channel","message":"write another","field":"channel"}"#;
        let error = CliError::from_answer(StatusCode::BAD_REQUEST, body);
        assert_eq!(error.to_string(), "invalid_channel: write another");
        assert!(!error.is_passing());
        let error = CliError::from_answer(StatusCode::BAD_GATEWAY, b"<html>\n");
        assert_eq!(error.to_string(), "http_502: <html>");
        assert!(error.is_passing());
    }
}
