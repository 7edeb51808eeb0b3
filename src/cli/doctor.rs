//! `sidewire doctor`: what is wrong with a node and around it.

mod bus;
mod encryption;
mod host;
mod ports;
mod round_trip;
mod secrets;

use super::address::{Listener, NodeAddress};
use super::credential::CredentialArgs;
use super::error::CliError;
use super::http::HttpClient;
use super::output;
use super::scrape::Scrape;
use super::tls::TrustArgs;
use crate::config::{Config, Sources};
use clap::Args;
use std::fmt;
use std::path::PathBuf;

/// Options of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Only publish an event and receive it: nothing of this host is looked at
    #[arg(long)]
    round_trip: bool,
    /// The app listener: host:port, https://host:port or unix:/path [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    app: Option<NodeAddress>,
    /// The client listener [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    client: Option<NodeAddress>,
    /// The admin listener [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<NodeAddress>,
    /// The client listener as clients reach it, through a proxy: https://host or host:port
    #[arg(long, value_name = "ADDRESS")]
    proxy: Option<NodeAddress>,
    /// A token for the client listener, which may read sidewire.doctor.>
    #[arg(long, value_name = "TOKEN", env = "SIDEWIRE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    config: Option<PathBuf>,
}

/// What was looked at, and what was found.
struct Finding {
    what: &'static str,
    verdict: Verdict,
}

/// What was found.
enum Verdict {
    /// As it should be.
    Good(String),
    /// It works, and yet deserves a second thought.
    Doubtful(String),
    /// Wrong; the words say what to do.
    Bad(String),
}

impl Finding {
    fn new(what: &'static str, result: Result<String, String>) -> Self {
        Self { what, verdict: result.map_or_else(Verdict::Bad, Verdict::Good) }
    }

    fn doubtful(what: &'static str, words: String) -> Self {
        Self { what, verdict: Verdict::Doubtful(words) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, words) = match &self.verdict {
            Verdict::Good(words) => ("ok  ", words),
            Verdict::Doubtful(words) => ("warn", words),
            Verdict::Bad(words) => ("FAIL", words),
        };
        write!(f, "{mark} {}: {words}", self.what)
    }
}

/// Prints a line for each thing it has looked at; fails if one of them is bad.
pub(super) async fn run(args: DoctorArgs) -> Result<(), CliError> {
    let config = Config::load(Sources::of_process(args.config.clone()))?;
    let resolve = |typed: Option<NodeAddress>, listener| {
        NodeAddress::resolve(typed, &args.trust, args.config.clone(), listener)
    };
    let (app_is_typed, admin_is_typed) = (args.app.is_some(), args.admin.is_some());
    let app = resolve(args.app, Listener::App)?;
    let client = resolve(args.client, Listener::Client)?;
    let mut bad = 0;
    let mut tell = |findings: Vec<Finding>| {
        bad += findings.iter().filter(|finding| matches!(finding.verdict, Verdict::Bad(_))).count();
        output::lines(findings.iter().map(ToString::to_string))
    };
    if !args.round_trip {
        tell(host::look(&config))?;
        tell(secrets::look(&config, args.config.as_deref()))?;
        tell(encryption::look(&config))?;
        tell(ports::look(&config))?;
        tell(bus::look(&config).await)?;
    }
    // What is configured is for the node of this configuration only.
    let shared = |typed: bool, file: fn(&Config) -> &std::path::Path| {
        CredentialArgs::default().token(&args.config, typed, file)
    };
    if !args.round_trip {
        let admin_token = shared(admin_is_typed, |config| &config.admin.token_file)?;
        tell(look_at_node(resolve(args.admin, Listener::Admin)?, admin_token).await)?;
    }
    let app_token = shared(app_is_typed, |config| &config.app.token_file)?;
    let (token, app_token) = (args.token.as_deref(), app_token.as_deref());
    let there_and_back = round_trip::publish_and_receive(&app, app_token, &client, token).await;
    tell(vec![Finding::new("round trip", there_and_back)])?;
    if let Some(proxy) = args.proxy {
        let proxy = proxy.trusting(args.trust.of_typed());
        tell(vec![Finding::new("proxy", round_trip::through_a_proxy(&app, app_token, &proxy, token).await)])?;
    }
    match bad {
        0 => Ok(()),
        1 => Err(CliError::NotReady("1 thing is wrong".into())),
        many => Err(CliError::NotReady(format!("{many} things are wrong"))),
    }
}

/// What the node says of itself.
async fn look_at_node(admin: NodeAddress, token: Option<String>) -> Vec<Finding> {
    let look = match Scrape::take(&mut HttpClient::new(admin).showing(token)).await {
        Ok(look) => look,
        Err(error) => return vec![Finding::new("node", Err(error.to_string()))],
    };
    let version = look.health["version"].as_str().unwrap_or("?").to_owned();
    let mut findings = vec![if version == env!("CARGO_PKG_VERSION") {
        Finding::new("node", Ok(format!("version {version} runs")))
    } else {
        let ours = env!("CARGO_PKG_VERSION");
        Finding::doubtful(
            "node",
            format!("version {version} runs, and this is {ours}: restart it after an upgrade"),
        )
    }];
    for (name, what) in [("bus", "bus"), ("outbox", "outbox"), ("log", "log"), ("drain", "drain")] {
        let state = look.readiness["checks"][name].as_str().unwrap_or("not told");
        let result = if state == "ok" { Ok("ready".to_owned()) } else { Err(state.to_owned()) };
        findings.push(Finding::new(what, result));
    }
    if look.get("sidewire_bus_breaker_open").is_some_and(|open| open > 0.0) {
        let words = "the link does not work and is tried again with pauses: see the log lines for the reason";
        findings.push(Finding::new("bus link", Err(words.into())));
    }
    if let Some(damaged) = look.get("sidewire_log_damaged").filter(|damaged| *damaged > 0.0) {
        let words =
            format!("{damaged} parts of the log are damaged: the log lines name them; check the disk");
        findings.push(Finding::new("log files", Err(words)));
    }
    if let (Some(used), Some(most)) =
        (look.get("sidewire_log_disk_bytes"), look.get("sidewire_log_max_bytes"))
        && used > most * 0.9
    {
        let words = "uses more than 90 % of log.max_bytes: the oldest events go before their time".into();
        findings.push(Finding::doubtful("log size", words));
    }
    findings
}
