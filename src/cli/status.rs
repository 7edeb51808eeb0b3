//! `sidewire status`: one screen.

use super::address::{Listener, NodeAddress};
use super::credential::CredentialArgs;
use super::error::CliError;
use super::http::HttpClient;
use super::output;
use super::scrape::Scrape;
use super::tls::TrustArgs;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Over how long rates are measured.
const INTERVAL: Duration = Duration::from_secs(1);

/// Clears the screen and goes to its first place (ECMA-48).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Options of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Again every second, until interrupted
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// The admin listener: host:port, https://host:port or unix:/path [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<NodeAddress>,
    #[command(flatten)]
    credential: CredentialArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    config: Option<PathBuf>,
}

/// Looks at the node twice, as rates need two looks, and prints what it has seen.
pub(super) async fn run(args: StatusArgs) -> Result<(), CliError> {
    let token =
        args.credential.token(&args.config, args.admin.is_some(), |config| &config.admin.token_file)?;
    let address = NodeAddress::resolve(args.admin, &args.trust, args.config, Listener::Admin)?;
    let mut admin = HttpClient::new(address).showing(token);
    let mut earlier = Scrape::take(&mut admin).await?;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = Scrape::take(&mut admin).await?;
        let status = status(&earlier, &now, unix_seconds());
        if args.json {
            return output::line(&status.to_string());
        }
        let mut lines = screen(&status);
        if !args.watch {
            return output::lines(lines);
        }
        lines[0].insert_str(0, CLEAR);
        output::lines(lines)?;
        earlier = now;
    }
}

/// All that is shown. What a node does not tell is left out.
fn status(earlier: &Scrape, now: &Scrape, time: f64) -> Value {
    let age =
        |name: &str| now.get(name).filter(|oldest| *oldest > 0.0).map(|oldest| (time - oldest).max(0.0));
    let clients = now.by("sidewire_connections", "transport");
    let whole = |name: &str| now.get(name).map(|value| value as u64);
    let mut status = json!({
        "ready": now.readiness["status"] == "ok",
        "checks": now.readiness["checks"],
        "version": now.health["version"],
        "uptime_s": now.health["uptime_s"],
        "memory_bytes": whole("sidewire_process_resident_memory_bytes"),
        "bus": {
            "url": now.config["bus"]["url"],
            "connected": now.get("sidewire_bus_connected").map(|value| value > 0.0),
            "breaker_open": now.get("sidewire_bus_breaker_open").map(|value| value > 0.0),
            "reconnects": whole("sidewire_bus_reconnects_total"),
            "lag_s": now.get("sidewire_bus_lag_seconds"),
            "probe_s": mean(now, "sidewire_bus_probe_duration_seconds"),
        },
        "outbox": {
            "events": whole("sidewire_outbox_events"),
            "bytes": whole("sidewire_outbox_bytes"),
            "oldest_s": now.get("sidewire_outbox_oldest_seconds"),
        },
        "queue": {
            "events": whole("sidewire_queue_events"),
            "bytes": whole("sidewire_queue_bytes"),
            "max_bytes": whole("sidewire_queue_max_bytes"),
        },
        "log": {
            "events": whole("sidewire_log_events"),
            "disk_bytes": whole("sidewire_log_disk_bytes"),
            "max_bytes": whole("sidewire_log_max_bytes"),
            "oldest_s": age("sidewire_log_oldest_event_timestamp_seconds"),
            "damaged": whole("sidewire_log_damaged"),
            "ttl": now.config["log"]["ttl"],
        },
        "clients": {
            "connected": clients.values().sum::<f64>() as u64,
            "by_transport": clients,
            "subscriptions": whole("sidewire_subscriptions"),
            "channels": whole("sidewire_channels"),
        },
        "per_second": {
            "published": now.rate(earlier, "sidewire_published_events_total"),
            "delivered": now.rate(earlier, "sidewire_delivered_events_total"),
            "replayed": now.rate(earlier, "sidewire_replayed_events_total"),
            "refused": now.rate(earlier, "sidewire_errors_total"),
        },
    });
    for (_, section) in status.as_object_mut().into_iter().flatten() {
        if let Some(section) = section.as_object_mut() {
            section.retain(|_, value| !value.is_null());
        }
    }
    status
}

/// The mean of a histogram since the start.
fn mean(now: &Scrape, name: &str) -> Option<f64> {
    let count = now.get(&format!("{name}_count")).filter(|count| *count > 0.0)?;
    Some(now.get(&format!("{name}_sum"))? / count)
}

fn screen(status: &Value) -> Vec<String> {
    let number = |section: &str, key: &str| status[section][key].as_f64();
    let count = |section: &str, key: &str| number(section, key).unwrap_or(0.0);
    let mut ready = if status["ready"] == true { "ready".to_owned() } else { "NOT READY".to_owned() };
    for (name, state) in
        status["checks"].as_object().into_iter().flatten().filter(|(_, state)| **state != "ok")
    {
        ready.push_str(&format!("; {name}: {}", state.as_str().unwrap_or("failed")));
    }
    let mut bus = status["bus"]["url"].as_str().unwrap_or("?").to_owned();
    for (key, good, bad) in
        [("connected", "connected", "NOT CONNECTED"), ("breaker_open", "", "BREAKER OPEN")]
    {
        if let Some(state) = status["bus"][key].as_bool() {
            let words = if state == (key == "connected") { good } else { bad };
            bus.push_str(if words.is_empty() { "" } else { "; " });
            bus.push_str(words);
        }
    }
    for (key, name) in [("probe_s", "probe"), ("lag_s", "lag")] {
        if let Some(seconds) = number("bus", key) {
            bus.push_str(&format!("; {name} {:.1} ms", seconds * 1e3));
        }
    }
    let transports: Vec<String> = status["clients"]["by_transport"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, count)| format!("{name} {}", count.as_f64().unwrap_or(0.0)))
        .collect();
    let mut lines = vec![
        format!(
            "node     {ready}; version {}; up {}; memory {}",
            status["version"].as_str().unwrap_or("?"),
            span(status["uptime_s"].as_f64().unwrap_or(0.0)),
            bytes(status["memory_bytes"].as_f64().unwrap_or(0.0))
        ),
        format!("bus      {bus}"),
    ];
    if let Some(events) = number("outbox", "events") {
        lines.push(format!(
            "outbox   {events} events, {} of {}; oldest {}",
            bytes(count("outbox", "bytes")),
            bytes(count("queue", "max_bytes")),
            span(count("outbox", "oldest_s"))
        ));
    }
    lines.extend([
        format!(
            "queue    {} events, {} of {}",
            count("queue", "events"),
            bytes(count("queue", "bytes")),
            bytes(count("queue", "max_bytes"))
        ),
        format!(
            "log      {} events, {} of {}; oldest {}; ttl {}; damaged {}",
            count("log", "events"),
            bytes(count("log", "disk_bytes")),
            bytes(count("log", "max_bytes")),
            number("log", "oldest_s").map_or("none".into(), span),
            status["log"]["ttl"].as_str().unwrap_or("?"),
            count("log", "damaged")
        ),
        format!(
            "clients  {}: {}; {} subscriptions to {} channels",
            count("clients", "connected"),
            transports.join(", "),
            count("clients", "subscriptions"),
            count("clients", "channels")
        ),
        format!(
            "rates    published {:.0}/s, delivered {:.0}/s, replayed {:.0}/s, refused {:.0}/s",
            count("per_second", "published"),
            count("per_second", "delivered"),
            count("per_second", "replayed"),
            count("per_second", "refused")
        ),
    ]);
    lines
}

fn bytes(count: f64) -> String {
    let mut value = count;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return format!("{value:.0} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

fn span(seconds: f64) -> String {
    humantime::format_duration(Duration::from_secs(seconds.clamp(0.0, 1e10) as u64)).to_string()
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, readiness: Value) -> Vec<String> {
        let config = json!({"bus": {"url": "redis://host"}, "log": {"ttl": "24h"}});
        let look = || Scrape::of_text(text, readiness.clone(), config.clone());
        screen(&status(&look(), &look(), 1000.0))
    }

    #[test]
    fn a_node_with_a_bus_is_one_screen() {
        let text = "sidewire_bus_connected 0\nsidewire_bus_breaker_open 1\nsidewire_outbox_events 3\n\
            sidewire_outbox_bytes 2048\nsidewire_queue_max_bytes 1048576\nsidewire_outbox_oldest_seconds 65\n\
            sidewire_connections{transport=\"sse\"} 2\nsidewire_log_oldest_event_timestamp_seconds 900\n";
        let readiness = json!({"status": "unavailable", "checks": {"bus": "no probe", "log": "ok"}});
        let lines = lines(text, readiness);
        assert!(
            lines[0].starts_with("node     NOT READY; bus: no probe; version 0.0.0; up 1h 6m 40s"),
            "{}",
            lines[0]
        );
        assert_eq!(lines[1], "bus      redis://host; NOT CONNECTED; BREAKER OPEN");
        assert_eq!(lines[2], "outbox   3 events, 2 KiB of 1 MiB; oldest 1m 5s");
        assert!(lines[4].contains("oldest 1m 40s; ttl 24h"), "{}", lines[4]);
        assert!(lines[5].starts_with("clients  2: sse 2;"), "{}", lines[5]);
        assert!(lines.iter().all(|line| line.len() < 120), "{lines:?}");
    }

    #[test]
    fn what_a_node_does_not_have_is_not_shown() {
        let lines = lines("", json!({"status": "ok", "checks": {"bus": "ok"}}));
        assert!(lines[0].starts_with("node     ready; version"), "{}", lines[0]);
        assert_eq!(lines[1], "bus      redis://host");
        assert!(!lines.iter().any(|line| line.starts_with("outbox")), "{lines:?}");
    }
}
