//! A real browser, which a test steers over its debugging protocol.

use super::address::Address;
use super::http::HttpClient;
use super::wait::{eventually, within};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// A browser with one page and a profile of its own.
pub(crate) struct Browser {
    // Before the profile that they write to.
    _processes: Processes,
    _profile: TempDir,
    page: WebSocketStream<MaybeTlsStream<TcpStream>>,
    calls: u64,
}

impl Browser {
    /// Starts it on an empty page.
    pub(crate) async fn start() -> Self {
        let profile = TempDir::with_prefix("sidewire-test-browser-").expect("a temporary directory");
        let child = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
            .args(["--disable-sync", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromium is installed (tests/setup.sh installs it)");
        let processes = Processes(child);
        let target = eventually("the browser's page", async || {
            let told = std::fs::read_to_string(profile.path().join("DevToolsActivePort")).ok()?;
            let port: u16 = told.lines().next()?.parse().ok()?;
            let mut client = HttpClient::new(Address::Tcp(([127, 0, 0, 1], port).into()));
            let pages = client.try_request("GET", "/json/list", &[], b"").await.ok()?.json();
            let page = pages.as_array()?.iter().find(|page| page["type"] == "page")?.clone();
            page["webSocketDebuggerUrl"].as_str().map(str::to_owned)
        })
        .await;
        let (page, _) =
            within("the browser listens", connect_async(target)).await.expect("it speaks WebSocket");
        Self { _processes: processes, _profile: profile, page, calls: 0 }
    }

    /// The same, with its page on a URL.
    pub(crate) async fn open(url: &str) -> Self {
        let mut browser = Self::start().await;
        browser.go_to(url).await;
        browser
    }

    pub(crate) async fn go_to(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({"url": url})).await;
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
    }

    /// Runs a script in every page before the page's own.
    pub(crate) async fn before_every_page(&mut self, script: &str) {
        self.call("Page.enable", json!({})).await;
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script})).await;
    }

    /// What an expression gives in the page; null if it cannot be told, as while another page is loaded.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let told =
            self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true})).await;
        told["result"]["value"].clone()
    }

    /// Waits until an expression gives that text in the page.
    pub(crate) async fn shows(&mut self, expression: &str, text: &str) {
        let what = format!("{expression} gives {text:?}");
        eventually(&what, async || (self.evaluate(expression).await == text).then_some(())).await;
    }

    /// The cookies of a site, as a `Cookie` header has them.
    pub(crate) async fn cookies(&mut self, url: &str) -> String {
        let told = self.call("Network.getCookies", json!({"urls": [url]})).await;
        let cookies = told["cookies"].as_array().expect("a list of cookies");
        let pairs = cookies.iter().map(|one| {
            let text = |key: &str| one[key].as_str().expect("a cookie has text");
            format!("{}={}", text("name"), text("value"))
        });
        pairs.collect::<Vec<_>>().join("; ")
    }

    /// Calls a method of the protocol; null if it fails.
    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let message = json!({"id": self.calls, "method": method, "params": parameters});
        self.page.send(Message::text(message.to_string())).await.expect("the browser runs");
        loop {
            let message =
                within(method, self.page.next()).await.expect("the browser runs").expect("a message");
            let Ok(text) = message.into_text() else { continue };
            let answer: Value = serde_json::from_str(&text).expect("the browser speaks JSON");
            // Events come in between.
            if answer["id"] == self.calls {
                return answer["result"].clone();
            }
        }
    }
}

/// The browser's processes, which end with it.
struct Processes(Child);

impl Drop for Processes {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}
