//! `sidewire health`

use super::address::{Listener, NodeAddress};
use super::error::CliError;
use super::http::HttpClient;
use super::output;
use super::tls::TrustArgs;
use clap::Args;
use hyper::StatusCode;
use serde_json::Value;
use std::path::PathBuf;

/// Options of `health`.
#[derive(Args, Debug)]
pub struct HealthArgs {
    /// The admin listener: host:port, https://host:port or unix:/path [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<NodeAddress>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    config: Option<PathBuf>,
}

/// Prints `ready`, or fails with the checks that failed.
pub(super) async fn run(args: HealthArgs) -> Result<(), CliError> {
    let address = NodeAddress::resolve(args.admin, &args.trust, args.config, Listener::Admin)?;
    let answer = HttpClient::new(address).get("/readyz").await?;
    match answer.status {
        StatusCode::OK => output::line("ready"),
        StatusCode::SERVICE_UNAVAILABLE => Err(CliError::NotReady(failed_checks(&answer.body))),
        status => Err(CliError::from_answer(status, &answer.body)),
    }
}

/// `not ready: bus: no probe came back`, from `{"checks":{..}}`.
fn failed_checks(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let failed: Vec<String> = answer["checks"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, state)| !is_good(state))
        .map(|(name, state)| match state.as_str().or(state["message"].as_str()) {
            Some(words) => format!("{name}: {words}"),
            None => format!("{name}: {state}"),
        })
        .collect();
    if failed.is_empty() { "not ready".into() } else { format!("not ready: {}", failed.join("; ")) }
}

fn is_good(state: &Value) -> bool {
    match state {
        Value::Bool(good) => *good,
        Value::String(words) => words == "ok",
        Value::Object(fields) => ["ok", "status"].iter().any(|key| fields.get(*key).is_some_and(is_good)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_failed_is_told() {
        let told = |text: &str| failed_checks(text.as_bytes());
        assert_eq!(
            told(r#"{"checks":{"bus":"no probe came back","log":"ok"}}"#),
            "not ready: bus: no probe came back"
        );
        assert_eq!(
            told(
                r#"{"checks":{"a":{"ok":false,"message":"m"},"b":{"ok":true},"c":false,"d":{"status":"ok"}}}"#
            ),
            "not ready: a: m; c: false"
        );
        assert_eq!(told("<html>"), "not ready");
    }
}
