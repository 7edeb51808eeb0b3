//! What can be wrong with a configuration, told so that it can be put right.

use std::fmt;
use std::sync::Arc;

/// Everything that is wrong with a configuration: never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// Each fault, in the order of the sources.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Where a value was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// Nowhere: it is the default.
    Default,
    /// In the configuration file.
    File {
        /// The file as it was named.
        name: Arc<str>,
        /// Counted from 1; 0 is the file as a whole.
        line: usize,
    },
    /// In an environment variable.
    Environment(String),
    /// On the command line.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File { name, line: 0 } => f.write_str(name),
            Self::File { name, line } => write!(f, "{name} line {line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The key it is about, such as `log.ttl`; empty if it is about the file as a whole.
    pub key: String,
    /// Where that key was written.
    pub source: Source,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The file cannot be read, or is not TOML.
    File(String),
    /// No version of Sidewire knows this key.
    Unknown {
        /// The known key that is most like it.
        nearest: Option<String>,
    },
    /// No version of Sidewire knows this environment variable.
    UnknownVariable {
        /// The known variable that is most like it.
        nearest: Option<String>,
    },
    /// A later version of Sidewire has it. To ignore it could leave open what it was to close.
    Later,
    /// Its value cannot be taken; what is wrong and what to write.
    Value(String),
}

impl Problem {
    /// A value that cannot be taken.
    pub(super) fn value(source: &Source, message: impl fmt::Display) -> Self {
        Self { key: String::new(), source: source.clone(), fault: Fault::Value(message.to_string()) }
    }

    /// A key that is not of this version: of a later one, or of none.
    pub(super) fn key<'a>(
        key: &str,
        source: &Source,
        later: bool,
        known: impl Iterator<Item = &'a str>,
    ) -> Self {
        let fault = if later { Fault::Later } else { Fault::Unknown { nearest: nearest(key, known) } };
        Self { key: key.into(), source: source.clone(), fault }
    }

    /// The same, seen from the table that holds it: `ttl` becomes `log.ttl`, `[0]` becomes `channels[0]`.
    pub(super) fn under(mut self, prefix: &str) -> Self {
        self.key = join(prefix, &self.key);
        if let Fault::Unknown { nearest: Some(nearest) } = &mut self.fault {
            *nearest = join(prefix, nearest);
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, source, fault } = self;
        match (fault, source) {
            (Fault::File(message), _) => write!(f, "{source}: {message}"),
            (Fault::UnknownVariable { nearest }, _) => {
                write!(f, "unknown {source}")?;
                suggest(f, nearest.as_deref())
            }
            (Fault::Unknown { nearest }, _) => {
                write!(f, "unknown key `{key}` in {source}")?;
                suggest(f, nearest.as_deref())
            }
            (Fault::Later, _) => write!(
                f,
                "{key}: not available in this version ({}); remove it ({source})",
                env!("CARGO_PKG_VERSION")
            ),
            (Fault::Value(message), _) => write!(f, "{key}: {message} ({source})"),
        }
    }
}

/// The environment variable of a key: `bus.url` is `SIDEWIRE_BUS__URL`.
pub fn environment_name(key: &str) -> String {
    format!("SIDEWIRE_{}", key.replace('.', "__").to_ascii_uppercase())
}

fn suggest(f: &mut fmt::Formatter<'_>, nearest: Option<&str>) -> fmt::Result {
    match nearest {
        Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
        None => f.write_str("; config.toml.example lists every key"),
    }
}

fn join(prefix: &str, rest: &str) -> String {
    let dot = if rest.is_empty() || rest.starts_with('[') { "" } else { "." };
    format!("{prefix}{dot}{rest}")
}

/// The known key that was probably meant: the same name in another section, or else the fewest slips
/// of the finger away, unless that is nearly another word.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let last = |path: &'a str| path.rsplit('.').next().unwrap_or(path);
    let name = key.rsplit('.').next().unwrap_or(key);
    let most_slips = (key.len() / 3).clamp(1, 4);
    known
        .map(|candidate| {
            let slips = strsim::damerau_levenshtein(key, candidate);
            let misplaced = last(candidate) == name;
            (if misplaced { slips.min(1) } else { slips }, slips, candidate)
        })
        .filter(|(cost, _, _)| *cost <= most_slips)
        .min()
        .map(|(_, _, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_across_sections() {
        let known = ["app.listen", "log.ttl", "client.allow_anonymous", "bus.url"];
        let nearest = |key| nearest(key, known.into_iter());
        assert_eq!(nearest("log.tll").as_deref(), Some("log.ttl"));
        assert_eq!(nearest("app.allow_anonymous").as_deref(), Some("client.allow_anonymous"));
        assert_eq!(nearest("client.alow_anonymus").as_deref(), Some("client.allow_anonymous"));
        assert_eq!(nearest("listen").as_deref(), Some("app.listen"));
        assert_eq!(nearest("log.something_else"), None);
    }
}
