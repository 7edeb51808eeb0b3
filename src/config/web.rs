//! What browsers tell about themselves: host names and origins.

use super::setting::written_as_text;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A host name or IP address as a `Host` header has it, in lower case, without the port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HostName(String);

impl HostName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if bare.parse::<IpAddr>().is_ok() || (!bare.is_empty() && bare.bytes().all(named)) {
            Ok(Self(bare.to_ascii_lowercase()))
        } else {
            Err(HostNameError(text.into()))
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no host name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostNameError(String);

impl fmt::Display for HostNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a host name; write the name alone, without scheme, port or wildcard, such as \"app.internal\"",
            self.0
        )
    }
}

impl std::error::Error for HostNameError {}

/// Whose pages may talk to the client listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AllowedOrigin {
    /// `"*"`: any.
    Any,
    /// `"https://app.example.com"`, as a browser sends it.
    Exact(String),
}

impl AllowedOrigin {
    /// Whether an `Origin` header is this one.
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact.eq_ignore_ascii_case(origin),
        }
    }
}

impl FromStr for AllowedOrigin {
    type Err = AllowedOriginError;

    fn from_str(text: &str) -> Result<Self, AllowedOriginError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let error = || AllowedOriginError(text.into());
        let lower = text.to_ascii_lowercase();
        let (scheme, host) = lower.split_once("://").ok_or_else(error)?;
        let named =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'?' | b'#' | b'@' | b'*' | b',');
        if scheme.is_empty() || host.is_empty() || !host.bytes().all(named) {
            return Err(error());
        }
        // Browsers leave the usual port out, so an origin that names it would never match.
        let usual_port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        let host = host.strip_suffix(usual_port).unwrap_or(host);
        // What is left is a host of its own: there is one, and it has no usual port again.
        if host.is_empty() || (!usual_port.is_empty() && host.ends_with(usual_port)) {
            return Err(error());
        }
        Ok(Self::Exact(format!("{scheme}://{host}")))
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "*",
            Self::Exact(origin) => origin,
        })
    }
}

/// The text is no origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllowedOriginError(String);

impl fmt::Display for AllowedOriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an origin; write scheme and host without a path, such as \"https://app.example.com\", or \"*\" for any",
            self.0
        )
    }
}

impl std::error::Error for AllowedOriginError {}

written_as_text!(HostName, AllowedOrigin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_stand_alone() {
        for (text, name) in [("App.Internal", "app.internal"), ("[::1]", "::1"), ("10.0.0.1", "10.0.0.1")] {
            assert_eq!(text.parse::<HostName>().unwrap().as_str(), name);
        }
        for text in ["", "a:80", "http://a", "*.a", "a b", "a/b"] {
            assert!(text.parse::<HostName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn origins_are_kept_as_browsers_send_them() {
        for (text, origin) in [
            ("https://App.example.com", "https://app.example.com"),
            ("https://a:443", "https://a"),
            ("http://a:80", "http://a"),
            ("http://a:8080", "http://a:8080"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("*", "*"),
        ] {
            assert_eq!(text.parse::<AllowedOrigin>().unwrap().to_string(), origin);
        }
        for text in [
            "",
            "a",
            "https://",
            "https://a/",
            "https://a/b",
            "https://*.a",
            "null",
            "https://:443",
            "https://a:443:443",
        ] {
            assert!(text.parse::<AllowedOrigin>().is_err(), "{text:?}");
        }
        let origin: AllowedOrigin = "https://a".parse().unwrap();
        assert!(origin.allows("https://a") && !origin.allows("https://a.evil"));
    }
}
