//! A server that the node calls: an issuer of tokens, or the app.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Answers every request alike, and keeps what it was asked, until it is dropped.
pub(crate) struct Callee {
    pub(crate) url: String,
    answer: Arc<Mutex<String>>,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Callee {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/asked", listener.local_addr().expect("bound"));
        let (answer, requests) = (Arc::<Mutex<String>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (shared, seen) = (answer.clone(), requests.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let request = read_request(&mut socket).await;
                seen.lock().expect("no panic inside").push(request);
                let answer = shared.lock().expect("no panic inside").clone();
                // Who called may have gone.
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, answer, requests, task }
    }

    /// From now on the answer is this.
    pub(crate) fn answers(&self, status: u16, body: &str) {
        self.answers_raw(&format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    }

    /// The same, byte for byte.
    pub(crate) fn answers_raw(&self, answer: &str) {
        *self.answer.lock().expect("no panic inside") = answer.to_owned();
    }

    /// What it was asked so far, heads and bodies.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic inside").clone()
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.requests.lock().expect("no panic inside").len()
    }
}

async fn read_request(socket: &mut TcpStream) -> String {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => all.push(byte),
            Err(_) => break,
        }
    }
    let head = String::from_utf8_lossy(&all).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if socket.read_exact(&mut body).await.is_ok() {
        all.extend(body);
    }
    String::from_utf8_lossy(&all).into_owned()
}

impl Drop for Callee {
    fn drop(&mut self) {
        self.task.abort();
    }
}
