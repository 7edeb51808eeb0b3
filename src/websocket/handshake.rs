//! The opening handshake (RFC 6455 section 4.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Response, StatusCode, Version};
use std::fmt;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Checks a client's opening handshake. Who may connect, and from which origin, is the caller's business.
pub fn accept(headers: &HeaderMap, method: &Method, version: Version) -> Result<Accept, HandshakeError> {
    if !has_token(headers, UPGRADE, "websocket") {
        return Err(HandshakeError::NotWebSocket);
    }
    if method != Method::GET {
        return Err(HandshakeError::Method);
    }
    if version != Version::HTTP_11 {
        return Err(HandshakeError::Malformed("the WebSocket handshake needs HTTP/1.1"));
    }
    if !has_token(headers, CONNECTION, "upgrade") {
        return Err(HandshakeError::Malformed("`Connection` must contain `Upgrade`"));
    }
    if only(headers, HOST).is_none() {
        return Err(HandshakeError::Malformed("`Host` must be given, once"));
    }
    // Bytes that a proxy takes for the body would be frames here: that is how requests are smuggled.
    let has_body = headers.get_all(CONTENT_LENGTH).iter().any(|length| length.as_bytes() != b"0");
    if has_body || headers.contains_key(TRANSFER_ENCODING) {
        return Err(HandshakeError::Malformed("the WebSocket handshake has no body"));
    }
    if only(headers, SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(HandshakeError::Version);
    }
    let key = only(headers, SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key))
        .ok_or(HandshakeError::Malformed("`Sec-WebSocket-Key` must be 16 bytes in base64, once"))?;
    Ok(Accept { accept_key: derive_accept_key(key), offered_protocols: offered_protocols(headers)? })
}

/// A handshake that can be answered by `101 Switching Protocols`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accept {
    /// The proof that the server has understood the key.
    pub accept_key: String,
    /// The subprotocols that the client offers, in its order. Each is a token of RFC 9110.
    pub offered_protocols: Vec<String>,
}

impl Accept {
    /// The head of the answer, as bytes, for a socket that was taken over.
    ///
    /// `protocol` is named only if the client has offered it, as a server may name no other (section 4.2.2).
    /// What was offered is a token, so no caller can let a line break through.
    pub fn response_head(&self, protocol: Option<&str>) -> Vec<u8> {
        let mut head = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
        for (name, value) in self.fields(protocol) {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// The same answer for an HTTP server that does the upgrade.
    pub fn response<B: Default>(&self, protocol: Option<&str>) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (name, value) in self.fields(protocol) {
            // Base64 and tokens are always header values.
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    fn fields(&self, protocol: Option<&str>) -> impl Iterator<Item = (HeaderName, &str)> {
        let offered = self.offered_protocols.iter().find(|offered| Some(offered.as_str()) == protocol);
        [(UPGRADE, "websocket"), (CONNECTION, "Upgrade"), (SEC_WEBSOCKET_ACCEPT, self.accept_key.as_str())]
            .into_iter()
            .chain(offered.map(|name| (SEC_WEBSOCKET_PROTOCOL, name.as_str())))
    }
}

/// Why a handshake is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeError {
    /// The request does not ask for a WebSocket at all: 426.
    NotWebSocket,
    /// It asks for a version of the protocol other than 13: 426.
    Version,
    /// It is not a GET: 405.
    Method,
    /// It breaks a rule, which the text names: 400.
    Malformed(&'static str),
}

impl HandshakeError {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotWebSocket | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The headers that say what would have been right.
    pub fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.status() == StatusCode::UPGRADE_REQUIRED {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if self == Self::Method {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        headers
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotWebSocket => "this address speaks WebSocket: ask for it with `Upgrade: websocket`",
            Self::Version => "`Sec-WebSocket-Version` must be 13",
            Self::Method => "the WebSocket handshake is a GET",
            Self::Malformed(what) => what,
        })
    }
}

impl std::error::Error for HandshakeError {}

/// Whether a comma-separated header, which may come in several lines, has this token in any case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// The value of a header that must stand there once: of two, each side of a proxy may take another.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

fn is_key(key: &[u8]) -> bool {
    key.len() == 24 && STANDARD.decode_slice(key, &mut [0; 18]) == Ok(16)
}

fn offered_protocols(headers: &HeaderMap) -> Result<Vec<String>, HandshakeError> {
    elements(headers, SEC_WEBSOCKET_PROTOCOL)
        .map(|element| match std::str::from_utf8(element) {
            Ok(name) if name.bytes().all(is_token_byte) => Ok(name.to_owned()),
            _ => Err(HandshakeError::Malformed("`Sec-WebSocket-Protocol` must be a list of tokens")),
        })
        .collect()
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &[(&str, &str)] = &[
        ("host", "localhost"),
        ("upgrade", "websocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn get(headers: &HeaderMap) -> Result<Accept, HandshakeError> {
        accept(headers, &Method::GET, Version::HTTP_11)
    }

    /// The good handshake with one header replaced (taken away by the empty value).
    fn with(name: &str, value: &str) -> Result<Accept, HandshakeError> {
        let mut headers = headers(GOOD);
        headers.remove(name);
        if !value.is_empty() {
            headers.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        get(&headers)
    }

    #[test]
    fn the_example_of_the_rfc() {
        let accepted = get(&headers(GOOD)).unwrap();
        assert_eq!(accepted.accept_key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(
            String::from_utf8(accepted.response_head(None)).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn tokens_are_found_in_any_case_and_line() {
        assert!(with("upgrade", "WebSocket").is_ok());
        let mut headers = headers(GOOD);
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.append(CONNECTION, HeaderValue::from_static("x ,UPGRADE "));
        assert!(get(&headers).is_ok());
    }

    #[test]
    fn what_is_missing_or_wrong_is_told() {
        let status = |result: Result<Accept, HandshakeError>| result.unwrap_err().status().as_u16();
        assert_eq!(status(with("upgrade", "")), 426);
        assert_eq!(status(with("upgrade", "h2c")), 426);
        assert_eq!(status(with("connection", "keep-alive")), 400);
        assert_eq!(status(with("connection", "upgraded")), 400);
        assert_eq!(status(with("sec-websocket-version", "8")), 426);
        assert_eq!(status(with("sec-websocket-version", "")), 426);
        assert_eq!(status(with("host", "")), 400);
        assert_eq!(status(with("sec-websocket-key", "")), 400);
        assert_eq!(status(with("sec-websocket-key", "c2hvcnQ=")), 400);
        assert_eq!(status(with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZSE=")), 400);
        assert_eq!(status(with("sec-websocket-key", "dGhlIHNhbXBsZSBub25!ZQ==")), 400);
        assert_eq!(status(with("content-length", "5")), 400);
        assert_eq!(status(with("transfer-encoding", "chunked")), 400);
        assert!(with("content-length", "0").is_ok());
        let good = headers(GOOD);
        assert_eq!(status(accept(&good, &Method::POST, Version::HTTP_11)), 405);
        assert_eq!(status(accept(&good, &Method::GET, Version::HTTP_10)), 400);
    }

    #[test]
    fn a_refused_version_names_the_right_one() {
        let error = with("sec-websocket-version", "8").unwrap_err();
        assert_eq!(error.headers()[SEC_WEBSOCKET_VERSION], "13");
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let mut headers = headers(GOOD);
        headers.append(SEC_WEBSOCKET_KEY, headers[SEC_WEBSOCKET_KEY].clone());
        assert!(matches!(get(&headers), Err(HandshakeError::Malformed(_))));
    }

    #[test]
    fn only_an_offered_protocol_is_named() {
        let accepted = with("sec-websocket-protocol", "sidewire.v1.msgpack, sidewire.v1.json").unwrap();
        assert_eq!(accepted.offered_protocols, ["sidewire.v1.msgpack", "sidewire.v1.json"]);
        let response = accepted.response::<String>(Some("sidewire.v1.json"));
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "sidewire.v1.json");
        for other in ["other", "", "sidewire.v1.json\r\nSet-Cookie: a=b"] {
            let head = accepted.response_head(Some(other));
            assert_eq!(head, accepted.response_head(None));
        }
    }

    proptest! {
        #[test]
        fn no_offer_can_forge_a_line(offer in "[ -~\t]{0,40}") {
            let mut headers = headers(GOOD);
            headers.insert(SEC_WEBSOCKET_PROTOCOL, offer.parse().unwrap());
            if let Ok(accepted) = get(&headers) {
                for protocol in &accepted.offered_protocols {
                    let head = String::from_utf8(accepted.response_head(Some(protocol))).unwrap();
                    prop_assert_eq!(head.matches("\r\n").count(), 6);
                    prop_assert_eq!(head.lines().count(), 6);
                }
            }
        }
    }
}
