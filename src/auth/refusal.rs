//! Why somebody is not let in. The client is told which of the kinds and no more; the reason is for the log.

use std::fmt;

/// Why somebody is not let in, by what the client can do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Come with another token.
    Unauthorized(Reason),
    /// Come later: what would decide cannot be reached.
    Unavailable(&'static str),
}

/// What is wrong with a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// There is none.
    NoToken,
    /// It is longer than any token.
    TooLong,
    /// It is not made as RFC 7519 says.
    Malformed,
    /// It asks for what we do not understand (`crit`).
    Critical,
    /// Its algorithm is not one that the keys are for, or its key is unknown.
    NoKey,
    /// No key fits its signature.
    Signature,
    /// A claim that is needed is not there.
    Missing(String),
    /// A claim is not as it must be.
    Claim(String),
    /// It is over.
    Expired,
    /// It is not valid yet.
    NotYet,
    /// It was revoked.
    Revoked,
    /// The app does not know the session.
    Session,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoToken => "there is no token",
            Self::TooLong => "the token is too long",
            Self::Malformed => "the token is malformed",
            Self::Critical => "the token has critical headers (`crit`), none of which is supported",
            Self::NoKey => "the token's algorithm or key id (`kid`) fits no key",
            Self::Signature => "the token's signature fits no key",
            Self::Missing(claim) => return write!(f, "the token has no claim `{claim}`"),
            Self::Claim(what) => what,
            Self::Expired => "the token has expired",
            Self::NotYet => "the token is not valid yet (`nbf`)",
            Self::Revoked => "the token was revoked",
            Self::Session => "the app refused the session",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorized(reason) => reason.fmt(f),
            Self::Unavailable(what) => f.write_str(what),
        }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Unauthorized(reason)
    }
}
