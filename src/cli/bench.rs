//! `sidewire bench`: load against a running node, as apps and clients would put it.

mod histogram;
mod load;

use super::address::{Listener, NodeAddress};
use super::error::CliError;
use super::output;
use super::tls::TrustArgs;
use clap::Args;
use histogram::Histogram;
use load::{Publisher, Subscriber, Watch};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How many clients connect at the same time.
const CONNECTING: usize = 64;

/// How long deliveries may be outstanding without any progress before they count as lost.
const LINGER: Duration = Duration::from_secs(3);

/// Options of `bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// WebSocket clients, each of which gets every event
    #[arg(long, value_name = "N", default_value_t = 10)]
    clients: usize,
    /// Events published a second; 0 publishes the next as soon as one is answered
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate: u32,
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Bytes of padding in the data of an event
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    size: usize,
    /// Connections that publish
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    publishers: u32,
    /// When a publish is answered: log, bus or none
    #[arg(long, value_name = "WHEN", default_value = "log", value_parser = ["log", "bus", "none"])]
    ack: String,
    /// The app listener: host:port, https://host:port or unix:/path [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    app: Option<NodeAddress>,
    /// The client listener [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    client: Option<NodeAddress>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    config: Option<PathBuf>,
}

/// Puts on the load and prints what came of it.
pub(super) async fn run(args: BenchArgs) -> Result<(), CliError> {
    let report = measure(args).await?;
    output::lines(report.lines())?;
    match report.error {
        Some(error) if report.publish.total() == 0 => Err(error),
        _ => Ok(()),
    }
}

async fn measure(args: BenchArgs) -> Result<Report, CliError> {
    let app = NodeAddress::resolve(args.app.clone(), &args.trust, args.config.clone(), Listener::App)?;
    let client =
        NodeAddress::resolve(args.client.clone(), &args.trust, args.config.clone(), Listener::Client)?;
    // A channel of its own: events of another run, or of an app, would spoil the counts.
    let channel = format!("bench.{}", uuid::Uuid::now_v7().simple());
    let watch = Arc::new(Watch::new());
    let (stop, stopped) = watch::channel(false);

    let mut subscribers = JoinSet::new();
    for subscriber in connect(&client, &channel, args.clients).await? {
        subscribers.spawn(subscriber.run(watch.clone(), stopped.clone()));
    }

    let start = Instant::now();
    let end = start + Duration::from_secs(args.seconds.into());
    let mut publishers = JoinSet::new();
    for index in 0..args.publishers {
        let publisher = Publisher::new(app.clone(), &channel, &args.ack, args.size);
        let pace = load::Pace::new(start, args.rate, index, args.publishers);
        publishers.spawn(publisher.run(watch.clone(), pace, end));
    }
    let published = publishers.join_all().await;
    let publishing = start.elapsed();

    let mut report = Report { clients: args.clients as u64, publishing, ..Report::default() };
    for result in published {
        report.publish.merge(&result.latencies);
        report.refused += result.refused;
        report.error = report.error.or(result.error);
    }
    let expected = report.publish.total() * report.clients;
    wait_for_deliveries(&watch, expected).await;
    report.delivering = watch.last_delivery().saturating_sub(watch.since_origin(start));
    // Subscribers that ended by themselves do not listen any more.
    let _ = stop.send(true);
    for result in subscribers.join_all().await {
        report.delivery.merge(&result.latencies);
        report.cut_off += u64::from(result.cut_off);
    }
    Ok(report)
}

async fn connect(address: &NodeAddress, channel: &str, clients: usize) -> Result<Vec<Subscriber>, CliError> {
    let mut connected = Vec::with_capacity(clients);
    let mut connecting = JoinSet::new();
    for index in 0..clients {
        if index >= CONNECTING
            && let Some(subscriber) = connecting.join_next().await
        {
            connected.push(joined(subscriber)?);
        }
        connecting.spawn(Subscriber::connect(address.clone(), channel.to_owned()));
    }
    while let Some(subscriber) = connecting.join_next().await {
        connected.push(joined(subscriber)?);
    }
    Ok(connected)
}

fn joined<T>(result: Result<Result<T, CliError>, tokio::task::JoinError>) -> Result<T, CliError> {
    result.map_err(|error| CliError::Protocol(format!("a client of the bench failed: {error}")))?
}

async fn wait_for_deliveries(watch: &Watch, expected: u64) {
    let (mut seen, mut since) = (watch.delivered.load(Ordering::Relaxed), Instant::now());
    while seen < expected && since.elapsed() < LINGER {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = watch.delivered.load(Ordering::Relaxed);
        if now > seen {
            (seen, since) = (now, Instant::now());
        }
    }
}

/// What came of it.
#[derive(Default)]
struct Report {
    clients: u64,
    publishing: Duration,
    /// From the first publish to the last delivery.
    delivering: Duration,
    publish: Histogram,
    delivery: Histogram,
    refused: u64,
    cut_off: u64,
    error: Option<CliError>,
}

impl Report {
    fn lines(&self) -> Vec<String> {
        let (published, delivered) = (self.publish.total(), self.delivery.total());
        let expected = published * self.clients;
        let mut lines = vec![
            format!(
                "published  {published} events, {:.0}/s, {} refused",
                rate(published, self.publishing),
                self.refused
            ),
            format!(
                "delivered  {delivered} of {expected}, {:.0}/s to {} clients",
                rate(delivered, self.delivering),
                self.clients
            ),
            format!("publish    {}", latencies(&self.publish)),
            format!("delivery   {}", latencies(&self.delivery)),
            format!("lost       {}", expected.saturating_sub(delivered)),
        ];
        if delivered > expected {
            // A publish whose answer never came may have been delivered all the same.
            lines.push(format!("extra      {}", delivered - expected));
        }
        if self.cut_off > 0 {
            lines.push(format!("cut off    {} clients", self.cut_off));
        }
        if let Some(error) = &self.error {
            lines.push(format!("refusal    {error}"));
        }
        lines
    }
}

fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

fn latencies(histogram: &Histogram) -> String {
    let ms = |share| histogram.quantile(share).as_secs_f64() * 1000.0;
    format!("p50 {:.2} ms, p99 {:.2} ms", ms(0.5), ms(0.99))
}

#[cfg(test)]
mod tests;
