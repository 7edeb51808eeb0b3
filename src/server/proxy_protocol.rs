//! The PROXY protocol, versions 1 and 2: the first bytes of a connection, by which a proxy that passes bytes on says
//! where they come from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest line of version 1, with its end.
const MAX_LINE_BYTES: usize = 107;
/// Longest rest of version 2 that is taken: addresses and a few extensions.
const MAX_REST_BYTES: usize = 1024;
/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the header, and not a byte more. The address is none where the proxy speaks for itself (health checks).
pub(super) async fn read<S: AsyncRead + Unpin>(socket: &mut S) -> io::Result<Option<IpAddr>> {
    match socket.read_u8().await? {
        b'P' => read_line(socket).await,
        b'\r' => read_binary(socket).await,
        _ => Err(broken("it does not begin with a PROXY header")),
    }
}

async fn read_line<S: AsyncRead + Unpin>(socket: &mut S) -> io::Result<Option<IpAddr>> {
    let mut line = vec![b'P'];
    while !line.ends_with(b"\r\n") {
        if line.len() >= MAX_LINE_BYTES {
            return Err(broken("its PROXY line is too long"));
        }
        line.push(socket.read_u8().await?);
    }
    let line = std::str::from_utf8(&line).map_err(|_| broken("its PROXY line is not ASCII"))?;
    let mut words = line.trim_end().split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("PROXY"), Some("UNKNOWN"), _) => Ok(None),
        (Some("PROXY"), Some("TCP4"), Some(source)) => {
            source.parse::<Ipv4Addr>().map(|ip| Some(ip.into())).map_err(|_| broken("its address is none"))
        }
        (Some("PROXY"), Some("TCP6"), Some(source)) => source
            .parse::<Ipv6Addr>()
            .map(|ip| Some(IpAddr::from(ip).to_canonical()))
            .map_err(|_| broken("its address is none")),
        _ => Err(broken("its PROXY line is not as it must be")),
    }
}

async fn read_binary<S: AsyncRead + Unpin>(socket: &mut S) -> io::Result<Option<IpAddr>> {
    let mut head = [0; 16];
    head[0] = b'\r';
    socket.read_exact(&mut head[1..]).await?;
    let (signature, fields) = head.split_at(SIGNATURE.len());
    let length = usize::from(u16::from_be_bytes([fields[2], fields[3]]));
    if signature != SIGNATURE || fields[0] >> 4 != 2 || length > MAX_REST_BYTES {
        return Err(broken("its PROXY header is not of version 2"));
    }
    let mut rest = vec![0; length];
    socket.read_exact(&mut rest).await?;
    let nowhere = || broken("its PROXY header has no address of the internet");
    // The command (0 speaks for itself), then the family.
    match (fields[0] & 0x0f, fields[1] >> 4) {
        (0, _) | (1, 0) => Ok(None),
        (1, 1) => {
            let source = rest.first_chunk::<4>().ok_or_else(nowhere)?;
            Ok(Some(Ipv4Addr::from(*source).into()))
        }
        (1, 2) => {
            let source = rest.first_chunk::<16>().ok_or_else(nowhere)?;
            Ok(Some(IpAddr::from(Ipv6Addr::from(*source)).to_canonical()))
        }
        _ => Err(nowhere()),
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn source(mut bytes: &[u8]) -> Result<(Option<String>, usize), io::ErrorKind> {
        let ip = read(&mut bytes).await.map_err(|error| error.kind())?;
        Ok((ip.map(|ip| ip.to_string()), bytes.len()))
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend((rest.len() as u16).to_be_bytes());
        header.extend(rest);
        header
    }

    #[tokio::test]
    async fn both_versions_tell_the_source_and_leave_the_rest() {
        let rest = b"GET /";
        for (header, expected) in [
            (b"PROXY TCP4 1.2.3.4 10.0.0.1 56324 443\r\n".to_vec(), Some("1.2.3.4")),
            (b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n".to_vec(), Some("2001:db8::1")),
            (b"PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n".to_vec(), Some("1.2.3.4")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (binary(1, 0x11, &[1, 2, 3, 4, 10, 0, 0, 1, 1, 1, 2, 2]), Some("1.2.3.4")),
            (binary(1, 0x21, &[[0; 15].as_slice(), &[1], &[0; 20], b"more"].concat()), Some("::1")),
            (binary(0, 0, &[]), None),
        ] {
            let all = [&header, &rest[..]].concat();
            assert_eq!(source(&all).await, Ok((expected.map(str::to_owned), rest.len())), "{header:?}");
            assert!(source(&header[..header.len() - 1]).await.is_err(), "{header:?}");
        }
        for wrong in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXY TCP4 1.2.3 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY\r\n".to_vec(),
            vec![b'P'; 200],
            binary(1, 0x11, &[1, 2]),
            binary(1, 0x31, &[0; 216]),
            binary(1, 0x11, &[0; 2000]),
            b"\r\n\r\n\0\r\nQUIT\r\x21\x11\0\0".to_vec(),
        ] {
            assert_eq!(source(&wrong).await, Err(io::ErrorKind::InvalidData), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, header in any::<bool>()) {
            let bytes = if header { [&SIGNATURE[..], &bytes].concat() } else { bytes };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(source(&bytes));
        }
    }
}
