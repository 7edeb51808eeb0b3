//! A small HTTP/1.1 client, so that a test can also send what no HTTP library would.

use super::address::{Address, Duplex};
use super::wait::within;
use serde_json::Value;
use std::io;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

/// Longest line of a response head that a test puts up with.
const LONGEST_LINE: u64 = 64 * 1024;

/// The head of a response.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header, by its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    fn framing(&self) -> Framing {
        if self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Framing::Chunked;
        }
        match self.header("content-length") {
            Some(length) => Framing::Length(length.parse().expect("Content-Length is a number")),
            None if self.status < 200 || self.status == 204 || self.status == 304 => Framing::Length(0),
            None => Framing::UntilClosed,
        }
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy)]
enum Framing {
    /// So many bytes are still to come.
    Length(usize),
    Chunked,
    UntilClosed,
}

/// A whole response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} body is not JSON ({error}): {}", self.status(), self.text()))
    }

    /// The JSON body of a response that must be a success.
    pub(crate) fn success(&self) -> Value {
        assert!((200..300).contains(&self.status()), "{}: {}", self.status(), self.text());
        self.json()
    }

    /// Checks that this is a refusal in the form that the contract gives every refusal, and gives its code.
    pub(crate) fn refusal(&self, status: u16) -> String {
        assert_eq!(self.status(), status, "{}", self.text());
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/json"), "a refusal is JSON, not {kind:?}: {}", self.text());
        let body = self.json();
        let message = body["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "a refusal says what to do: {body}");
        body["code"].as_str().unwrap_or_else(|| panic!("a refusal has a code: {body}")).to_owned()
    }
}

/// One connection, on which requests go out as bytes and responses come back parsed.
pub(crate) struct Connection {
    stream: BufReader<Box<dyn Duplex>>,
    framing: Framing,
}

impl Connection {
    pub(crate) async fn open(address: &Address) -> io::Result<Self> {
        Ok(Self::over(address.connect().await?))
    }

    /// The same over a stream that is there.
    pub(crate) fn over(stream: Box<dyn Duplex>) -> Self {
        Self { stream: BufReader::new(stream), framing: Framing::Length(0) }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes).await?;
        self.stream.get_mut().flush().await
    }

    /// Reads the head of a response; what follows is read by [`Connection::chunk`].
    pub(crate) async fn read_head(&mut self) -> io::Result<Head> {
        let status_line = self.line().await?;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| io::Error::other(format!("not a status line: {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| io::Error::other(format!("not a header: {line:?}")))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let head = Head { status, headers };
        self.framing = head.framing();
        Ok(head)
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.framing {
            Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                let piece = self.some_bytes(left).await?;
                if piece.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.framing = Framing::Length(left - piece.len());
                Ok(Some(piece))
            }
            Framing::Chunked => {
                let size = self.line().await?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
                    .map_err(|_| io::Error::other(format!("not a chunk size: {size:?}")))?;
                let mut piece = vec![0; size];
                self.stream.read_exact(&mut piece).await?;
                let end = self.line().await?;
                if !end.is_empty() {
                    return Err(io::Error::other(format!("a chunk ends with an empty line, not {end:?}")));
                }
                if size == 0 {
                    self.framing = Framing::Length(0);
                    return Ok(None);
                }
                Ok(Some(piece))
            }
            Framing::UntilClosed => {
                let piece = self.some_bytes(usize::MAX).await?;
                Ok(if piece.is_empty() { None } else { Some(piece) })
            }
        }
    }

    /// Reads a whole response.
    pub(crate) async fn read_response(&mut self) -> io::Result<Response> {
        let head = self.read_head().await?;
        let mut body = Vec::new();
        while let Some(piece) = self.chunk().await? {
            body.extend_from_slice(&piece);
        }
        Ok(Response { head, body })
    }

    /// Reads and throws away until the node closes the connection.
    pub(crate) async fn read_until_closed(&mut self) {
        let mut scratch = [0; 4096];
        // A reset is as good an end as a clean one.
        while self.stream.read(&mut scratch).await.is_ok_and(|count| count > 0) {}
    }

    /// The socket itself, with nothing that was already read: for after an upgrade.
    pub(crate) fn into_stream(self) -> BufReader<Box<dyn Duplex>> {
        self.stream
    }

    async fn some_bytes(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let ready = self.stream.fill_buf().await?;
        let piece = ready[..ready.len().min(most)].to_vec();
        self.stream.consume(piece.len());
        Ok(piece)
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.stream).take(LONGEST_LINE).read_line(&mut line).await?;
        match line.strip_suffix("\r\n") {
            Some(text) => Ok(text.to_owned()),
            None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            None => Err(io::Error::other(format!("a line must end with CR LF: {line:?}"))),
        }
    }
}

/// A client with one keep-alive connection, opened at the first request and again when it was lost.
pub(crate) struct HttpClient {
    address: Address,
    connection: Option<Connection>,
}

impl HttpClient {
    pub(crate) fn new(address: Address) -> Self {
        Self { address, connection: None }
    }

    pub(crate) async fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, &[], b"").await
    }

    pub(crate) async fn delete(&mut self, target: &str) -> Response {
        self.request("DELETE", target, &[], b"").await
    }

    pub(crate) async fn post(&mut self, target: &str, content_type: &str, body: &[u8]) -> Response {
        self.request("POST", target, &[("Content-Type", content_type)], body).await
    }

    pub(crate) async fn post_json(&mut self, target: &str, body: &Value) -> Response {
        self.post(target, "application/json", body.to_string().as_bytes()).await
    }

    /// Sends a request and gives its response, which must come.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let what = format!("{method} {target}");
        within(&what, self.try_request(method, target, headers, body))
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Sends a request; an error says that the connection was lost, so that nobody knows what became of it.
    pub(crate) async fn try_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.address).await?,
        };
        connection.write(&request_bytes(method, target, &self.address.host(), headers, body)).await?;
        let response = connection.read_response().await?;
        let closes = response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !closes {
            self.connection = Some(connection);
        }
        Ok(response)
    }
}

/// A request as bytes. `Host` is the given one unless `headers` has its own.
pub(crate) fn request_bytes(
    method: &str,
    target: &str,
    host: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("Host: {host}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
