//! Which bus carries events between nodes.

use super::setting::written_as_text;
use std::fmt;
use std::str::FromStr;

/// Schemes that later versions take.
const LATER_SCHEMES: [&str; 7] =
    ["redis", "rediss", "redis+sentinel", "redis+cluster", "nats", "tls", "quic"];

/// The address of the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusUrl {
    /// `memory:`: none; this node is alone.
    Memory,
}

impl FromStr for BusUrl {
    type Err = BusUrlError;

    fn from_str(text: &str) -> Result<Self, BusUrlError> {
        match text.split_once(':') {
            Some(("memory", "")) => Ok(Self::Memory),
            Some((scheme, _)) if LATER_SCHEMES.contains(&scheme) => {
                Err(BusUrlError::Later(without_password(text)))
            }
            _ => Err(BusUrlError::Unknown(without_password(text))),
        }
    }
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
        }
    }
}

/// Why a URL names no bus. The texts have no password in them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BusUrlError {
    /// A bus of later versions.
    Later(String),
    /// No bus at all.
    Unknown(String),
}

impl fmt::Display for BusUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later(url) => write!(
                f,
                "{url:?} is not available in this version ({}); write \"memory:\" to run this node alone",
                env!("CARGO_PKG_VERSION")
            ),
            Self::Unknown(url) => write!(f, "{url:?} is not the URL of a bus; write \"memory:\""),
        }
    }
}

impl std::error::Error for BusUrlError {}

written_as_text!(BusUrl);

/// A URL as it may be shown: what stands before `@` is `***`.
fn without_password(url: &str) -> String {
    // The last `@`, as a password that is not escaped may hold one.
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme_end), Some(at)) if scheme_end + 3 <= at => {
            format!("{}***{}", &url[..scheme_end + 3], &url[at..])
        }
        (None, Some(at)) => format!("***{}", &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_memory_bus_is_here_yet() {
        assert_eq!("memory:".parse(), Ok(BusUrl::Memory));
        for url in ["redis://a:1/0", "rediss://a", "nats://a", "tls://a", "quic://a", "redis+cluster://a"] {
            assert_eq!(url.parse::<BusUrl>(), Err(BusUrlError::Later(url.into())));
        }
        for url in ["", "memory", "memory:x", "http://a", "redis"] {
            assert_eq!(url.parse::<BusUrl>(), Err(BusUrlError::Unknown(url.into())));
        }
    }

    #[test]
    fn passwords_are_not_told() {
        for url in
            ["redis://user:geheim@host:6379/0", "redis://:gehe@im@host", "x:geheim@host", "redis:/u:geheim@h"]
        {
            let message = url.parse::<BusUrl>().unwrap_err().to_string();
            assert!(!message.contains("gehe") && message.contains("***@"), "{message}");
        }
    }
}
