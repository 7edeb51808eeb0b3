//! Why a node does not start.

use crate::auth::AuthError;
use crate::cipher::KeyFileError;
use crate::log::OpenError;
use crate::server::{Address, TlsError};
use std::fmt;
use std::io;

/// Why it does not start.
#[derive(Debug)]
pub enum StartError {
    /// The log cannot be opened.
    Log(OpenError),
    /// A listener cannot be bound.
    Listen {
        /// Its section.
        listener: &'static str,
        /// Where.
        address: Address,
        /// Why.
        error: io::Error,
    },
    /// The keys of the log cannot be read.
    Keys(KeyFileError),
    /// The outbox cannot be opened.
    Outbox(crate::outbox::OpenError),
    /// The audit log cannot be written.
    Audit(io::Error),
    /// The keys of tokens cannot be used.
    Auth(AuthError),
    /// The certificates of the listeners cannot be used.
    Tls(TlsError),
    /// A passed socket cannot be used.
    Passed {
        /// The listener that it is for.
        listener: &'static str,
        /// Why.
        reason: String,
    },
    /// The operating system refuses threads.
    Threads(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => write!(f, "the log cannot be opened: {error}"),
            Self::Listen { listener, address, error } => write!(
                f,
                "cannot listen on {address}: {error}; choose another address with `{listener}.listen`, or stop what listens there"
            ),
            Self::Keys(error) => write!(f, "log.encryption_key_file: {error}"),
            Self::Outbox(error) => write!(f, "the outbox cannot be opened: {error}"),
            Self::Audit(error) => write!(f, "telemetry.audit_file cannot be written: {error}"),
            Self::Auth(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Passed { listener, reason } => {
                write!(f, "the socket that was passed for the {listener} listener cannot be used: {reason}")
            }
            Self::Threads(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
