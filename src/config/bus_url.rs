//! Which bus carries events between nodes.

use super::setting::written_as_text;
use crate::secret::Secret;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::str::FromStr;

/// The address of the bus. Shown, its password is `***`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BusUrl {
    /// `memory:`: none; this node is alone.
    Memory,
    /// `redis://`, `rediss://` and their kin.
    Redis(RedisUrl),
    /// `nats://` or `tls://`.
    Nats(NatsUrl),
}

/// The address of a Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisUrl {
    /// How its servers stand to each other.
    pub topology: RedisTopology,
    /// Whether connections are encrypted (`rediss`).
    pub tls: bool,
    /// One server; or the Sentinels; or some nodes of the cluster.
    pub hosts: Vec<HostPort>,
    /// Who we are there.
    pub login: Login,
    /// The number of the database.
    pub database: u32,
}

/// How the servers of a Redis stand to each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RedisTopology {
    /// One server.
    Single,
    /// Sentinels know which server is the master.
    Sentinel {
        /// The name they know it by.
        master: String,
    },
    /// Redis Cluster.
    Cluster,
}

/// The address of a NATS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatsUrl {
    /// Whether connections must be encrypted (`tls`).
    pub tls: bool,
    /// Some servers of it.
    pub hosts: Vec<HostPort>,
    /// Who we are there.
    pub login: Login,
}

/// User and password of a URL.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Login {
    /// The user, unescaped.
    pub user: Option<String>,
    /// The password, unescaped.
    pub password: Option<Secret>,
}

/// A server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HostPort {
    /// Name or IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const NATS_PORT: u16 = 4222;
/// More servers than anybody lists; each may cost a connect.
const MAX_HOSTS: usize = 64;

impl FromStr for BusUrl {
    type Err = BusUrlError;

    fn from_str(text: &str) -> Result<Self, BusUrlError> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        let unknown = || BusUrlError::Unknown(without_password(text));
        let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
        let parsed = match scheme {
            "redis" | "rediss" => redis(rest, Kind::Single),
            "redis+sentinel" | "rediss+sentinel" => redis(rest, Kind::Sentinel),
            "redis+cluster" | "rediss+cluster" => redis(rest, Kind::Cluster),
            "nats" | "tls" => nats(rest),
            "quic" => return Err(BusUrlError::Later(without_password(text))),
            _ => return Err(unknown()),
        };
        let mut url = parsed.map_err(|reason| BusUrlError::Bad { url: without_password(text), reason })?;
        match &mut url {
            Self::Redis(redis) => redis.tls = scheme.starts_with("rediss"),
            Self::Nats(nats) => nats.tls = scheme == "tls",
            Self::Memory => {}
        }
        Ok(url)
    }
}

enum Kind {
    Single,
    Sentinel,
    Cluster,
}

fn redis(rest: &str, kind: Kind) -> Result<BusUrl, &'static str> {
    let parts = Parts::of(rest)?;
    let mut path = parts.path.into_iter();
    let (topology, port) = match kind {
        Kind::Single => (RedisTopology::Single, REDIS_PORT),
        Kind::Sentinel => {
            let master =
                path.next().ok_or("needs the name of the master after the hosts, such as /mymaster")?;
            (RedisTopology::Sentinel { master }, SENTINEL_PORT)
        }
        Kind::Cluster => (RedisTopology::Cluster, REDIS_PORT),
    };
    let database = match path.next() {
        None => 0,
        Some(number) => {
            number.parse().map_err(|_| "has a path that is no number of a database, such as /0")?
        }
    };
    if path.next().is_some() {
        return Err("goes on after the number of the database");
    }
    let hosts = hosts(parts.hosts, port)?;
    match topology {
        RedisTopology::Single if hosts.len() > 1 => {
            Err("has several hosts; write redis+sentinel:// or redis+cluster://, or one host")
        }
        RedisTopology::Cluster if database != 0 => Err("names a database; a cluster has only 0"),
        _ => Ok(BusUrl::Redis(RedisUrl { topology, tls: false, hosts, login: parts.login, database })),
    }
}

fn nats(rest: &str) -> Result<BusUrl, &'static str> {
    let parts = Parts::of(rest)?;
    if !parts.path.is_empty() {
        return Err("has a path; a NATS URL ends after the hosts");
    }
    let hosts = hosts(parts.hosts, NATS_PORT)?;
    Ok(BusUrl::Nats(NatsUrl { tls: false, hosts, login: parts.login }))
}

/// What stands after `://`.
struct Parts<'a> {
    login: Login,
    hosts: &'a str,
    path: Vec<String>,
}

impl<'a> Parts<'a> {
    fn of(rest: &'a str) -> Result<Self, &'static str> {
        // The last `@`, as a password that is not escaped may hold one, or a slash.
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (read_login(login)?, rest),
            None => (Login::default(), rest),
        };
        if rest.contains(['?', '#']) {
            return Err("has parameters, which it does not take; the keys of [bus] set what is to be set");
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/').split('/').filter(|_| !path.is_empty());
        Ok(Self { login, hosts, path: path.map(unescape).collect::<Result<_, _>>()? })
    }
}

fn read_login(text: &str) -> Result<Login, &'static str> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, unescape(password)?),
        None => (text, String::new()),
    };
    Ok(Login {
        user: Some(unescape(user)?).filter(|user| !user.is_empty()),
        password: Some(password).filter(|password| !password.is_empty()).map(Secret::new),
    })
}

fn unescape(text: &str) -> Result<String, &'static str> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| "is not UTF-8 where it is escaped")?;
    Ok(text.into_owned())
}

fn hosts(text: &str, usual_port: u16) -> Result<Vec<HostPort>, &'static str> {
    let hosts: Vec<HostPort> =
        text.split(',').map(|host| read_host(host, usual_port)).collect::<Result<_, _>>()?;
    if hosts.len() > MAX_HOSTS { Err("has more than 64 hosts; write some of them") } else { Ok(hosts) }
}

fn read_host(text: &str, usual_port: u16) -> Result<HostPort, &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("has a [ without its ]")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "has no IPv6 address between [ and ]")?;
            match port {
                "" => (host, None),
                _ => (host, Some(port.strip_prefix(':').ok_or("goes on after ] without a :")?)),
            }
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(named) {
        return Err("has no host, or one that is no name; write it as scheme://host:port");
    }
    let port = match port {
        None => usual_port,
        Some(port) => match port.parse() {
            Ok(port) if port != 0 => port,
            _ => return Err("has a port that is not between 1 and 65535"),
        },
    };
    Ok(HostPort { host: host.to_owned(), port })
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Redis(redis) => {
                let (kind, master) = match &redis.topology {
                    RedisTopology::Single => ("", None),
                    RedisTopology::Sentinel { master } => ("+sentinel", Some(master)),
                    RedisTopology::Cluster => ("+cluster", None),
                };
                write!(f, "redis{}{kind}://", if redis.tls { "s" } else { "" })?;
                show_servers(f, &redis.login, &redis.hosts)?;
                if let Some(master) = master {
                    write!(f, "/{master}")?;
                }
                if redis.database == 0 { Ok(()) } else { write!(f, "/{}", redis.database) }
            }
            Self::Nats(nats) => {
                f.write_str(if nats.tls { "tls://" } else { "nats://" })?;
                show_servers(f, &nats.login, &nats.hosts)
            }
        }
    }
}

fn show_servers(f: &mut fmt::Formatter<'_>, login: &Login, hosts: &[HostPort]) -> fmt::Result {
    // The user may be a token, as NATS has it; so all before the hosts is hidden.
    if *login != Login::default() {
        f.write_str("***@")?;
    }
    for (index, host) in hosts.iter().enumerate() {
        write!(f, "{}{host}", if index == 0 { "" } else { "," })?;
    }
    Ok(())
}

/// Why a URL names no bus. The texts have no password in them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BusUrlError {
    /// A bus of later versions.
    Later(String),
    /// No bus at all.
    Unknown(String),
    /// A bus, but something of its address is wrong.
    Bad {
        /// The URL.
        url: String,
        /// What is wrong, and what to write.
        reason: &'static str,
    },
}

impl fmt::Display for BusUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later(url) => write!(
                f,
                "{url:?} is not available in this version ({}); write a redis:// or nats:// URL, or \"memory:\" to run this node alone",
                env!("CARGO_PKG_VERSION")
            ),
            Self::Unknown(url) => write!(
                f,
                "{url:?} is not the URL of a bus; write \"memory:\", \"redis://host:6379\" or \"nats://host:4222\""
            ),
            Self::Bad { url, reason } => write!(f, "{url:?} {reason}"),
        }
    }
}

impl std::error::Error for BusUrlError {}

written_as_text!(BusUrl);

/// A URL as it may be shown: what stands before `@` is `***`.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme_end), Some(at)) if scheme_end + 3 <= at => {
            format!("{}***{}", &url[..scheme_end + 3], &url[at..])
        }
        (_, Some(at)) => format!("***{}", &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> BusUrl {
        url.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn every_kind_of_bus_is_read_and_shown() {
        for (url, shown) in [
            ("memory:", "memory:"),
            ("redis://a", "redis://a:6379"),
            ("redis://a:1/", "redis://a:1"),
            ("rediss://user:geheim@a:1/3", "rediss://***@a:1/3"),
            ("redis://[::1]:7", "redis://[::1]:7"),
            ("redis+sentinel://a,b:2/mymaster", "redis+sentinel://a:26379,b:2/mymaster"),
            ("rediss+sentinel://:geheim@a/mymaster/1", "rediss+sentinel://***@a:26379/mymaster/1"),
            ("redis+cluster://a:1,b:2,c:3", "redis+cluster://a:1,b:2,c:3"),
            ("nats://token@a,b:9", "nats://***@a:4222,b:9"),
            ("tls://a", "tls://a:4222"),
        ] {
            assert_eq!(parsed(url).to_string(), shown);
        }
    }

    #[test]
    fn login_is_unescaped_and_not_shown() {
        let BusUrl::Redis(redis) = parsed("redis://us%40er:ge/he@i%3am@a:1/2") else { panic!() };
        assert_eq!(redis.login.user.as_deref(), Some("us@er"));
        assert_eq!(redis.login.password.as_ref().unwrap().expose(), "ge/he@i:m");
        assert_eq!((redis.database, redis.hosts[0].port), (2, 1));
        assert!(!format!("{redis:?}").contains("ge/he"));
        assert_eq!(parsed("nats://:@a"), parsed("nats://a"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (url, words) in [
            ("redis://", "no host"),
            ("redis://a,b", "several hosts"),
            ("redis://a/x", "no number of a database"),
            ("redis://a/0/1", "goes on"),
            ("redis://a?ssl=1", "parameters"),
            ("redis://a:0", "port"),
            ("redis://a:b", "port"),
            ("redis://[a]", "IPv6"),
            ("redis+sentinel://a", "name of the master"),
            ("redis+cluster://a/1", "only 0"),
            ("nats://a/b", "path"),
            ("nats://a,", "no host"),
            ("quic://a", "not available in this version"),
        ] {
            let message = url.parse::<BusUrl>().unwrap_err().to_string();
            assert!(message.contains(words) && message.contains(url), "{message}");
        }
        for url in ["", "memory", "memory:x", "http://a", "redis", "redis:a"] {
            assert_eq!(url.parse::<BusUrl>(), Err(BusUrlError::Unknown(url.into())));
        }
    }

    #[test]
    fn passwords_are_not_told() {
        for url in [
            "redis://user:geheim@host:6379/x",
            "redis://:gehe@im@host?",
            "x:geheim@host",
            "redis:/u:geheim@h",
            "quic://u:geheim@h",
            "geheim@://x",
        ] {
            let message = url.parse::<BusUrl>().unwrap_err().to_string();
            assert!(!message.contains("gehe") && message.contains("***@"), "{message}");
        }
    }
}
