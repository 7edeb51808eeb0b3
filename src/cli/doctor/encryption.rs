//! Encryption on disk: the file of keys, and whether it has those that the log and the outbox need.

use super::{Finding, secrets};
use crate::cipher::{KeyId, Keyring};
use crate::config::Config;
use crate::log::{KeyUse, Log};
use crate::outbox::Outbox;
use crate::sidecar::{OUTBOX_DIRECTORY, keyring};
use std::collections::BTreeMap;
use std::path::Path;

/// What the finding is about.
const WHAT: &str = "encryption";

/// How many parts need which key; none is what lies there in the clear.
type Needs = BTreeMap<Option<KeyId>, usize>;

/// Looks at the keys, and at what needs them.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let (file, directory) = (&config.log.encryption_key_file, &config.log.dir);
    let keys = match keyring(config) {
        Ok(keys) => keys,
        Err(error) => {
            return vec![Finding::new(WHAT, Err(format!("log.encryption_key_file: {error}")))];
        }
    };
    let needs = match needs(directory) {
        Ok(needs) => needs,
        Err(error) => {
            let words = format!("{}: {error}; run this as the user that runs the node", directory.display());
            return vec![Finding::doubtful(WHAT, words)];
        }
    };
    let missing = needs.iter().filter_map(|(key, parts)| {
        let key = key.filter(|key| !keys.has(*key))?;
        Some(Finding::new(WHAT, Err(without(key, *parts, file))))
    });
    let mut findings: Vec<Finding> = missing.collect();
    if !file.as_os_str().is_empty() {
        if let Some(words) = secrets::replaceable(file) {
            findings.push(Finding::new(WHAT, Err(format!("log.encryption_key_file: {words}"))));
        }
        if let (Ok(key), Ok(log)) = (file.canonicalize(), directory.canonicalize())
            && key.starts_with(&log)
        {
            let words = format!(
                "{} lies in log.dir, so that whoever has that directory or its backup has the key: keep it elsewhere",
                file.display()
            );
            findings.push(Finding::doubtful(WHAT, words));
        }
    }
    findings.push(in_force(&keys, &needs, file));
    findings
}

/// What needs which key, also while a node has the directory open.
fn needs(directory: &Path) -> Result<Needs, String> {
    let mut needs = Needs::new();
    if !directory.is_dir() {
        return Ok(needs);
    }
    for KeyUse { key, parts } in Log::key_uses_now(directory).map_err(|error| error.to_string())? {
        *needs.entry(key).or_default() += parts.len();
    }
    let in_outbox = Outbox::key_uses(&directory.join(OUTBOX_DIRECTORY)).map_err(|error| error.to_string())?;
    for (key, parts) in in_outbox {
        *needs.entry(Some(key)).or_default() += parts.len();
    }
    Ok(needs)
}

fn without(key: KeyId, parts: usize, file: &Path) -> String {
    let remedy = match file.as_os_str().is_empty() {
        true => "name the file that has it as log.encryption_key_file".to_owned(),
        false => format!("put it back into {}, below the first line", file.display()),
    };
    format!("{parts} files need the key {key}, which is missing: the next start is refused; {remedy}")
}

fn in_force(keys: &Keyring, needs: &Needs, file: &Path) -> Finding {
    let of = |key: Option<KeyId>| needs.get(&key).copied().unwrap_or_default();
    let clear = of(None);
    match keys.current() {
        Some(key) if clear == 0 => Finding::new(
            WHAT,
            Ok(format!("the key {key} encrypts what is new; {} files have it", of(Some(key)))),
        ),
        Some(key) => Finding::new(
            WHAT,
            Ok(format!(
                "the key {key} encrypts what is new; {clear} files of before are not encrypted, until their events expire"
            )),
        ),
        None if file.as_os_str().is_empty() => {
            Finding::new(WHAT, Ok("off: events lie on the disk as they are (log.encryption_key_file)".into()))
        }
        None => {
            let words = format!("{} begins with \"none\": what is new is not encrypted", file.display());
            Finding::doubtful(WHAT, words)
        }
    }
}
