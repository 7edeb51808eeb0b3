//! Reading `GET /metrics` by the rules of the Prometheus text format.

use super::sidecar::TestSidecar;
use std::collections::HashMap;

/// One line of the page.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

impl Sample {
    /// Whether it has every one of these labels.
    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels
            .iter()
            .all(|(name, value)| self.labels.iter().any(|(known, held)| known == name && held == value))
    }
}

/// The whole page.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) samples: Vec<Sample>,
    /// The kind of every family, by its name.
    pub(crate) kinds: HashMap<String, String>,
}

impl Metrics {
    /// Reads a page; panics at the first line that breaks the format.
    pub(crate) fn parse(text: &str) -> Self {
        let mut metrics = Self { samples: Vec::new(), kinds: HashMap::new() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(matches!(kind, "counter" | "gauge" | "histogram" | "summary"), "{line}");
                assert!(metrics.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            } else if !line.starts_with('#') {
                metrics.samples.push(parse_sample(line).unwrap_or_else(|| panic!("not a sample: {line}")));
            }
        }
        metrics
    }

    /// The sum over all samples of that name with those labels; 0 if there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples.iter().filter(|sample| sample.name == name && sample.has(labels)).map(|s| s.value).sum()
    }

    /// Whether there is a family of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.kinds.contains_key(name)
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    let name_end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, mut rest) = line.split_at(name_end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((label.to_owned(), value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ')?.split(' ').next()?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    Some(Sample { name: name.to_owned(), labels, value })
}

/// A label value up to its closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

impl TestSidecar {
    /// What the node measures now.
    pub(crate) async fn metrics(&self) -> Metrics {
        let page = self.admin().get("/metrics").await;
        assert_eq!(page.status(), 200, "{}", page.text());
        Metrics::parse(&page.text())
    }
}
