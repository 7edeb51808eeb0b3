//! One connection through the proxy: two streams of bytes, each held up by the rules.

use super::{Flow, Rules, Towards, reset};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// Most bytes taken at a time.
const CHUNK: usize = 16 * 1024;
/// Chunks on their way; when there are more, nothing is read.
const ON_THEIR_WAY: usize = 256;

/// Bytes, and when they came.
type Chunk = (Instant, Vec<u8>);

/// One side has broken off, or the rules say that the connection is to break.
struct Broken;

pub(super) struct Pair {
    client: TcpStream,
    server: TcpStream,
    rules: watch::Sender<Rules>,
    /// How many resets there were when the client was accepted: it is cut by the next.
    resets: u64,
}

/// What the two directions of a connection tell each other.
#[derive(Default)]
struct Shared {
    is_of_kind: AtomicBool,
    loses_reply: AtomicBool,
}

impl Pair {
    pub(super) fn new(
        client: TcpStream,
        server: TcpStream,
        rules: watch::Sender<Rules>,
        resets: u64,
    ) -> Self {
        for socket in [&client, &server] {
            // Only the rules delay. A socket that refuses this has broken already, which the first read tells.
            let _ = socket.set_nodelay(true);
        }
        Self { client, server, rules, resets }
    }

    /// Forwards until both sides have ended or the connection is cut.
    pub(super) async fn run(mut self) {
        let shared = Shared::default();
        let mut watched = self.rules.subscribe();
        let is_cut = {
            let (from_client, to_client) = self.client.split();
            let (from_server, to_server) = self.server.split();
            let both = async {
                tokio::try_join!(
                    pump(from_client, to_server, Towards::Server, &self.rules, &shared),
                    pump(from_server, to_client, Towards::Client, &self.rules, &shared),
                )
            };
            tokio::select! {
                ended = both => ended.is_err(),
                _ = watched.wait_for(|rules| rules.resets != self.resets) => true,
            }
        };
        if is_cut {
            reset(&self.client);
            reset(&self.server);
        }
    }
}

async fn pump(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    towards: Towards,
    rules: &watch::Sender<Rules>,
    shared: &Shared,
) -> Result<(), Broken> {
    let (sender, receiver) = mpsc::channel(ON_THEIR_WAY);
    tokio::try_join!(
        take(from, sender, towards, rules, shared),
        give(to, receiver, towards, rules.subscribe(), shared),
    )?;
    Ok(())
}

/// Reads what one side sends.
async fn take(
    mut from: ReadHalf<'_>,
    sender: mpsc::Sender<Chunk>,
    towards: Towards,
    rules: &watch::Sender<Rules>,
    shared: &Shared,
) -> Result<(), Broken> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer).await.map_err(|_| Broken)?;
        if count == 0 {
            return Ok(());
        }
        match towards {
            Towards::Server => shared.note(&buffer[..count], rules),
            Towards::Client if shared.loses_reply.load(Ordering::Relaxed) => return Err(Broken),
            Towards::Client => {}
        }
        // The other end of the channel goes when its side was told the end: what still comes is for nobody.
        let _ = sender.send((Instant::now(), buffer[..count].to_vec())).await;
    }
}

impl Shared {
    /// Looks for the words of the rules in what the client sends.
    fn note(&self, request: &[u8], rules: &watch::Sender<Rules>) {
        let has = |word: &Vec<u8>| request.windows(word.len()).any(|bytes| bytes == word);
        if rules.borrow().kind.iter().any(has) {
            self.is_of_kind.store(true, Ordering::Relaxed);
        }
        if rules.borrow().lost_reply.as_ref().is_some_and(has)
            && rules.send_if_modified(|rules| rules.lost_reply.take().is_some())
        {
            self.loses_reply.store(true, Ordering::Relaxed);
        }
    }
}

/// Writes it to the other side, as the rules allow.
async fn give(
    mut to: WriteHalf<'_>,
    mut receiver: mpsc::Receiver<Chunk>,
    towards: Towards,
    mut watched: watch::Receiver<Rules>,
    shared: &Shared,
) -> Result<(), Broken> {
    let mut told = watched.clone();
    let half_closes = told.borrow().half_closes;
    tokio::select! {
        written = async {
            while let Some((came, bytes)) = receiver.recv().await {
                let flow = passable(&mut watched, towards, shared).await;
                sleep_until(came + flow.delay).await;
                if let Some(most) = flow.bytes_per_second {
                    sleep(Duration::from_secs_f64(bytes.len() as f64 / f64::from(most))).await;
                }
                // It may have frozen meanwhile.
                passable(&mut watched, towards, shared).await;
                to.write_all(&bytes).await.map_err(|_| Broken)?;
            }
            Ok(())
        } => written?,
        _ = told.wait_for(|rules| rules.half_closes != half_closes), if towards == Towards::Client => {}
    }
    to.shutdown().await.map_err(|_| Broken)
}

/// Waits until bytes may pass in a direction, and says how.
async fn passable(watched: &mut watch::Receiver<Rules>, towards: Towards, shared: &Shared) -> Flow {
    let flow = |rules: &Rules| rules.flow(towards, shared.is_of_kind.load(Ordering::Relaxed));
    match watched.wait_for(|rules| !flow(rules).frozen).await {
        Ok(rules) => flow(&rules),
        // The proxy is gone, and with it its rules; the connection is about to be cut.
        Err(_) => Flow::default(),
    }
}
