//! A TCP proxy in front of a server, that does to connections what networks do to them.

#[path = "proxy/pump.rs"]
mod pump;

use super::process::free_port;
use pump::Pair;
use socket2::SockRef;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// One of the two directions of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Towards {
    Server,
    Client,
}

impl Towards {
    pub(crate) const BOTH: [Towards; 2] = [Towards::Server, Towards::Client];
}

/// How bytes flow in one direction. The default lets them pass.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Flow {
    /// Nothing passes; the connection stays open.
    pub(crate) frozen: bool,
    /// How much later everything arrives.
    pub(crate) delay: Duration,
    /// The most that passes on one connection in a second; no limit if `None`.
    pub(crate) bytes_per_second: Option<u32>,
}

/// What the proxy does to its connections, now.
#[derive(Clone, Default)]
struct Rules {
    to_server: Flow,
    to_client: Flow,
    /// Connections whose client has sent one of these words are of the kind that `kind_to_client` is for.
    kind: Vec<Vec<u8>>,
    kind_to_client: Flow,
    /// The reply to the next request with this word in it is lost, and its connection with it.
    lost_reply: Option<Vec<u8>>,
    /// How many connections were cut so far by [`Proxy::reset`].
    resets: u64,
    /// How many times the end of the stream was told to all clients.
    half_closes: u64,
}

impl Rules {
    fn flow(&self, towards: Towards, is_of_kind: bool) -> Flow {
        match towards {
            Towards::Server => self.to_server,
            Towards::Client if is_of_kind => self.kind_to_client,
            Towards::Client => self.to_client,
        }
    }
}

/// What all connections share.
#[derive(Default)]
struct Counts {
    accepted: u64,
    open: u64,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    server: SocketAddr,
    rules: watch::Sender<Rules>,
    counts: Arc<Mutex<Counts>>,
    listening: Option<JoinHandle<()>>,
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let mut proxy = Self {
            address: ([127, 0, 0, 1], free_port()).into(),
            server,
            rules: watch::Sender::new(Rules::default()),
            counts: Arc::default(),
            listening: None,
        };
        proxy.listen().await;
        proxy
    }

    /// Where it listens; the same after [`Proxy::cut`] and [`Proxy::restore`].
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.counts().accepted
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> u64 {
        self.counts().open
    }

    /// Resets every connection and refuses new ones, as a host does whose server has gone.
    pub(crate) async fn cut(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            // Once it has ended, the port is closed.
            let _ = listening.await;
        }
        self.reset();
    }

    /// Accepts connections again and lets everything pass.
    pub(crate) async fn restore(&mut self) {
        self.rules.send_modify(|rules| {
            *rules = Rules { resets: rules.resets, half_closes: rules.half_closes, ..Rules::default() };
        });
        if self.listening.is_none() {
            self.listen().await;
        }
    }

    /// Resets every connection; new ones are accepted.
    pub(crate) fn reset(&self) {
        self.rules.send_modify(|rules| rules.resets += 1);
    }

    /// Tells the end of the stream to every client, while what they send still reaches the server.
    pub(crate) fn half_close(&self) {
        self.rules.send_modify(|rules| rules.half_closes += 1);
    }

    /// Accepts connections, keeps them open, and forwards nothing.
    pub(crate) fn blackhole(&self) {
        for towards in Towards::BOTH {
            self.set(towards, Flow { frozen: true, ..Flow::default() });
        }
    }

    /// How bytes flow in one direction from now on.
    pub(crate) fn set(&self, towards: Towards, flow: Flow) {
        self.rules.send_modify(|rules| match towards {
            Towards::Server => rules.to_server = flow,
            Towards::Client => {
                rules.to_client = flow;
                rules.kind_to_client = flow;
            }
        });
    }

    /// How bytes flow from the server from now on, to clients that have sent one of `words` since they connected:
    /// `XREAD` or `PSUBSCRIBE` are what the subscribers of Redis send.
    pub(crate) fn set_for_kind(&self, words: &[&str], flow: Flow) {
        self.rules.send_modify(|rules| {
            rules.kind = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            rules.kind_to_client = flow;
        });
    }

    /// Loses the reply to the next request that has `word` in it, and resets its connection: the server has done
    /// what was asked, and nobody was told.
    pub(crate) fn lose_next_reply(&self, word: &str) {
        self.rules.send_modify(|rules| rules.lost_reply = Some(word.as_bytes().to_vec()));
    }

    /// Whether a reply is still to be lost.
    pub(crate) fn will_lose_a_reply(&self) -> bool {
        self.rules.borrow().lost_reply.is_some()
    }

    async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address)
            .await
            .unwrap_or_else(|error| panic!("the proxy's port {}: {error}", self.address));
        let (server, rules, counts) = (self.server, self.rules.clone(), Arc::clone(&self.counts));
        self.listening = Some(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                lock(&counts).accepted += 1;
                let (rules, counts) = (rules.clone(), Arc::clone(&counts));
                let resets = rules.borrow().resets;
                tokio::spawn(async move {
                    lock(&counts).open += 1;
                    match TcpStream::connect(server).await {
                        Ok(server) => Pair::new(client, server, rules, resets).run().await,
                        Err(_) => reset(&client),
                    }
                    lock(&counts).open -= 1;
                });
            }
        }));
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
        self.reset();
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().expect("no panic inside")
}

/// Makes the close of a socket a reset.
fn reset(socket: &TcpStream) {
    // A socket whose peer has gone already needs no reset.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
