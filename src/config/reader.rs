//! The sources of a configuration, one laid over the other: flag, environment, file, default.

use super::node::{Node, Table, Value, parse_toml};
use super::problem::{Fault, Problem, Source, environment_name};
use super::setting::Setting;
use super::{Flag, later};
use std::collections::BTreeMap;

/// The defaults, with the reason of each key: what operators read is what is in force.
pub(super) const EXAMPLE: &str = include_str!("../../config.toml.example");

/// The values that were given, each from the source that counts.
pub(super) struct Reader {
    known: Vec<&'static str>,
    given: BTreeMap<String, Node>,
    defaults: BTreeMap<String, Node>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Nothing is given yet: every one of the `known` keys has its default.
    pub(super) fn new(known: Vec<&'static str>) -> Self {
        let defaults = parse_toml(&defaults_of(EXAMPLE), "config.toml.example")
            .expect("the example is TOML: a test reads all of it");
        let mut reader =
            Self { known, given: BTreeMap::new(), defaults: BTreeMap::new(), problems: Vec::new() };
        reader.lay(defaults);
        reader.defaults = std::mem::take(&mut reader.given);
        reader
    }

    /// Lays the text of a configuration file over what there is.
    pub(super) fn file(&mut self, text: &str, name: &str) {
        match parse_toml(text, name) {
            Ok(table) => self.lay(table),
            Err((line, message)) => {
                let source = Source::File { name: name.into(), line };
                let fault = Fault::File(format!("not valid TOML: {message}"));
                self.problems.push(Problem { key: String::new(), source, fault });
            }
        }
    }

    /// Lays environment variables over what there is. Those that are none of ours are left alone.
    pub(super) fn environment(&mut self, variables: &BTreeMap<String, String>) {
        let known: Vec<(String, &str)> = self.known.iter().map(|key| (environment_name(key), *key)).collect();
        for (name, text) in variables {
            // `${PORT:-}` in a compose file means "not set".
            if text.is_empty() || !name.starts_with("SIDEWIRE_") {
                continue;
            }
            let source = Source::Environment(name.clone());
            if let Some((_, key)) = known.iter().find(|(variable, _)| variable == name) {
                self.given.insert((*key).into(), Node::untyped(text.clone(), source));
            } else if let Some(key) = is_meant_for_us(name, &known) {
                let known = known.iter().map(|(variable, _)| variable.as_str());
                let mut problem = Problem::key(name, &source, later::is_later(&key), known);
                problem.key = key;
                if let Fault::Unknown { nearest } = problem.fault {
                    problem.fault = Fault::UnknownVariable { nearest };
                }
                self.problems.push(problem);
            }
        }
    }

    /// Lays flags over what there is. A flag that was repeated is a list.
    pub(super) fn flags(&mut self, flags: Vec<Flag>) {
        for flag in flags {
            let source = Source::Flag(flag.name);
            let mut items: Vec<Node> =
                flag.values.into_iter().map(|text| Node::untyped(text, source.clone())).collect();
            let node = match items.len() {
                0 => continue,
                1 => items.remove(0),
                _ => Node { value: Value::List(items), source },
            };
            self.given.insert(flag.key.into(), node);
        }
    }

    /// The value of a key: what was given, or the default if nothing was, or nothing that can be taken.
    pub(super) fn get<T: Setting>(&mut self, key: &'static str) -> T {
        if let Some(node) = self.given.get(key) {
            match T::read(node) {
                Ok(value) => return value,
                Err(found) => self.problems.extend(found.into_iter().map(|problem| problem.under(key))),
            }
        }
        let default =
            self.defaults.get(key).expect("every key has its default in the example: a test reads all");
        T::read(default).expect("the defaults are valid: a test reads them all")
    }

    /// Notes that a key's value cannot be taken beside the others.
    pub(super) fn refuse(&mut self, key: &'static str, message: impl std::fmt::Display) {
        let source = self.given.get(key).map_or(&Source::Default, |node| &node.source);
        let problem = Problem::value(source, message).under(key);
        self.problems.push(problem);
    }

    /// Notes that the file could not be read.
    pub(super) fn unreadable(&mut self, name: &str, error: &std::io::Error) {
        let fault = Fault::File(format!("cannot be read: {error}"));
        let source = Source::File { name: name.into(), line: 0 };
        self.problems.push(Problem { key: String::new(), source, fault });
    }

    /// Whether nothing was wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// All that was wrong, in the order of the sources.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by(|one, two| one.source.cmp(&two.source));
        self.problems
    }

    fn lay(&mut self, document: Table) {
        for (section, node) in document {
            let prefix = format!("{section}.");
            let is_section = self.known.iter().any(|key| key.starts_with(&prefix));
            match node.value {
                Value::Table(keys) if is_section => self.lay_section(&prefix, keys),
                _ if is_section => {
                    let problem = Problem::value(&node.source, format!("is a section; write [{section}]"));
                    self.problems.push(problem.under(&section));
                }
                _ => self.lay_key(section, node),
            }
        }
    }

    /// Lays the keys of a section; a section may stand within another.
    fn lay_section(&mut self, prefix: &str, keys: Table) {
        for (key, node) in keys {
            let key = format!("{prefix}{key}");
            let within = format!("{key}.");
            match node.value {
                Value::Table(keys) if self.known.iter().any(|known| known.starts_with(&within)) => {
                    self.lay_section(&within, keys);
                }
                value => self.lay_key(key, Node { value, source: node.source }),
            }
        }
    }

    fn lay_key(&mut self, key: String, node: Node) {
        if self.known.contains(&key.as_str()) {
            self.given.insert(key, node);
            return;
        }
        // The sections are candidates too: `[logs]` was meant to be `[log]`.
        let sections = self.known.iter().filter_map(|key| key.split_once('.')).map(|(section, _)| section);
        let candidates = self.known.iter().copied().chain(sections);
        let problem = Problem::key(&key, &node.source, later::is_later(&key), candidates);
        self.problems.push(problem);
    }
}

/// The key that a variable of an unknown name is meant to set; `None` if it is somebody else's, such as the
/// `SIDEWIRE_PORT_7070_TCP` that Kubernetes sets for a service of that name.
fn is_meant_for_us(name: &str, known: &[(String, &str)]) -> Option<String> {
    let rest = name.strip_prefix("SIDEWIRE_")?;
    let one_underscore = || known.iter().any(|(variable, _)| variable.replace("__", "_") == name);
    let later_section = || later::is_later(&rest.to_ascii_lowercase());
    (rest.contains("__") || one_underscore() || later_section())
        .then(|| rest.replace("__", ".").to_ascii_lowercase())
}

/// The example with its defaults in force: each `# key = value` uncommented, and the lists of tables, of
/// which it has samples only, empty.
pub(super) fn defaults_of(example: &str) -> String {
    // A list of a section stands within that section, the others before all sections.
    let (mut first, mut text, mut section) = (String::new(), String::new(), "");
    for line in example.lines() {
        let setting = line.strip_prefix("# ").filter(|rest| is_setting(rest));
        let sample = line.strip_prefix("#   [[").and_then(|rest| rest.strip_suffix("]]"));
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            text += &format!("{line}\n");
        } else if let Some(setting) = setting {
            text += &format!("{setting}\n");
        } else if let Some(name) = sample {
            match name.split_once('.') {
                Some((of, key)) if of == section => text += &format!("{key} = []\n"),
                _ => {
                    let line = format!("{name} = []\n");
                    // A list may have several samples.
                    if !first.contains(&line) {
                        first += &line;
                    }
                }
            }
        }
    }
    first + &text
}

fn is_setting(line: &str) -> bool {
    let is_key = |key: &str| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    line.split_once(" = ").is_some_and(|(key, _)| is_key(key))
}
