//! The closing handshake (RFC 6455 section 7.1).

use super::{Decoder, read_shared};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Sends `close`, the last frame of this connection, and sees its end through: the client's own close is
/// awaited unless `decoder` has seen it, or can trust nothing any more; then the server ends its side
/// first, so that the client is not the one left with the TIME_WAIT.
///
/// What the client still sends is read and thrown away. A socket closed with bytes unread makes the kernel
/// answer with a reset, which can overtake the close frame: the client would never learn why.
///
/// All of it takes `within` at most. The peer may be gone already, so there is no error to report.
pub async fn finish<S>(socket: &mut S, decoder: &mut Decoder, close: &[u8], within: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = async {
        socket.write_all(close).await?;
        socket.flush().await?;
        while !decoder.is_over() {
            if read_shared(socket, |bytes| skip(decoder, bytes)).await? == 0 {
                return Ok(());
            }
        }
        socket.shutdown().await?;
        while read_shared(socket, |bytes| bytes.len()).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(within, handshake).await;
}

/// Looks for the close among what the client had under way, and says how much that was.
fn skip(decoder: &mut Decoder, mut input: &mut [u8]) -> usize {
    let read = input.len();
    while let Ok(Some(_)) = decoder.next(&mut input) {}
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::{Limits, close_frame, close_reply};
    use tokio::io::{AsyncReadExt, duplex};

    const LONG: Duration = Duration::from_secs(60);

    fn decoder() -> Decoder {
        Decoder::new(Limits { message_bytes: 100 })
    }

    #[tokio::test]
    async fn the_server_ends_its_side_only_after_the_clients_close() {
        let (mut near, mut far) = duplex(1024);
        let server =
            tokio::spawn(
                async move { finish(&mut near, &mut decoder(), &close_frame(1001, ""), LONG).await },
            );
        let mut read = [0; 4];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(read, *close_frame(1001, ""));
        far.write_all(b"\x81\x81\0\0\0\0x\x88\x82\0\0\0\0\x03\xe9").await.unwrap();
        assert_eq!(far.read(&mut read).await.unwrap(), 0);
        assert!(!server.is_finished(), "it waits for the client to end its side too");
        drop(far);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn after_a_broken_rule_no_close_is_awaited() {
        let (mut near, mut far) = duplex(1024);
        let mut decoder = decoder();
        let mut unmasked = *b"\x81\x01x";
        assert!(decoder.next(&mut &mut unmasked[..]).is_err());
        let server =
            tokio::spawn(
                async move { finish(&mut near, &mut decoder, &close_reply(Some(1002)), LONG).await },
            );
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, *close_reply(Some(1002)));
        drop(far);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_neither_reads_nor_answers_is_left() {
        let (mut near, _far) = duplex(1);
        finish(&mut near, &mut decoder(), &close_frame(1001, ""), Duration::from_millis(10)).await;
    }
}
