//! Reads that leave no buffer with the connection.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use tokio::io::{AsyncRead, ReadBuf};

/// What one read takes at most.
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Waits for bytes and hands them to `handle`, none at the end of the stream.
///
/// The buffer belongs to the thread and is lent for one read: with a buffer for each connection, idle ones
/// would cost most of a server's memory. So `handle` must take with it what it wants to keep. Dropping
/// the future before it is done loses nothing.
pub async fn read_shared<S, T>(socket: &mut S, mut handle: impl FnMut(&mut [u8]) -> T) -> io::Result<T>
where
    S: AsyncRead + Unpin,
{
    poll_fn(|context| {
        // Taken, not borrowed: a `handle` that reads from another socket finds an empty one and goes on.
        let mut memory = BUFFER.take();
        memory.resize(READ_BYTES, 0);
        // The buffer still has what others have sent; only what this read fills is shown.
        let mut buffer = ReadBuf::new(&mut memory);
        let read = Pin::new(&mut *socket).poll_read(context, &mut buffer);
        let handled = read.map_ok(|()| handle(buffer.filled_mut()));
        BUFFER.set(memory);
        handled
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn only_what_was_read_is_seen() {
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(b"a secret").await.unwrap();
        assert_eq!(read_shared(&mut near, |bytes| bytes.to_vec()).await.unwrap(), b"a secret");
        far.write_all(b"b").await.unwrap();
        assert_eq!(read_shared(&mut near, |bytes| bytes.to_vec()).await.unwrap(), b"b");
        drop(far);
        assert_eq!(read_shared(&mut near, |bytes| bytes.to_vec()).await.unwrap(), b"");
    }
}
