//! An example app that runs, and somebody who visits it without a browser.

use crate::servers::{ServerProcess, free_port};
use crate::support::{Address, HttpClient, Response, Setup, TestSidecar};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framework {
    Php,
    FastApi,
}

impl Framework {
    pub(super) const ALL: [Framework; 2] = [Framework::Php, Framework::FastApi];

    fn directory(self) -> PathBuf {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        examples.join(match self {
            Framework::Php => "php",
            Framework::FastApi => "fastapi",
        })
    }

    /// Where a form is sent.
    fn action(self, form: &str) -> String {
        match self {
            Framework::Php => format!("/{form}.php"),
            Framework::FastApi => format!("/{form}"),
        }
    }

    /// The command that its README tells, on another port.
    fn command(self, port: u16, own: &Path) -> Vec<String> {
        let (directory, own) = (self.directory(), own.display());
        let words = match self {
            Framework::Php => format!(
                "php -d session.save_path={own} -S 127.0.0.1:{port} -t {}",
                directory.join("public").display()
            ),
            Framework::FastApi => format!(
                "{}/.cache/python/bin/python -m uvicorn --app-dir {} --port {port} app:app",
                env!("CARGO_MANIFEST_DIR"),
                directory.display()
            ),
        };
        words.split(' ').map(str::to_owned).collect()
    }
}

/// The password of a user of the examples, as their READMEs have it.
pub(super) fn password(user: &str) -> &'static str {
    match user {
        "ann" => "ann likes tea",
        _ => "bob likes coffee",
    }
}

/// An app on its own server, with Sidewire beside it.
pub(super) struct ExampleApp {
    framework: Framework,
    pub(super) process: ServerProcess,
    pub(super) sidecar: TestSidecar,
    _directory: TempDir,
}

impl ExampleApp {
    pub(super) async fn start(framework: Framework) -> Self {
        Self::with(framework, &[], "").await
    }

    /// The same with more in the app's environment, and more lines of `[auth.webhook]`.
    pub(super) async fn with(framework: Framework, environment: &[(&str, &str)], webhook: &str) -> Self {
        let directory = TempDir::with_prefix("sidewire-test-example-").expect("a temporary directory");
        let port = free_port();
        let config = std::fs::read_to_string(framework.directory().join("sidewire.toml"));
        let mut config = config.expect("the example has a configuration").replace("8000", &port.to_string());
        if webhook.contains("on_error") {
            config = config.replace("on_error = \"refuse\"\n", "");
        }
        let sidecar = Setup::new().config(&(config + webhook)).start().await;
        let whereabouts = sidecar.whereabouts();
        let mut words = vec![
            "PYTHONDONTWRITEBYTECODE=1".to_owned(),
            "SESSION_SECRET=only for this test".to_owned(),
            "APP_ENV=development".to_owned(),
            format!("SIDEWIRE_APP_URL=http://{}", whereabouts.app()),
            format!("SIDEWIRE_CLIENT_URL=http://localhost:{}", whereabouts.client().tcp().port()),
        ];
        // Of a name that is there twice the last one counts.
        words.extend(environment.iter().map(|(name, value)| format!("{name}={value}")));
        words.extend(framework.command(port, directory.path()));
        let mut process = ServerProcess::new("env".into(), words, directory.path(), port);
        process.start().await;
        Self { framework, process, sidecar, _directory: directory }
    }

    /// Where a browser finds it.
    pub(super) fn page(&self) -> String {
        format!("http://localhost:{}/", self.process.address().port())
    }

    pub(super) fn address(&self) -> Address {
        Address::Tcp(self.process.address())
    }

    /// What Sidewire answers who asks for a channel with a cookie.
    pub(super) async fn poll(&self, channel: &str, cookie: &str) -> u16 {
        let target = format!("/v1/poll?channel={channel}&timeout=0");
        self.sidecar.client().request("GET", &target, &[("Cookie", cookie)], b"").await.status()
    }
}

/// Somebody with a cookie and no browser.
pub(super) struct Visitor {
    framework: Framework,
    client: HttpClient,
    pub(super) cookie: String,
}

impl Visitor {
    pub(super) fn new(app: &ExampleApp) -> Self {
        Self::with_cookie(app, "")
    }

    pub(super) fn with_cookie(app: &ExampleApp, cookie: &str) -> Self {
        Self { framework: app.framework, client: HttpClient::new(app.address()), cookie: cookie.to_owned() }
    }

    pub(super) async fn signed_in(app: &ExampleApp, user: &str) -> Self {
        let mut visitor = Self::new(app);
        let answer = visitor.sign_in_with(user, password(user)).await;
        assert_eq!(answer.status(), 303, "{}", answer.text());
        visitor
    }

    pub(super) async fn sign_in_with(&mut self, user: &str, password: &str) -> Response {
        let token = self.form_token().await;
        self.post("sign-in", &[("form_token", &token), ("user", user), ("password", password)]).await
    }

    pub(super) async fn send_note(&mut self, to: &str, text: &str) -> Response {
        let token = self.form_token().await;
        self.post("note", &[("form_token", &token), ("to", to), ("text", text)]).await
    }

    pub(super) async fn sign_out(&mut self) -> Response {
        let token = self.form_token().await;
        self.post("sign-out", &[("form_token", &token)]).await
    }

    /// The token in the forms of the page.
    pub(super) async fn form_token(&mut self) -> String {
        let page = self.request("GET", "/", "", b"").await.text();
        let (_, rest) = page.split_once("name=\"form_token\" value=\"").expect("a form has a token");
        rest.split('"').next().expect("a split has a first part").to_owned()
    }

    /// Sends a form with these fields alone.
    pub(super) async fn post(&mut self, form: &str, fields: &[(&str, &str)]) -> Response {
        let pairs: Vec<String> =
            fields.iter().map(|(name, text)| format!("{name}={}", encoded(text))).collect();
        let action = self.framework.action(form);
        self.request("POST", &action, "application/x-www-form-urlencoded", pairs.join("&").as_bytes()).await
    }

    async fn request(&mut self, method: &str, target: &str, kind: &str, body: &[u8]) -> Response {
        let cookie = self.cookie.clone();
        let answer =
            self.client.request(method, target, &[("Cookie", &cookie), ("Content-Type", kind)], body).await;
        if let Some(set) = answer.header("set-cookie") {
            self.cookie = set.split(';').next().unwrap_or_default().to_owned();
        }
        answer
    }
}

/// Text as a form sends it.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
