//! Configurations, as file and as environment: read or refused with reasons, and what is in force can be shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire::config::{Config, ConfigError, Sources, environment_name};
use sidewire::event::Channel;

// The text of the file; after a NUL each, environment variables. The first byte of one chooses its key, and the
// rest is its value.
fuzz_target!(|input: &[u8]| {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let mut parts = input.split('\0');
    let file = parts.next().unwrap_or_default();
    let names: Vec<String> =
        Config::keys().map(environment_name).chain(OTHER_NAMES.map(String::from)).collect();
    let mut sources = Sources::default();
    for part in parts {
        let Some(first) = part.chars().next() else { continue };
        let name = &names[first as usize % names.len()];
        sources.environment.insert(name.clone(), part[first.len_utf8()..].into());
    }
    check(Config::from_toml(file, sources));
});

/// Variables that are none of our keys: where the log is kept, a slip of the finger, and somebody else's.
const OTHER_NAMES: [&str; 6] = [
    "STATE_DIRECTORY",
    "XDG_STATE_HOME",
    "HOME",
    "SIDEWIRE_LOG__TLL",
    "SIDEWIRE_AUTH",
    "SIDEWIRE_PORT_7070_TCP",
];

fn check(config: Result<Config, ConfigError>) {
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.problems.is_empty());
            for problem in &error.problems {
                assert!(!problem.to_string().is_empty());
            }
            return;
        }
    };
    assert!(!config.log.dir.as_os_str().is_empty());
    assert!(config.warnings().iter().all(|warning| !warning.is_empty()));
    for channel in ["a", "editor.x"] {
        let _ = config.rule_for(&Channel::parse(channel).expect("it is a channel"));
    }
    for route in &config.client.routes {
        let _ = route.channel_for(&route.path());
        let _ = route.channel_for("/ws/job/%C3%A4");
    }

    // What is shown is what an operator would write: written so, it is the same configuration.
    let (file, sources) = written(config.to_json());
    match Config::from_toml(&file, sources.clone()) {
        Ok(again) => assert_eq!(again, config, "{file}{sources:?}"),
        Err(error) => panic!("{file}{sources:?}\n{error}"),
    }
}

/// The file and the environment that say what is shown: numbers in the environment, as TOML has none beyond 63 bits.
fn written(mut json: serde_json::Value) -> (String, Sources) {
    let mut sources = Sources::default();
    for key in Config::keys() {
        let Some((section, name)) = key.split_once('.') else { continue };
        if let Some(number) = json[section][name].as_u64() {
            sources.environment.insert(environment_name(key), number.to_string());
            json[section].as_object_mut().expect("a section").remove(name);
        }
    }
    (toml::to_string(&json).expect("all of it can be written"), sources)
}
