//! All Prometheus series, in one struct that is handed around. No global registry.
//!
//! Labels take values from closed sets only: nothing a caller sends becomes a label.

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// How a client is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// WebSocket.
    WebSocket,
    /// Server-sent events.
    Sse,
    /// Endless NDJSON.
    Stream,
    /// Long-poll.
    Poll,
}

impl Transport {
    const ALL: [Self; 4] = [Self::WebSocket, Self::Sse, Self::Stream, Self::Poll];

    fn label(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Stream => "stream",
            Self::Poll => "poll",
        }
    }
}

/// The counters of one transport.
pub struct TransportMetrics {
    /// Open now.
    pub connections: IntGauge,
    /// Opened since the start.
    pub opened: IntCounter,
    /// Events written to sockets.
    pub delivered_events: IntCounter,
    /// Bytes of these.
    pub delivered_bytes: IntCounter,
    /// Events among them that were read from the log.
    pub replayed_events: IntCounter,
    /// Bytes of these.
    pub replayed_bytes: IntCounter,
}

/// Every series of this node.
pub struct Metrics {
    registry: Registry,
    transports: [TransportMetrics; 4],
    errors: IntCounterVec,
    resumes: IntCounterVec,
    closes: IntCounterVec,
    /// Open subscriptions (a channel or pattern of a connection each).
    pub subscriptions: IntGauge,
    /// Channels and patterns with at least one subscriber.
    pub channels: IntGauge,
    /// Events accepted.
    pub published_events: IntCounter,
    /// Their payload bytes.
    pub published_bytes: IntCounter,
    /// Publishes whose id was known.
    pub duplicates: IntCounter,
    /// Events that a newer one replaced before they went out.
    pub conflated_events: IntCounter,
    /// Events that wait for their time on a channel of which only the newest counts.
    pub held_events: IntGauge,
    /// Fields that were stripped from events, by rules of channels.
    pub redacted_fields: IntCounter,
    /// From the parsed request to its answer.
    pub publish_seconds: Histogram,
    /// From the acceptance of an event to its write to a socket, of a sample of the deliveries.
    pub delivery_seconds: Histogram,
    /// One wait for the disk.
    pub fsync_seconds: Histogram,
    /// Publishers' events that shared one wait for the disk.
    pub fsync_events: Histogram,
    /// Clients that left their ring and went on from the log.
    pub slow_client_falls: IntCounter,
    /// Events that wait for the log, and their bytes.
    pub queue_events: IntGauge,
    /// Bytes of these.
    pub queue_bytes: IntGauge,
    /// How many bytes may wait.
    pub queue_max_bytes: IntGauge,
    /// Whether the node is ready, set when scraped.
    pub ready: IntGauge,
    /// Gauges of the log, set when scraped.
    pub log: LogMetrics,
    /// Seconds since the start.
    pub uptime_seconds: IntGauge,
    /// Resident memory.
    pub resident_bytes: IntGauge,
    /// What a remote bus says of itself.
    pub bus: BusMetrics,
    /// Connections of clients that were closed before they said anything.
    pub refused_connections: IntCounter,
    controls: IntCounterVec,
    /// The last probe's way through the bus.
    pub probe_seconds: Histogram,
}

/// What a remote bus says of itself.
pub struct BusMetrics {
    /// Whether there is a link.
    pub connected: IntGauge,
    /// Whether nothing is tried on behalf of publishes.
    pub breaker_open: IntGauge,
    /// Links that were opened after the first.
    pub reconnects: IntCounter,
    /// Parcels that came again.
    pub duplicates_dropped: IntCounter,
    /// Times that something could not be had any more.
    pub gaps: IntCounter,
    /// Entries that nobody can read.
    pub malformed: IntCounter,
    /// How far this node is behind.
    pub lag_seconds: Gauge,
    /// Events in the outbox.
    pub outbox_events: IntGauge,
    /// Bytes of the outbox.
    pub outbox_bytes: IntGauge,
    /// Age of the oldest event in the outbox.
    pub outbox_oldest_seconds: Gauge,
}

/// What the log says of itself.
pub struct LogMetrics {
    /// Disk use of its directory.
    pub disk_bytes: IntGauge,
    /// The most that it may be.
    pub max_bytes: IntGauge,
    /// Events it holds.
    pub events: IntGauge,
    /// Unix time of the oldest.
    pub oldest_timestamp_seconds: IntGauge,
    /// Disk space given back by expiry so far.
    pub reclaimed_bytes: IntGauge,
    /// Damaged places that were passed over, and files that were put aside.
    pub damaged: IntGauge,
    /// Journals that wait to be packed.
    pub waiting_journals: IntGauge,
}

impl Metrics {
    /// All series at zero.
    pub fn new() -> Self {
        let registry = Registry::new_custom(Some("sidewire".into()), None)
            .expect("the prefix is a constant and not empty");
        let build =
            IntGaugeVec::new(Opts::new("build_info", "Always 1; the version is a label"), &["version"]);
        let build = add(&registry, build);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let by_transport = ["transport"];
        let connections = gauges(&registry, "connections", "Open connections", &by_transport);
        let opened = counters(&registry, "connections_opened_total", "Connections opened", &by_transport);
        let delivered_events =
            counters(&registry, "delivered_events_total", "Events written to clients", &by_transport);
        let delivered_bytes =
            counters(&registry, "delivered_bytes_total", "Bytes of events written to clients", &by_transport);
        let replayed_events = counters(
            &registry,
            "replayed_events_total",
            "Delivered events that were read from the log",
            &by_transport,
        );
        let replayed_bytes = counters(
            &registry,
            "replayed_bytes_total",
            "Bytes of delivered events that were read from the log",
            &by_transport,
        );
        let transports = Transport::ALL.map(|transport| {
            let label = [transport.label()];
            TransportMetrics {
                connections: connections.with_label_values(&label),
                opened: opened.with_label_values(&label),
                delivered_events: delivered_events.with_label_values(&label),
                delivered_bytes: delivered_bytes.with_label_values(&label),
                replayed_events: replayed_events.with_label_values(&label),
                replayed_bytes: replayed_bytes.with_label_values(&label),
            }
        });
        let errors = counters(&registry, "errors_total", "Requests and messages refused, by code", &["code"]);
        for code in WATCHED_ERRORS {
            errors.with_label_values(&[code]);
        }
        let resumes = counters(
            &registry,
            "resumes_total",
            "Subscriptions begun, by what became of the cursor",
            &["resume"],
        );
        for resume in RESUMES {
            resumes.with_label_values(&[resume]);
        }
        let controls = counters(
            &registry,
            "controls_total",
            "Disconnects and revocations, and questions for them, by who asked for it: the app here or a node",
            &["from", "what"],
        );
        for (from, what) in CONTROLS {
            controls.with_label_values(&[from, what]);
        }
        Self {
            transports,
            errors,
            resumes,
            closes: counters(
                &registry,
                "closes_total",
                "Connections closed by this node, by close code",
                &["code"],
            ),
            subscriptions: gauge(&registry, "subscriptions", "Open subscriptions"),
            channels: gauge(&registry, "channels", "Channels and patterns with a subscriber"),
            published_events: counter(&registry, "published_events_total", "Events accepted"),
            published_bytes: counter(&registry, "published_bytes_total", "Payload bytes of accepted events"),
            duplicates: counter(&registry, "duplicates_total", "Publishes whose id was known already"),
            conflated_events: counter(
                &registry,
                "conflated_events_total",
                "Events that a newer one replaced, on channels with when_over = latest",
            ),
            held_events: gauge(&registry, "held_events", "Events that wait for their time on such channels"),
            redacted_fields: counter(
                &registry,
                "redacted_fields_total",
                "Fields stripped from events by the rules of channels",
            ),
            publish_seconds: histogram(
                &registry,
                "publish_duration_seconds",
                "From the parsed publish to its answer",
                &LATENCY,
            ),
            delivery_seconds: histogram(
                &registry,
                "delivery_duration_seconds",
                "From the acceptance of an event to its write to a client (a sample)",
                &LATENCY,
            ),
            fsync_seconds: histogram(
                &registry,
                "log_sync_duration_seconds",
                "One wait for the disk",
                &LATENCY,
            ),
            fsync_events: histogram(
                &registry,
                "log_sync_events",
                "Events that shared one wait for the disk",
                &[1., 2., 4., 8., 16., 32., 64., 128., 256., 512., 1024., 4096.],
            ),
            slow_client_falls: counter(
                &registry,
                "slow_client_falls_total",
                "Clients that were too slow for the live ring and went on from the log",
            ),
            queue_events: gauge(&registry, "queue_events", "Events that wait for the log"),
            queue_bytes: gauge(&registry, "queue_bytes", "Bytes of events that wait for the log"),
            queue_max_bytes: gauge(&registry, "queue_max_bytes", "How many bytes of events may wait"),
            ready: gauge(&registry, "ready", "Whether the node is ready: 1 while /readyz answers 200"),
            log: LogMetrics {
                disk_bytes: gauge(&registry, "log_disk_bytes", "Disk use of the log"),
                max_bytes: gauge(&registry, "log_max_bytes", "The most disk that the log may use"),
                events: gauge(&registry, "log_events", "Events in the log"),
                oldest_timestamp_seconds: gauge(
                    &registry,
                    "log_oldest_event_timestamp_seconds",
                    "Unix time of the oldest event in the log; 0 when it is empty",
                ),
                reclaimed_bytes: gauge(
                    &registry,
                    "log_reclaimed_bytes",
                    "Disk space given back by expiry since the start",
                ),
                damaged: gauge(
                    &registry,
                    "log_damaged",
                    "Damaged places of the log that were passed over, and files that were put aside",
                ),
                waiting_journals: gauge(&registry, "log_waiting_journals", "Journals that wait to be packed"),
            },
            uptime_seconds: gauge(&registry, "uptime_seconds", "Seconds since the start"),
            resident_bytes: gauge(&registry, "process_resident_memory_bytes", "Resident memory"),
            bus: BusMetrics {
                connected: gauge(&registry, "bus_connected", "1 while there is a link to the bus"),
                breaker_open: gauge(
                    &registry,
                    "bus_breaker_open",
                    "1 while the bus is away and publishes go to the disk",
                ),
                reconnects: counter(&registry, "bus_reconnects_total", "Times that the link was opened anew"),
                duplicates_dropped: counter(
                    &registry,
                    "bus_duplicates_dropped_total",
                    "Parcels that came again from the bus and were dropped",
                ),
                gaps: counter(
                    &registry,
                    "bus_gaps_total",
                    "Times that something on the bus could not be had any more",
                ),
                malformed: counter(
                    &registry,
                    "bus_malformed_total",
                    "Entries on the bus that nobody can read",
                ),
                lag_seconds: float_gauge(
                    &registry,
                    "bus_lag_seconds",
                    "How far this node is behind the bus: 0 while it has read everything",
                ),
                outbox_events: gauge(&registry, "outbox_events", "Events that wait on the disk for the bus"),
                outbox_bytes: gauge(&registry, "outbox_bytes", "The same in bytes on the disk"),
                outbox_oldest_seconds: float_gauge(
                    &registry,
                    "outbox_oldest_seconds",
                    "How long the oldest of them has waited",
                ),
            },
            refused_connections: counter(
                &registry,
                "connections_refused_total",
                "Connections of clients that were closed at once: there was no room for more",
            ),
            controls,
            probe_seconds: histogram(
                &registry,
                "bus_probe_duration_seconds",
                "The way of a probe through the bus and back",
                &LATENCY,
            ),
            registry,
        }
    }

    /// The counters of one transport.
    pub fn transport(&self, transport: Transport) -> &TransportMetrics {
        &self.transports[transport as usize]
    }

    /// Counts a refusal. `code` is one of the codes in the source, never a caller's text.
    pub fn error(&self, code: &'static str) {
        self.errors.with_label_values(&[code]).inc();
    }

    /// Counts the begin of a subscription.
    pub fn resumed(&self, status: &'static str) {
        self.resumes.with_label_values(&[status]).inc();
    }

    /// Counts a close by this node. The codes come from one table.
    pub fn closed(&self, code: u16) {
        self.closes.with_label_values(&[&code.to_string()]).inc();
    }

    /// Counts a word of the app or of another node on whom to let in. Both labels are words of the source.
    pub fn control(&self, from: &'static str, what: &'static str) {
        self.controls.with_label_values(&[from, what]).inc();
    }

    /// Clients connected now.
    pub fn connections(&self) -> i64 {
        self.transports.iter().map(|transport| transport.connections.get()).sum()
    }

    /// The text exposition format of Prometheus.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Codes that alerts look at. They are there from the start, as the rate of a counter does not see its first count.
const WATCHED_ERRORS: [&str; 5] = ["forbidden", "queue_full", "rate_limited", "unauthorized", "unavailable"];

/// What may become of a cursor, for the same reason.
const RESUMES: [&str; 6] = ["none", "ok", "expired", "reset", "approximate", "unavailable"];

/// Who may say whom to let in, and what; for the same reason, as one of them may be all that there ever is.
const CONTROLS: [(&str, &str); 5] =
    [("app", "disconnect"), ("app", "revoke"), ("bus", "disconnect"), ("bus", "revoke"), ("bus", "ask")];

/// Upper bounds in seconds: from a hop inside this process to a stalled disk.
const LATENCY: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1., 2.5,
    10.,
];

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    add(registry, IntGauge::new(name, help))
}

fn float_gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    add(registry, Gauge::new(name, help))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    add(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    add(registry, IntCounter::new(name, help))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    add(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    add(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    let collector = collector.expect("names and labels are constants of this file");
    registry.register(Box::new(collector.clone())).expect("each name is used once in this file");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_our_prefix_and_a_help_text() {
        let metrics = Metrics::new();
        metrics.error("invalid_json");
        let text = metrics.render();
        let names: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(names.len() > 40);
        assert!(names.iter().all(|line| line.starts_with("sidewire_")), "{text}");
        assert!(text.contains("sidewire_errors_total{code=\"invalid_json\"} 1"));
    }
}
