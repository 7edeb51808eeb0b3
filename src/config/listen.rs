//! Where a listener listens.

use super::setting::written_as_text;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Longest path of a unix socket: the kernel's 108 bytes, one of which ends the text.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// An address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddress {
    /// `127.0.0.1:7070`.
    Tcp(SocketAddr),
    /// `unix:/run/sidewire/app.sock`.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether only this host (or, within a pod, only this pod) can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether the kernel would refuse to listen on both.
    pub(super) fn clashes_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(two)) => {
                one.port() == two.port()
                    && one.port() != 0
                    && (one.ip() == two.ip() || one.ip().is_unspecified() || two.ip().is_unspecified())
            }
            _ => self == other,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.len() {
                0 => Err(ListenAddressError::NoPath),
                1..=MAX_SOCKET_PATH_BYTES => Ok(Self::Unix(path.into())),
                _ => Err(ListenAddressError::LongPath(path.into())),
            };
        }
        // The one name that needs no resolver.
        if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        text.parse().map(Self::Tcp).map_err(|_| ListenAddressError::Address(text.into()))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a text is no address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddressError {
    /// Neither an IP address with a port nor a unix socket.
    Address(String),
    /// `unix:` alone.
    NoPath,
    /// A path that the kernel does not take.
    LongPath(String),
}

impl fmt::Display for ListenAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(text) => write!(
                f,
                "{text:?} is not an address to listen on; write an IP address and a port, such as \"127.0.0.1:7070\", \"0.0.0.0:7070\" or \"[::1]:7070\", or \"unix:/path/to/socket\""
            ),
            Self::NoPath => f.write_str("\"unix:\" has no path; write \"unix:/path/to/socket\""),
            Self::LongPath(path) => write!(
                f,
                "the socket path {path:?} is too long; the kernel takes at most {MAX_SOCKET_PATH_BYTES} bytes"
            ),
        }
    }
}

impl std::error::Error for ListenAddressError {}

/// Who may open a unix socket: the permission bits of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketMode(pub u32);

impl FromStr for SocketMode {
    type Err = SocketModeError;

    fn from_str(text: &str) -> Result<Self, SocketModeError> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        match u32::from_str_radix(digits, 8) {
            Ok(bits) if bits <= 0o777 && digits.len() >= 3 => Ok(Self(bits)),
            _ => Err(SocketModeError(text.into())),
        }
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// The text is no set of permission bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketModeError(String);

impl fmt::Display for SocketModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a file mode; write three octal digits, such as \"0660\"", self.0)
    }
}

impl std::error::Error for SocketModeError {}

written_as_text!(ListenAddress, SocketMode);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ListenAddress {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_survive_their_text_form() {
        for text in ["127.0.0.1:7070", "0.0.0.0:0", "[::1]:7070", "unix:/run/sidewire/app.sock"] {
            assert_eq!(address(text).to_string(), text);
        }
        assert_eq!(address("localhost:80").to_string(), "127.0.0.1:80");
        for text in ["", "7070", ":7070", "127.0.0.1", "example.com:80", "unix:", "http://127.0.0.1:1"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text:?}");
        }
        assert!(format!("unix:/{}", "a".repeat(107)).parse::<ListenAddress>().is_err());
    }

    #[test]
    fn only_loopback_and_unix_are_local() {
        for text in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/a"] {
            assert!(address(text).is_local(), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert!(!address(text).is_local(), "{text}");
        }
    }

    #[test]
    fn an_address_that_is_taken_is_seen() {
        let clash = |one: &str, two: &str| address(one).clashes_with(&address(two));
        assert!(clash("127.0.0.1:1", "127.0.0.1:1"));
        assert!(clash("0.0.0.0:1", "127.0.0.1:1"));
        assert!(clash("unix:/a", "unix:/a"));
        assert!(!clash("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!clash("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!clash("unix:/a", "unix:/b"));
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!("0660".parse(), Ok(SocketMode(0o660)));
        assert_eq!("666".parse::<SocketMode>().unwrap().to_string(), "0666");
        for text in ["", "0", "888", "1777", "rw"] {
            assert!(text.parse::<SocketMode>().is_err(), "{text:?}");
        }
    }
}
