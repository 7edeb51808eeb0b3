use super::*;
use crate::config::{Config, Sources};

fn bus(text: &str) -> Result<BusConfig, String> {
    Config::from_toml(&format!("[bus]\n{text}"), Sources::default())
        .map(|config| config.bus)
        .map_err(|error| error.to_string())
}

#[test]
fn the_url_has_its_default_mode() {
    for (url, mode) in [
        ("memory:", None),
        ("redis://a", Some(BusMode::Stream)),
        ("redis+cluster://a", Some(BusMode::Stream)),
        ("nats://a", Some(BusMode::JetStream)),
    ] {
        assert_eq!(bus(&format!("url = '{url}'")).unwrap().mode(), mode);
    }
    assert_eq!(bus("url = 'redis://a'\nmode = 'pubsub'").unwrap().mode(), Some(BusMode::PubSub));
    assert_eq!(bus("url = 'tls://a'\nmode = 'core'").unwrap().mode(), Some(BusMode::Core));
}

#[test]
fn what_clashes_is_refused() {
    for (text, words) in [
        ("mode = 'stream'", "bus.mode: is for a bus between nodes"),
        ("url = 'redis://a'\nmode = 'core'", "bus.mode: is none of Redis"),
        ("url = 'nats://a'\nmode = 'stream'", "bus.mode: is none of NATS"),
        ("url = 'nats://a'\nmode = 'streams'", "is no mode"),
        ("url = 'redis://a'\nchannels = ['cron*']", "bus.channels: \"cron*\" is no pattern"),
        ("url = 'redis://a'\nchannels = ['a b']", "bus.channels[0]: \"a b\" is no pattern"),
        ("url = 'redis://a'\npassword = 'x'\npassword_file = '/y'", "bus.password_file: says the same"),
        ("url = 'redis://:geheim@a'\npassword = 'x'", "bus.password: is in bus.url as well"),
        ("url = 'redis://u:geheim@a'\nuser = 'x'", "bus.user: is in bus.url as well"),
        ("url = 'redis://a'\ntoken = 'geheim'", "bus.token: is for NATS"),
        ("url = 'redis://a'\ntls_ca_file = '/ca'", "write rediss://"),
        ("url = 'rediss://a'\ntls_cert_file = '/c'", "needs bus.tls_key_file"),
        ("url = 'redis://a'\nmax_bytes = '1GiB'", "bus.max_bytes: is for JetStream"),
        ("shards = 2", "bus.shards: is for a bus between nodes"),
        ("url = 'redis://a'\nshards = 0", "bus.shards: is no number of shards; write 1 to 16"),
        ("url = 'redis://a'\nshards = 17", "bus.shards: is no number of shards; write 1 to 16"),
        ("url = 'redis://a'\nmode = 'pubsub'\nshards = 2", "plain channels are not split"),
        ("url = 'nats://a'\nshards = 2", "bus.shards: is for Redis Streams"),
        ("replicas = 0", "write 1 to 5"),
        ("namespace = 'a.b'", "is no namespace"),
        ("storage = 'tape'", "write \"file\" or \"memory\""),
        ("retention = '0s'", "cannot be zero"),
    ] {
        let message = bus(text).expect_err(text);
        assert!(message.contains(words) && !message.contains("geheim"), "{text}: {message}");
    }
    assert!(bus("url = 'redis+cluster://a,b'\nshards = 16").is_ok());
    assert!(bus("url = 'redis://a'\nmode = 'pubsub'\nchannels = ['cron*', 'user[0-9].>']").is_ok());
}

#[test]
fn secrets_are_found_wherever_they_stand_and_never_shown() {
    let given = |text: &str| Some(SecretSource::Given(Secret::new(text)));
    let config = bus("url = 'redis://u:geheim@a'").unwrap();
    assert_eq!((config.user(), config.password()), (Some("u"), given("geheim")));
    let config = bus(
        "url = 'redis+sentinel://a/m'\nuser = 'u'\npassword = 'geheim1'\nsentinel_password = 'geheim2'\n",
    )
    .unwrap();
    assert_eq!((config.user(), config.password()), (Some("u"), given("geheim1")));
    assert_eq!(config.sentinel_password(), given("geheim2"));
    let shown = format!("{} {config:?}", config.show());
    assert!(!shown.contains("geheim") && shown.contains("***"), "{shown}");
    let config = bus("url = 'nats://a'\ntoken_file = '/t'\npassword_file = '/p'").unwrap();
    assert_eq!(config.token(), Some(SecretSource::File("/t".into())));
    assert_eq!(config.password(), Some(SecretSource::File("/p".into())));
}
