//! Where a client really is, when proxies stand in between. Anybody can write `X-Forwarded-For`; what counts is what
//! a trusted proxy added to it.

use crate::config::Network;
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use std::net::IpAddr;

/// The address of a client that comes from `peer`: the last one in `X-Forwarded-For` that is no trusted proxy.
pub(super) fn client_ip(peer: Option<IpAddr>, headers: &HeaderMap, proxies: &[Network]) -> Option<IpAddr> {
    let trusted = |ip: IpAddr| proxies.iter().any(|network| network.contains(ip));
    // Only a proxy on this host can open a Unix socket of the client listener.
    if proxies.is_empty() || peer.is_some_and(|ip| !trusted(ip)) {
        return peer;
    }
    let mut client = peer;
    let lines: Vec<&HeaderValue> = headers.get_all("x-forwarded-for").iter().collect();
    for line in lines.iter().rev() {
        for entry in line.to_str().unwrap_or_default().rsplit(',') {
            // What is no address cannot be told from the client's own words: nothing before it counts.
            let Some(ip) = address(entry.trim()) else { return client };
            client = Some(ip);
            if !trusted(ip) {
                return client;
            }
        }
    }
    client
}

/// `1.2.3.4`, `1.2.3.4:5`, `2001:db8::1` or `[2001:db8::1]:5`.
fn address(entry: &str) -> Option<IpAddr> {
    if let Ok(ip) = entry.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    if let Ok(socket) = entry.parse::<std::net::SocketAddr>() {
        return Some(socket.ip().to_canonical());
    }
    let bare = entry.strip_prefix('[')?.strip_suffix(']')?;
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let proxies = ["10.0.0.0/8", "127.0.0.1"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let peer = (!peer.is_empty()).then(|| peer.parse().unwrap());
        client_ip(peer, &headers, &proxies).map_or("none".into(), |ip| ip.to_string())
    }

    #[test]
    fn only_what_trusted_proxies_wrote_counts() {
        for (peer, lines, expected) in [
            ("8.8.8.8", &["1.2.3.4"][..], "8.8.8.8"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6", "1.2.3.4, 10.0.0.2"], "1.2.3.4"),
            ("10.0.0.1", &["10.9.9.9, 10.0.0.2"], "10.9.9.9"),
            ("127.0.0.1", &["1.2.3.4, unknown, 10.0.0.2"], "10.0.0.2"),
            ("127.0.0.1", &["[2001:db8::1]:99"], "2001:db8::1"),
            ("127.0.0.1", &["::ffff:1.2.3.4"], "1.2.3.4"),
            ("", &["1.2.3.4"], "1.2.3.4"),
            ("127.0.0.1", &[""], "127.0.0.1"),
        ] {
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
        assert_eq!(client_ip(None, &HeaderMap::new(), &[]), None);
    }
}
