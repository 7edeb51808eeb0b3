//! What `[auth.webhook]` is made of.

use super::setting::written_as_text;
use crate::auth::OnError;
use hyper::header::{self, HeaderName};
use std::fmt;
use std::str::FromStr;

/// A header of clients that the app is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionHeader(pub HeaderName);

impl FromStr for SessionHeader {
    type Err = SessionHeaderError;

    fn from_str(text: &str) -> Result<Self, SessionHeaderError> {
        let name: HeaderName = text.parse().map_err(|_| SessionHeaderError(text.into()))?;
        // They are of the connection, not of the session, or frame the request.
        let of_the_connection = [
            header::HOST,
            header::CONTENT_LENGTH,
            header::CONTENT_TYPE,
            header::TRANSFER_ENCODING,
            header::CONNECTION,
            header::UPGRADE,
            header::EXPECT,
            header::TE,
            header::TRAILER,
        ];
        if of_the_connection.contains(&name) { Err(SessionHeaderError(text.into())) } else { Ok(Self(name)) }
    }
}

impl fmt::Display for SessionHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text names no header that can be passed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionHeaderError(String);

impl fmt::Display for SessionHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no header that can be passed on; write one that has the session, such as \"cookie\"",
            self.0
        )
    }
}

impl std::error::Error for SessionHeaderError {}

/// What happens when the app cannot be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionOnError(pub OnError);

impl FromStr for SessionOnError {
    type Err = SessionOnErrorError;

    fn from_str(text: &str) -> Result<Self, SessionOnErrorError> {
        match text {
            "refuse" => Ok(Self(OnError::Refuse)),
            "cached" => Ok(Self(OnError::Cached)),
            _ => Err(SessionOnErrorError(text.into())),
        }
    }
}

impl fmt::Display for SessionOnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            OnError::Refuse => "refuse",
            OnError::Cached => "cached",
        })
    }
}

/// The text is none of the two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionOnErrorError(String);

impl fmt::Display for SessionOnErrorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not known; write \"refuse\" or \"cached\"", self.0)
    }
}

impl std::error::Error for SessionOnErrorError {}

written_as_text!(SessionHeader, SessionOnError);
