//! `sidewire trace`: what became of one event.

use super::address::{Listener, NodeAddress};
use super::credential::CredentialArgs;
use super::error::CliError;
use super::http::HttpClient;
use super::output;
use super::tls::TrustArgs;
use super::wire::from_json;
use crate::publish::time_text;
use clap::Args;
use hyper::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Options of `trace`.
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// The event's id
    id: String,
    /// Print one JSON object for each node
    #[arg(long)]
    json: bool,
    /// The admin listener of a node: host:port, https://host:port or unix:/path; may be repeated [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    admin: Vec<NodeAddress>,
    #[command(flatten)]
    credential: CredentialArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    config: Option<PathBuf>,
}

/// Asks each node, and prints a block for each; fails if none knows the event.
pub(super) async fn run(args: TraceArgs) -> Result<(), CliError> {
    let typed = !args.admin.is_empty();
    let token = args.credential.token(&args.config, typed, |config| &config.admin.token_file)?;
    let mut nodes: Vec<_> =
        args.admin.into_iter().map(|address| address.trusting(args.trust.of_typed())).collect();
    if nodes.is_empty() {
        nodes.push(NodeAddress::resolve(None, &args.trust, args.config, Listener::Admin)?);
    }
    let path = format!("/v1/trace/{}", utf8_percent_encode(&args.id, NON_ALPHANUMERIC));
    let mut known = false;
    let mut refusal = None;
    for (at, address) in nodes.iter().enumerate() {
        let answer = match HttpClient::new(address.clone()).showing(token.clone()).get(&path).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                known = true;
                from_json(&String::from_utf8_lossy(&answer.body))
            }
            Ok(answer) => Err(CliError::from_answer(answer.status, &answer.body)),
            Err(error) => Err(error),
        };
        if args.json {
            let object = match &answer {
                Ok(trace) => json!({"admin": address.to_string(), "trace": trace}),
                Err(error) => json!({"admin": address.to_string(), "error": error.to_string()}),
            };
            output::line(&object.to_string())?;
        } else {
            let blank = (at > 0).then(String::new);
            let lines = match &answer {
                Ok(trace) => block(address, trace),
                Err(error) => vec![format!("{address}: {error}")],
            };
            output::lines(blank.into_iter().chain(lines))?;
        }
        refusal = refusal.or(answer.err());
    }
    match refusal {
        Some(error) if !known => Err(if nodes.len() == 1 { error } else { unknown() }),
        _ => Ok(()),
    }
}

fn unknown() -> CliError {
    CliError::Input("no node that was asked knows the event".into())
}

/// What one node tells, for people.
fn block(address: &NodeAddress, trace: &Value) -> Vec<String> {
    let mut lines = vec![format!("{address}: node {}", text(&trace["node"]))];
    for copy in trace["copies"].as_array().into_iter().flatten() {
        lines.push(match copy["channel"].as_str() {
            Some(channel) => format!("{channel}  {}  {}", text(&copy["event"]), text(&copy["state"])),
            None => format!("{}: no longer kept, or never meant to be", text(&copy["state"])),
        });
        lines.extend(accepted(&copy["accepted"]).map(|words| format!("  accepted  {words}")));
        lines.push(format!("  bus       {}", bus(&copy["bus"])));
        lines.extend(logged(&copy["log"]).map(|words| format!("  log       {words}")));
        lines.push(format!("  shown     {}", shown(copy)));
    }
    lines
}

fn accepted(accepted: &Value) -> Option<String> {
    let time = time_text(accepted["time"].as_u64()?);
    let by = &accepted["by"];
    Some(match by["listener"].as_str() {
        Some("client") => {
            let user = by["user"].as_str().map(|user| format!(", user {user:?}")).unwrap_or_default();
            format!("{time} from a client: connection {}{user}", text(&by["connection"]))
        }
        Some(_) => format!("{time} from the app"),
        None => time,
    })
}

fn bus(bus: &Value) -> String {
    match bus["state"].as_str() {
        Some("waiting") => {
            let waited = Duration::from_millis(bus["waited_ms"].as_u64().unwrap_or(0));
            let waited = humantime::format_duration(waited);
            format!("waits in the outbox for {waited}, with {} events before it", bus["before"])
        }
        Some("refused") => format!("refused it: {:?}", bus["why"].as_str().unwrap_or_default()),
        _ => "confirmed".into(),
    }
}

fn logged(log: &Value) -> Option<String> {
    let mut words = format!("position {}, cursor {}", log["position"].as_str()?, text(&log["cursor"]));
    if let Some(bytes) = log["bytes"].as_u64() {
        words.push_str(&format!(", {bytes} bytes"));
    }
    if let Some(end) = log["expires"].as_u64() {
        words.push_str(&format!(", kept until {}", time_text(end)));
    }
    Some(words)
}

fn shown(copy: &Value) -> String {
    let shown = &copy["shown"];
    let Some(subscriptions) = shown["subscriptions"].as_u64() else {
        return "not counted any more".into();
    };
    let early = if shown["early"] == true { " before the bus has it" } else { "" };
    match (subscriptions, shown["behind"].as_u64().unwrap_or(0)) {
        (0, _) => format!("to nobody here{early}"),
        (all, 0) => format!("to {all} here{early}"),
        (all, behind) => format!("to {all} here{early}, of which {behind} were behind"),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_in_a_few_lines() {
        let trace = json!({"id": "i", "node": "n", "copies": [
            {"state": "logged", "channel": "a", "event": "paid", "accepted": {"time": 0, "by": {"listener": "app"}},
             "bus": {"state": "confirmed"}, "shown": {"subscriptions": 3, "behind": 1},
             "log": {"position": "7", "cursor": "c", "expires": 1000, "bytes": 5}},
            {"state": "queued", "channel": "b", "event": "paid",
             "accepted": {"time": 0, "by": {"listener": "client", "connection": "n-1", "user": "ann"}},
             "bus": {"state": "waiting", "waited_ms": 61000, "before": 2},
             "shown": {"subscriptions": 2, "behind": 0, "early": true}},
            {"state": "refused", "channel": "c", "event": "paid", "bus": {"state": "refused", "why": "too\nlarge"},
             "shown": null},
            {"state": "gone", "bus": {"state": "confirmed"}, "log": {"position": "9", "cursor": "d"}, "shown": null},
        ]});
        let address = "127.0.0.1:7090".parse().unwrap();
        let lines = block(&address, &trace);
        let wanted = [
            "127.0.0.1:7090: node n",
            "a  paid  logged",
            "  accepted  1970-01-01T00:00:00.000Z from the app",
            "  bus       confirmed",
            "  log       position 7, cursor c, 5 bytes, kept until 1970-01-01T00:00:01.000Z",
            "  shown     to 3 here, of which 1 were behind",
            "b  paid  queued",
            "  accepted  1970-01-01T00:00:00.000Z from a client: connection n-1, user \"ann\"",
            "  bus       waits in the outbox for 1m 1s, with 2 events before it",
            "  shown     to 2 here before the bus has it",
            "c  paid  refused",
            "  bus       refused it: \"too\\nlarge\"",
            "  shown     not counted any more",
            "gone: no longer kept, or never meant to be",
            "  bus       confirmed",
            "  log       position 9, cursor d",
            "  shown     not counted any more",
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn nothing_that_a_node_says_is_a_panic() {
        for trace in [json!(null), json!({"copies": [null, {}, {"bus": 1, "shown": {"subscriptions": -1}}]})]
        {
            block(&"a:1".parse().unwrap(), &trace);
        }
    }
}
