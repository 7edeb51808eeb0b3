//! How channels are plain subjects, and which of all subjects are taken.

use crate::event::{Channel, Pattern};

/// The namespace whose subjects are the channels as they are.
const PLAIN: &str = "default";
/// Answers to requests, and what servers tell each other: no events.
const RESERVED: [&str; 2] = ["_INBOX.", "$"];
/// Where the probes of all namespaces are.
const PROBES: &str = "sidewire.probe.";
/// Where the nodes of all namespaces are controlled.
const CONTROLS: &str = "sidewire.control.";

/// The subjects of a namespace.
#[derive(Clone, Debug)]
pub(super) struct Subjects {
    prefix: String,
    probes: String,
    controls: String,
    patterns: Vec<Pattern>,
}

impl Subjects {
    /// Those of these patterns; of all channels if there are none.
    pub(super) fn new(namespace: &str, patterns: &[Pattern]) -> Self {
        let prefix = if namespace == PLAIN { String::new() } else { format!("{namespace}.") };
        let (probes, controls) = (format!("{PROBES}{namespace}"), format!("{CONTROLS}{namespace}"));
        Self { prefix, probes, controls, patterns: patterns.into() }
    }

    /// Where probes are.
    pub(super) fn probes(&self) -> &str {
        &self.probes
    }

    /// Where nodes are controlled: a subject of its own, so that who may write events need not have a right to it.
    pub(super) fn controls(&self) -> &str {
        &self.controls
    }

    /// Where events of a channel are.
    pub(super) fn of(&self, channel: &Channel) -> String {
        if channel.is_reserved() {
            return self.controls.clone();
        }
        format!("{}{channel}", self.prefix)
    }

    /// What is to be subscribed to.
    pub(super) fn subscribed(&self) -> Vec<String> {
        if self.patterns.is_empty() {
            return vec![format!("{}>", self.prefix)];
        }
        self.patterns.iter().map(|pattern| format!("{}{}", self.prefix, pattern.as_str())).collect()
    }

    /// The channel of a subject that came by the subscription with this number; none if it is no event, or comes
    /// by an earlier subscription as well, as the server sends it once for each that fits.
    pub(super) fn channel<'a>(&self, subject: &'a str, subscription: usize) -> Option<&'a str> {
        if RESERVED.iter().chain([&PROBES, &CONTROLS]).any(|reserved| subject.starts_with(reserved)) {
            return None;
        }
        let channel = subject.strip_prefix(&self.prefix)?;
        let earlier = self.patterns.get(..subscription).unwrap_or_default();
        if !earlier.is_empty()
            && let Ok(parsed) = Channel::parse(channel)
            && earlier.iter().any(|pattern| pattern.matches(&parsed))
        {
            return None;
        }
        Some(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(namespace: &str, patterns: &[&str]) -> Subjects {
        let patterns: Vec<Pattern> = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        Subjects::new(namespace, &patterns)
    }

    #[test]
    fn the_default_namespace_is_plain() {
        let plain = subjects("default", &[]);
        assert_eq!(plain.subscribed(), [">"]);
        assert_eq!(plain.of(&Channel::parse("job.7").unwrap()), "job.7");
        assert_eq!(plain.channel("job.7", 0), Some("job.7"));
        for reserved in [
            "_INBOX.x.1",
            "$JS.API.INFO",
            "sidewire.probe.default",
            "sidewire.probe.other",
            "sidewire.control.a",
        ] {
            assert_eq!(plain.channel(reserved, 0), None);
        }
    }

    #[test]
    fn another_namespace_is_a_prefix() {
        let other = subjects("other", &["job.*", "a"]);
        assert_eq!(other.subscribed(), ["other.job.*", "other.a"]);
        assert_eq!(other.probes(), "sidewire.probe.other");
        assert_eq!(other.of(&Channel::control()), "sidewire.control.other");
        assert_eq!(other.channel("other.job.7", 0), Some("job.7"));
        assert_eq!(other.channel("job.7", 0), None);
    }

    #[test]
    fn what_fits_several_patterns_is_taken_once() {
        let both = subjects("default", &["a.*", "*.b"]);
        assert_eq!(both.channel("a.b", 0), Some("a.b"));
        assert_eq!(both.channel("a.b", 1), None);
        assert_eq!(both.channel("c.b", 1), Some("c.b"));
    }
}
