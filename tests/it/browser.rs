//! A real browser: `EventSource`, `WebSocket` and `fetch` from a page of another origin, across a restart.

use crate::support::{Browser, Setup, eventually, free_fixed_port};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const PAGE: &str = include_str!("browser/page.html");

/// What the page has seen, as it last said.
type Report = Arc<Mutex<Value>>;

/// Serves the page, and takes its reports.
async fn serve(listener: TcpListener, report: Report) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, Arc::clone(&report)));
    }
}

async fn answer(stream: TcpStream, report: Report) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    let mut request = String::new();
    stream.read_line(&mut request).await?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" || line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    if request.starts_with("POST /report ") {
        let told: Value = serde_json::from_slice(&body).expect("the page tells JSON");
        let mut report = report.lock().expect("no panic inside");
        // Reports may overtake each other: only one that knows more counts.
        if known(&told) >= known(&report) {
            *report = told;
        }
    }
    let page = if request.starts_with("GET /page") { PAGE } else { "" };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        page.len()
    );
    stream.write_all(format!("{head}{page}").as_bytes()).await
}

fn known(report: &Value) -> usize {
    ["eventSource", "webSocket"].iter().filter_map(|by| report[by].as_array()).map(Vec::len).sum()
}

/// Says what the page has seen, when the test fails.
struct LastWords(Report);

impl Drop for LastWords {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the page has seen {:?}", self.0.lock());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_sees_each_event_once_and_in_order_across_a_restart_of_the_node() {
    // The browser comes back to the same port: it must be the node's again after the restart.
    let client = format!("127.0.0.1:{}", free_fixed_port());
    let mut sidecar =
        Setup::new().listen("client", &client).config("[client]\ndrain = \"200ms\"\n").start().await;
    let cursor = sidecar.cursor_now().await;

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let report = Report::default();
    tokio::spawn(serve(listener, Arc::clone(&report)));
    let _last_words = LastWords(Arc::clone(&report));
    let url = format!("http://localhost:{port}/page?node={client}&cursor={cursor}");
    let browser = Browser::open(&url).await;
    let said = || report.lock().expect("no panic inside").clone();

    sidecar.publish_numbers("browser.a", 0..20).await;
    eventually("the page has seen the first half", async || (known(&said()) >= 40).then_some(())).await;
    eventually("the page has fetched", async || said()["plainFetch"].is_string().then_some(())).await;
    assert_eq!(said()["plainFetch"], "string", "a fetch with a preflight is answered");

    sidecar.kill_and_start_again().await;
    sidecar.publish_numbers("browser.b", 20..30).await;
    eventually("the page has come back", async || (known(&said()) >= 60).then_some(())).await;
    assert!(sidecar.terminate().await.success());
    sidecar.start_again().await;
    sidecar.publish_numbers("browser.a", 30..40).await;
    eventually("the page has come back again", async || (known(&said()) >= 80).then_some(())).await;

    let expected: Vec<u64> = (0..40).collect();
    let last = said();
    assert_eq!(last["eventSource"], serde_json::json!(expected), "{last}");
    assert_eq!(last["webSocket"], serde_json::json!(expected), "{last}");
    let resumes = last["resumes"].as_array().expect("a list");
    assert!(resumes.iter().all(|word| word == "ok"), "{last}");
    drop(browser);
}
