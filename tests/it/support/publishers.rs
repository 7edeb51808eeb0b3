//! Apps that publish all the time, one event in a request, and measure how long each answer took.

use super::http::HttpClient;
use super::joined;
use super::sidecar::{TestSidecar, Whereabouts};
use super::wait::PATIENCE;
use serde_json::json;
use std::collections::HashSet;
use std::iter::Sum;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Publishers of one node, each with a channel of its own, `<name>.<publisher>`, on which it counts from 0.
pub(crate) struct Publishers {
    pub(crate) name: String,
    pub(crate) count: u64,
    /// Of all together.
    pub(crate) per_second: u64,
    /// Whether the node is killed meanwhile: what it has not answered is then sent again, under the same id.
    pub(crate) node_is_killed: bool,
}

/// Publishers at work.
pub(crate) struct RunningPublishers {
    name: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Published>>,
}

/// What one publisher did.
#[derive(Default)]
struct Published {
    /// It has published the numbers below this one.
    count: u64,
    queued: u64,
    /// The ids that it published twice, as the node was killed before it answered.
    again: HashSet<String>,
    answered_in: Vec<Duration>,
}

/// What all of them did.
#[derive(Clone, Default)]
pub(crate) struct PublishReport {
    /// Each channel, with how many events it has: 0, 1, 2 …
    pub(crate) channels: Vec<(String, u64)>,
    pub(crate) queued: u64,
    /// The ids that were published twice, as the node was killed before it answered.
    pub(crate) again: HashSet<String>,
    answered_in: Vec<Duration>,
}

impl Publishers {
    pub(crate) fn start(self, whereabouts: Whereabouts) -> RunningPublishers {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let every = Duration::from_secs_f64(self.count as f64 / self.per_second as f64);
        let tasks = (0..self.count)
            .map(|publisher| {
                let publisher = Publisher {
                    channel: format!("{}.{publisher}", self.name),
                    every,
                    node_is_killed: self.node_is_killed,
                    stop: Arc::clone(&stop),
                    acknowledged: Arc::clone(&acknowledged),
                };
                tokio::spawn(publisher.run(whereabouts.clone()))
            })
            .collect();
        RunningPublishers { name: self.name, stop, acknowledged, tasks }
    }

    /// As many on each of several nodes; the channels of node 1 are `<name>.1.<publisher>`.
    pub(crate) fn start_on_each(self, nodes: &[TestSidecar]) -> Vec<RunningPublishers> {
        (0..)
            .zip(nodes)
            .map(|(at, node)| {
                let of_node = Self { name: format!("{}.{at}", self.name), ..self };
                of_node.start(node.whereabouts())
            })
            .collect()
    }
}

struct Publisher {
    channel: String,
    every: Duration,
    node_is_killed: bool,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Publisher {
    async fn run(self, whereabouts: Whereabouts) -> Published {
        let mut done = Published::default();
        let mut app = HttpClient::new(whereabouts.app());
        let mut due = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let (channel, n) = (&self.channel, done.count);
            let body = json!({"channel": channel, "id": format!("{channel}-{n}"), "data": {"n": n}});
            let body = body.to_string();
            let begin = Instant::now();
            let answer = loop {
                let headers = [("Content-Type", "application/json")];
                let request = app.try_request("POST", "/v1/publish", &headers, body.as_bytes());
                match timeout(PATIENCE, request).await {
                    Ok(Ok(answer)) => break answer,
                    Ok(Err(error)) if !self.node_is_killed => panic!("{channel} {n}: {error}"),
                    Ok(Err(_)) => {
                        assert!(begin.elapsed() < PATIENCE, "{channel} {n}: no answer");
                        done.again.insert(format!("{channel}-{n}"));
                        // The node is on its way up.
                        sleep(Duration::from_millis(5)).await;
                        app = HttpClient::new(whereabouts.app());
                    }
                    Err(_) => panic!("{channel} {n}: no answer within {PATIENCE:?}"),
                }
            };
            assert!(matches!(answer.status(), 200 | 202), "{channel} {n}: {}", answer.text());
            let said = answer.json();
            match said["status"].as_str() {
                Some("published") => assert_eq!(answer.status(), 200, "{said}"),
                Some("queued") => {
                    assert_eq!(answer.status(), 202, "{said}");
                    done.queued += 1;
                }
                // The first answer was lost with the node.
                Some("duplicate") if self.node_is_killed => {}
                _ => panic!("{channel} {n}: {said}"),
            }
            done.answered_in.push(begin.elapsed());
            done.count += 1;
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            due += self.every;
            sleep_until(due).await;
        }
        done
    }
}

impl RunningPublishers {
    /// What the names of their channels begin with.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more are acknowledged.
    pub(crate) async fn go_on_for(&self, count: u64) {
        let goal = self.acknowledged() + count;
        super::wait::eventually(&format!("{count} more acknowledged events of {}", self.name), async || {
            let failed = self.tasks.iter().any(JoinHandle::is_finished);
            (failed || self.acknowledged() >= goal).then_some(())
        })
        .await;
    }

    /// Stops them after the event that each is about.
    pub(crate) async fn stop(self) -> PublishReport {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = PublishReport::default();
        for (publisher, task) in self.tasks.into_iter().enumerate() {
            let done = joined(task).await;
            report.channels.push((format!("{}.{publisher}", self.name), done.count));
            report.queued += done.queued;
            report.again.extend(done.again);
            report.answered_in.extend(done.answered_in);
        }
        report
    }

    /// Stops those of several nodes, and gives what each of them did.
    pub(crate) async fn stop_each(load: Vec<Self>) -> Vec<PublishReport> {
        let mut reports = Vec::new();
        for running in load {
            reports.push(running.stop().await);
        }
        reports
    }

    /// The same, as one report.
    pub(crate) async fn stop_all(load: Vec<Self>) -> PublishReport {
        Self::stop_each(load).await.into_iter().sum()
    }
}

impl Sum for PublishReport {
    fn sum<I: Iterator<Item = Self>>(reports: I) -> Self {
        reports.fold(Self::default(), |mut all, report| {
            all.channels.extend(report.channels);
            all.queued += report.queued;
            all.again.extend(report.again);
            all.answered_in.extend(report.answered_in);
            all
        })
    }
}

impl PublishReport {
    /// How many events there are on all channels.
    pub(crate) fn total(&self) -> u64 {
        self.channels.iter().map(|(_, count)| count).sum()
    }

    /// So many of 1,000 answers came within the time that is given back.
    pub(crate) fn answered_in(&self, of_thousand: usize) -> Duration {
        let mut sorted = self.answered_in.clone();
        sorted.sort();
        sorted[(sorted.len() * of_thousand / 1_000).min(sorted.len() - 1)]
    }
}
