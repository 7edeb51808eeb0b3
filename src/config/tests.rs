use super::reader::{EXAMPLE, defaults_of};
use super::*;
use std::collections::BTreeSet;
use std::time::Duration;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
}

fn load(text: &str) -> Result<Config, String> {
    let sources = Sources { file: Some("my.toml".into()), ..Sources::default() };
    Config::from_toml(text, sources).map_err(|error| error.to_string())
}

fn load_environment(pairs: &[(&str, &str)]) -> Result<Config, String> {
    let sources = Sources { environment: environment(pairs), ..Sources::default() };
    Config::load(sources).map_err(|error| error.to_string())
}

fn refusal(text: &str) -> String {
    load(text).expect_err(text)
}

/// The example with its samples in force too.
fn samples() -> String {
    let uncomment = |line: &str| {
        let text = line.strip_prefix("#   ").or(line.strip_prefix("# ").filter(|rest| rest.contains(" = ")));
        text.unwrap_or(if line.starts_with('#') { "" } else { line }).to_owned()
    };
    EXAMPLE.lines().map(|line| uncomment(line) + "\n").collect()
}

#[test]
fn the_example_is_the_defaults() {
    let defaults = Config::default();
    assert_eq!(load(EXAMPLE), Ok(defaults.clone()));
    assert_eq!(load(&defaults_of(EXAMPLE)), Ok(defaults));
}

#[test]
fn the_example_names_every_key_and_no_other() {
    let table: toml::Table = defaults_of(EXAMPLE).parse().unwrap();
    let mut named = BTreeSet::new();
    for (section, value) in &table {
        match value.as_table() {
            Some(keys) => {
                for (key, value) in keys {
                    match value.as_table().filter(|keys| !keys.is_empty()) {
                        Some(within) => {
                            named.extend(within.keys().map(|name| format!("{section}.{key}.{name}")))
                        }
                        None => drop(named.insert(format!("{section}.{key}"))),
                    }
                }
            }
            None => drop(named.insert(section.clone())),
        }
    }
    assert_eq!(named, Config::keys().map(str::to_owned).collect());
}

#[test]
fn the_samples_of_the_example_are_valid_and_name_every_key_of_a_table() {
    let config = load(&samples()).unwrap();
    assert_eq!(config.client.routes.len(), 1);
    assert_eq!(config.channels.len(), 3);
    let shown = config.to_json();
    for key in ["path", "channel", "close_on"] {
        assert!(!shown["client"]["routes"][0][key].is_null(), "{key}");
    }
    for key in ["pattern", "ttl", "max_events", "store"] {
        assert!(!shown["channels"][0][key].is_null(), "{key}");
    }
    assert!(!shown["channels"][2]["redact"].is_null());
}

#[test]
fn each_key_of_the_example_has_a_reason_before_it() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for pair in lines.windows(2) {
        if defaults_of(pair[1]).contains(" = ") && !pair[1].starts_with("#   ") {
            assert!(
                pair[0].starts_with("# ") && defaults_of(pair[0]).is_empty(),
                "no reason before {:?}",
                pair[1]
            );
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Config::default();
    assert_eq!(config.app.listen[0].to_string(), "127.0.0.1:7070");
    assert_eq!(config.client.listen[0].to_string(), "127.0.0.1:7080");
    assert_eq!(config.admin.listen[0].to_string(), "127.0.0.1:7090");
    assert_eq!(config.log.ttl, Duration::from_secs(86_400));
    assert_eq!(config.bus.probe_interval, Duration::from_secs(5));
    assert_eq!(config.limits.event_bytes, ByteSize(1 << 20));
    assert_eq!(config.limits.body_bytes, ByteSize(8 << 20));
    assert!(!config.client.allow_anonymous);
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    let config = load(&samples()).unwrap();
    let text = toml::to_string(&config.to_json()).unwrap();
    assert_eq!(load(&text), Ok(config));
}

#[test]
fn a_flag_counts_before_the_environment_and_that_before_the_file() {
    let flag = |values: &[&str]| Flag {
        key: "app.listen",
        name: "--app",
        values: values.iter().map(|text| (*text).to_owned()).collect(),
    };
    let load = |variables: &[(&str, &str)], values: &[&str]| {
        let sources =
            Sources { environment: environment(variables), flags: vec![flag(values)], ..Sources::default() };
        let config = Config::from_toml("app.listen = '127.0.0.1:1'", sources).unwrap();
        config.app.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(load(&[], &[]), "127.0.0.1:1");
    assert_eq!(load(&[("SIDEWIRE_APP__LISTEN", "127.0.0.1:2")], &[]), "127.0.0.1:2");
    assert_eq!(load(&[("SIDEWIRE_APP__LISTEN", "")], &[]), "127.0.0.1:1");
    assert_eq!(load(&[("SIDEWIRE_APP__LISTEN", "127.0.0.1:2")], &["unix:/a"]), "unix:/a");
    assert_eq!(load(&[], &["127.0.0.1:3", "unix:/a"]), "127.0.0.1:3 unix:/a");
}

#[test]
fn the_environment_sets_every_type() {
    let config = load_environment(&[
        ("SIDEWIRE_APP__LISTEN", "127.0.0.1:1, unix:/a"),
        ("SIDEWIRE_CLIENT__ALLOW_ANONYMOUS", "true"),
        ("SIDEWIRE_CLIENT__ALLOWED_ORIGINS", "https://a,https://b"),
        ("SIDEWIRE_CLIENT__ROUTES", r#"[{"path": "/ws/{id}", "channel": "job.{id}", "close_on": ["done"]}]"#),
        ("SIDEWIRE_CHANNELS", r#"[{"pattern": "a.>", "store": false}]"#),
        ("SIDEWIRE_LIMITS__CONNECTIONS", "0"),
        ("SIDEWIRE_LIMITS__BODY_BYTES", "2000000"),
        ("SIDEWIRE_LOG__TTL", "30d"),
        ("SIDEWIRE_LOG__SYNC", "50ms"),
    ])
    .unwrap();
    assert_eq!(config.app.listen.len(), 2);
    assert!(config.client.allow_anonymous);
    assert_eq!(config.client.allowed_origins.len(), 2);
    assert_eq!(config.client.routes[0].channel_for("/ws/7").unwrap().as_str(), "job.7");
    assert!(!config.channels[0].store);
    assert_eq!(config.limits.connections, None);
    assert_eq!(config.limits.body_bytes, ByteSize(2_000_000));
    assert_eq!(config.log.sync, LogSync::Every(Duration::from_millis(50)));
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    assert_eq!(
        refusal("[log]\nttl = '1h'\ntll = '1h'"),
        "unknown key `log.tll` in my.toml line 3; did you mean `log.ttl`?"
    );
    assert!(
        refusal("[logs]\nttl = '1h'").contains("unknown key `logs` in my.toml line 1; did you mean `log`?")
    );
    assert!(refusal("[app]\nallow_anonymous = true").contains("did you mean `client.allow_anonymous`?"));
    assert!(refusal("[[channels]]\npatern = 'a'").contains("did you mean `channels[0].pattern`?"));
    assert!(refusal("[log]\nwhatever_that_is = 1").contains("config.toml.example lists every key"));
    assert_eq!(
        load_environment(&[("SIDEWIRE_LOG__TLL", "1h")]).unwrap_err(),
        "unknown environment variable SIDEWIRE_LOG__TLL; did you mean `SIDEWIRE_LOG__TTL`?"
    );
    assert_eq!(
        load_environment(&[("SIDEWIRE_BUS_URL", "memory:")]).unwrap_err(),
        "unknown environment variable SIDEWIRE_BUS_URL; did you mean `SIDEWIRE_BUS__URL`?"
    );
}

#[test]
fn variables_of_others_are_left_alone() {
    let config = load_environment(&[
        ("SIDEWIRE_CONFIG", "/etc/sidewire.toml"),
        ("SIDEWIRE_SERVICE_HOST", "10.0.0.1"),
        ("SIDEWIRE_SERVICE_PORT_HTTP", "7070"),
        ("SIDEWIRE_PORT", "tcp://10.0.0.1:7070"),
        ("SIDEWIRE_PORT_7070_TCP_ADDR", "10.0.0.1"),
        ("SIDEWIRE_APP_PORT", "tcp://10.0.0.1:7070"),
        ("OTHER__KEY", "x"),
    ]);
    assert_eq!(config, Ok(Config::default()));
}

#[test]
fn keys_of_later_versions_are_told_from_unknown_ones() {
    let message = refusal("[presence]\nttl = '30m'");
    assert!(message.contains("not available in this version"), "{message}");
    let message = refusal("[bus]\nurl = 'quic://:geheim@host'");
    assert!(message.contains("not available in this version") && !message.contains("geheim"), "{message}");
}

#[test]
fn paths_of_fields_are_read_or_refused_with_line_and_reason() {
    let config = load("[[channels]]\npattern = 'a'\nredact = ['password', '$.card.\"n.o\"']").unwrap();
    let shown = serde_json::json!(["password", "$.card.\"n.o\""]);
    assert_eq!(config.to_json()["channels"][0]["redact"], shown);
    assert_eq!(
        refusal("[[channels]]\npattern = 'a'\nredact = ['a', 'items[0].b']"),
        "channels[0].redact[1]: \"items[0].b\" is no path to fields: arrays are passed through; leave `[` and `]` out, or put the name in quotes (my.toml line 3)"
    );
    let many = format!("[[channels]]\npattern = 'a'\nredact = [{}]", "'x',".repeat(65));
    assert!(refusal(&many).contains("channels[0].redact: has too many paths; write at most 64"));
}

#[test]
fn grants_are_read_from_a_table_and_from_json() {
    let config = load_environment(&[
        ("SIDEWIRE_AUTH__DEFAULT", r#"{"user.{sub}.>": ["sub", "history"]}"#),
        ("SIDEWIRE_AUTH__SECRET", "geheim"),
    ])
    .unwrap();
    assert_eq!(config.to_json()["auth"]["default"], serde_json::json!({"user.{sub}.>": ["sub", "history"]}));
    assert_eq!(config.to_json()["auth"]["secret"], "***");
    assert!(!format!("{config:?}").contains("geheim"));
    let file = "[auth.anonymous]\n\"news.>\" = [\"sub\"]\n[auth]\nissuer = \"a\"";
    assert_eq!(load(file).unwrap().auth.anonymous.0[0].pattern(), "news.>");
    for (text, key) in [
        ("[auth]\nanonymous = { \"user.{sub}\" = [\"sub\"] }", "auth.anonymous"),
        ("[auth]\ndefault = { \"a..b\" = [\"sub\"] }", "auth.default"),
        ("[auth]\ndefault = { a = [\"everything\"] }", "auth.default"),
        ("[auth]\ndefault = { a = \"sub\" }", "auth.default"),
        ("[auth]\ndefault = [\"a\"]", "auth.default"),
        ("[auth]\nalgorithms = [\"none\"]", "auth.algorithms"),
        ("[auth]\njwks_url = \"http://issuer.example/keys\"", "auth.jwks_url"),
        ("[auth]\nleeway = \"1h\"", "auth.leeway"),
        ("[auth]\ncookie = \"a=b\"", "auth.cookie"),
        ("[client]\nallowed_origins = \"*\"\n[auth]\ncookie = \"a\"", "client.allowed_origins"),
        ("[client]\nallowed_origins = \"*\"\n[auth.webhook]\nurl = \"http://a/\"", "client.allowed_origins"),
        ("[auth]\nsecret = \"a\"\nsecret_file = \"b\"", "auth.secret_file"),
    ] {
        assert!(refusal(text).contains(key), "{text}: {}", refusal(text));
    }
}

#[test]
fn a_key_opens_the_client_listener_to_other_hosts() {
    let listen = "[client]\nlisten = \"0.0.0.0:7080\"\n";
    assert!(refusal(listen).contains("client.listen"));
    assert!(load(&format!("{listen}[auth]\nsecret = \"a\"")).is_ok());
    assert!(refusal(&format!("{listen}[auth]\nanonymous = {{ a = [\"sub\"] }}")).contains("client.listen"));
}

#[test]
fn all_problems_are_told_with_line_and_key() {
    let message =
        refusal("[log]\nttl = 24\nsync = 'often'\n\n[limits]\nconnections = -1\nbody_bytes = true\n");
    assert_eq!(message.lines().count(), 4, "{message}");
    assert!(message.starts_with(
        "log.ttl: \"24\" has no unit; write \"24s\", \"24m\", \"24h\" or \"24d\" (my.toml line 2)\n"
    ));
    assert!(message.contains("limits.connections: must be a whole number"), "{message}");
    assert!(message.contains("(my.toml line 7)"), "{message}");
}

#[test]
fn values_of_the_wrong_shape_are_refused() {
    for (text, words) in [
        ("log = 5", "is a section; write [log]"),
        ("[channels]\npattern = 'a'", "double brackets"),
        ("[client.routes]\npath = '/a'", "double brackets"),
        ("channels = [1]", "must be a table with the keys pattern, ttl"),
        ("[app]\nlisten = 7070", "must be a string"),
        ("[app]\nlisten = ['127.0.0.1:1', 'x']", "app.listen[1]: \"x\" is not an address"),
        ("[log]\ncompress = 'yes'", "must be true or false"),
        ("[limits]\nmessages_per_second = 5000000000", "is too large"),
        ("[log]\nttl = 2020-01-01", "must be a string"),
        ("[log\nttl = 1", "not valid TOML"),
        ("[[channels]]\npattern = 'a..b'", "channels[0].pattern"),
        ("[[channels]]\nttl = '1h'", "channels[0].pattern: is missing"),
        ("[[channels]]\npattern = 'a'\nstore = false\nttl = '1h'", "nothing is kept"),
    ] {
        let message = refusal(text);
        assert!(message.contains(words), "{text}: {message}");
    }
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    for (text, words) in [
        ("client.listen = '127.0.0.1:7070'", "127.0.0.1:7070 is taken by app.listen"),
        ("client.idle_timeout = '30s'", "write at least \"50s\""),
        ("client.heartbeat = '0s'", "client.idle_timeout: would cut off"),
        ("log.ttl = '0s'", "cannot be zero"),
        ("limits.subscriptions = 0", "at least 1"),
        (
            "client.routes = [{path = '/a/{x}', channel = 'a'}, {path = '/a/{y}', channel = 'b'}]",
            "two routes have the paths of /a/{y}",
        ),
    ] {
        let message = refusal(text);
        assert!(message.contains(words), "{text}: {message}");
    }
    assert!(load("client.heartbeat = '0s'\nclient.idle_timeout = '0s'").is_ok());
}

#[test]
fn clients_from_elsewhere_must_be_allowed() {
    let message = refusal("client.listen = '0.0.0.0:7080'");
    assert!(message.contains("set client.allow_anonymous = true"), "{message}");
    let open = load("client.listen = '0.0.0.0:7080'\nclient.allow_anonymous = true").unwrap();
    assert_eq!(open.warnings().len(), 1);
    assert!(load("client.listen = ['[::1]:7080', 'unix:/run/c.sock']").unwrap().warnings().is_empty());
    let pod = load("app.listen = '0.0.0.0:7070'\nadmin.listen = '0.0.0.0:7090'").unwrap();
    assert_eq!(pod.warnings().len(), 2);
}

#[test]
fn the_log_is_kept_where_the_platform_keeps_state() {
    let directory = |pairs: &[(&str, &str)]| load_environment(pairs).unwrap().log.dir;
    let home = ("HOME", "/home/a");
    let xdg = ("XDG_STATE_HOME", "/state");
    let systemd = ("STATE_DIRECTORY", "/var/lib/sidewire:/var/lib/other");
    assert_eq!(directory(&[]), Path::new("sidewire-data"));
    assert_eq!(directory(&[home]), Path::new("/home/a/.local/state/sidewire"));
    assert_eq!(directory(&[home, xdg]), Path::new("/state/sidewire"));
    assert_eq!(directory(&[home, xdg, systemd]), Path::new("/var/lib/sidewire"));
    assert_eq!(
        directory(&[home, ("XDG_STATE_HOME", "relative")]),
        Path::new("/home/a/.local/state/sidewire")
    );
    assert_eq!(directory(&[systemd, ("SIDEWIRE_LOG__DIR", "/data")]), Path::new("/data"));
}

#[test]
fn the_first_rule_that_fits_counts() {
    let config = load("channels = [{pattern = 'a.*', ttl = '1h'}, {pattern = '>', ttl = '2h'}]").unwrap();
    let hours = |channel: &str| {
        config.rule_for(&Channel::parse(channel).unwrap()).unwrap().ttl.unwrap().as_secs() / 3600
    };
    assert_eq!((hours("a.b"), hours("a.b.c")), (1, 2));
    assert!(Config::default().rule_for(&Channel::parse("a").unwrap()).is_none());
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let sources = Sources { file: Some("/nowhere/sidewire.toml".into()), ..Sources::default() };
    let message = Config::load(sources).unwrap_err().to_string();
    assert!(message.contains("/nowhere/sidewire.toml: cannot be read"), "{message}");
}
