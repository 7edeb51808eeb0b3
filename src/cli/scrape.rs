//! What the admin listener of a node tells: its metrics, its readiness, its configuration.

use super::error::CliError;
use super::http::HttpClient;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Instant;

/// One look at a node.
pub(super) struct Scrape {
    pub(super) at: Instant,
    /// `/healthz`
    pub(super) health: Value,
    /// `/readyz`
    pub(super) readiness: Value,
    /// `/v1/config`
    pub(super) config: Value,
    samples: Vec<Sample>,
}

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Scrape {
    /// Asks the node.
    pub(super) async fn take(admin: &mut HttpClient) -> Result<Self, CliError> {
        let health = json(&admin.get("/healthz").await?.success()?)?;
        // 503 is an answer as well.
        let readiness = json(&admin.get("/readyz").await?.body)?;
        let config = json(&admin.get("/v1/config").await?.success()?)?;
        let text = admin.get("/metrics").await?.success()?;
        let samples = String::from_utf8_lossy(&text).lines().filter_map(sample).collect();
        Ok(Self { at: Instant::now(), health, readiness, config, samples })
    }

    /// The value of a series, summed over its labels; `None` if the node has no such series.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.with(name).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    /// The values of a series by one of its labels.
    pub(super) fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.with(name) {
            if let Some(value) = sample.labels.get(label) {
                *sums.entry(value.clone()).or_insert(0.0) += sample.value;
            }
        }
        sums
    }

    /// How fast a counter has grown since an earlier look, a second.
    pub(super) fn rate(&self, earlier: &Self, name: &str) -> f64 {
        let seconds = self.at.duration_since(earlier.at).as_secs_f64().max(0.001);
        let grown = self.get(name).unwrap_or(0.0) - earlier.get(name).unwrap_or(0.0);
        // A node that was started again counts anew.
        (grown / seconds).max(0.0)
    }

    fn with<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }
}

fn json(body: &[u8]) -> Result<Value, CliError> {
    serde_json::from_slice(body).map_err(|error| {
        CliError::Protocol(format!(
            "the answer is not what a node sends: {error}; is this the admin listener?"
        ))
    })
}

/// A line of the text format: `name{label="value"} 1`. Our label values hold no quotes or commas.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}')?.split(',').filter_map(|label| {
        let (name, value) = label.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    });
    Some(Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().ok()? })
}

#[cfg(test)]
impl Scrape {
    /// A look at a node that has these metrics.
    pub(super) fn of_text(text: &str, readiness: Value, config: Value) -> Self {
        let samples = text.lines().filter_map(sample).collect();
        let health = serde_json::json!({"status": "ok", "version": "0.0.0", "uptime_s": 4000});
        Self { at: Instant::now(), health, readiness, config, samples }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_and_split() {
        let text = "# HELP a b\nsidewire_x{transport=\"sse\"} 2\nsidewire_x{transport=\"poll\"} 1.5\nsidewire_y 7\nnonsense\n";
        let scrape = Scrape::of_text(text, Value::Null, Value::Null);
        assert_eq!(scrape.get("sidewire_x"), Some(3.5));
        assert_eq!(scrape.get("sidewire_y"), Some(7.0));
        assert_eq!(scrape.get("sidewire_z"), None);
        assert_eq!(
            scrape.by("sidewire_x", "transport"),
            BTreeMap::from([("sse".into(), 2.0), ("poll".into(), 1.5)])
        );
        let later = Scrape {
            at: scrape.at + std::time::Duration::from_secs(2),
            ..Scrape::of_text("sidewire_y 17\n", Value::Null, Value::Null)
        };
        assert_eq!(later.rate(&scrape, "sidewire_y"), 5.0);
        assert_eq!(later.rate(&scrape, "sidewire_x"), 0.0);
    }
}
