//! A small HTTP/1.1 client for one node: one connection, kept open between requests.

use super::address::NodeAddress;
use super::error::CliError;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::time::Duration;

/// How long a node may take to answer; longer than any of its own timeouts.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A client of one listener.
pub(super) struct HttpClient {
    address: NodeAddress,
    token: Option<String>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// What a node answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl HttpClient {
    /// Connects with the first request.
    pub(super) fn new(address: NodeAddress) -> Self {
        Self { address, token: None, sender: None }
    }

    /// Shows a token with every request.
    pub(super) fn showing(self, token: Option<String>) -> Self {
        Self { token, ..self }
    }

    /// `GET`, whatever the status.
    pub(super) async fn get(&mut self, target: &str) -> Result<Answer, CliError> {
        self.send(Method::GET, target, None, Bytes::new()).await
    }

    /// `POST`, whatever the status.
    pub(super) async fn post(
        &mut self,
        target: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Answer, CliError> {
        self.send(Method::POST, target, Some(content_type), body).await
    }

    async fn send(
        &mut self,
        method: Method,
        target: &str,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Answer, CliError> {
        let mut request = Request::builder().method(method).uri(target).header(HOST, self.address.host());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| CliError::Input(format!("cannot be sent as a request: {error}")))?;
        let sender = self.sender().await?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            Ok::<_, hyper::Error>(Answer { status, body: response.into_body().collect().await?.to_bytes() })
        };
        let reason = match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("nothing within {} s", ANSWER_TIMEOUT.as_secs()),
        };
        self.sender = None;
        Err(self.address.unreachable(reason))
    }

    /// The open connection, or a new one.
    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, CliError> {
        let open = match self.sender.take() {
            // A node may close a connection that was idle for long.
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let sender = match open {
            Some(sender) => sender,
            None => {
                let stream = self.address.connect().await?;
                let (sender, connection) =
                    handshake(TokioIo::new(stream)).await.map_err(|error| self.address.unreachable(error))?;
                // It ends with its sender; what goes wrong on it, the request is told.
                tokio::spawn(connection);
                sender
            }
        };
        Ok(self.sender.insert(sender))
    }
}

impl Answer {
    /// The body, if the status is a success.
    pub(super) fn success(self) -> Result<Bytes, CliError> {
        if self.status.is_success() {
            Ok(self.body)
        } else {
            Err(CliError::from_answer(self.status, &self.body))
        }
    }
}

/// A path with a query.
pub(super) fn target<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    #[test]
    fn queries_are_escaped() {
        assert_eq!(target("/v1/events", []), "/v1/events");
        assert_eq!(target("/e", [("channel", "a.>"), ("event", "ä b")]), "/e?channel=a.%3E&event=%C3%A4+b");
    }

    #[tokio::test]
    async fn a_connection_that_the_node_closed_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            for status in ["200 OK", "503 Service Unavailable"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                assert!(request.starts_with("GET /x HTTP/1.1\r\nhost: localhost\r\n"), "{request}");
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let mut client = HttpClient::new(NodeAddress::Unix(path));
        assert_eq!(client.get("/x").await.unwrap().success().unwrap(), "hi");
        let error = client.get("/x").await.unwrap().success().unwrap_err();
        assert_eq!(error.to_string(), "http_503: hi");
    }
}
