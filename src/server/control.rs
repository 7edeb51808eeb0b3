//! Cutting clients off and revoking tokens: for the app that asks here, and for other nodes of the bus.

use super::close::CloseReason;
use super::node::Node;
use super::registry::{Registry, Whom};
use crate::audit::{Action, Audit, Entry};
use crate::auth::{Authority, Revocation, Revocations, RevokeError, jitter};
use crate::bus::Outcome;
use crate::control::{self, Control, Controlled, DISCONNECTS_AT_ONCE, Disconnect, REVOCATIONS_AT_ONCE};
use crate::event::UnixMs;
use crate::metrics::Metrics;
use crate::publish::unix_ms;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How much clocks of nodes may differ. A client that came later than this after a disconnect was asked for came
/// back, and stays: a node that reads the disconnect late does not cut it off a second time.
const CLOCK_SKEW: UnixMs = 5_000;
/// How long, and how many, disconnects are kept for nodes that were out of reach.
const REMEMBERED_FOR: UnixMs = 3_600_000;
const MOST_REMEMBERED: usize = 1_000;
/// How long a node waits before it answers another one, so that not all say the same at once.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Between two attempts to tell the others, while the bus and the outbox take nothing; up to as long again.
const PAUSE: Duration = Duration::from_secs(1);

/// Closes connections and revokes tokens on this node.
pub struct Controls {
    registry: Arc<Registry>,
    revocations: Arc<Revocations>,
    audit: Arc<Audit>,
    metrics: Arc<Metrics>,
    /// Who says whom the app lets in; another one after a reload.
    authority: Mutex<Option<Arc<Authority>>>,
    exchange: Mutex<Exchange>,
    due: Notify,
}

/// What this node owes to the others, and they to it.
#[derive(Default)]
struct Exchange {
    /// Others are to be asked for what this node may have missed.
    asks: bool,
    /// Somebody asked: what others have told since.
    told: Option<Told>,
    /// The newest disconnects, for who asks: a bus that keeps nothing does not bring them a second time.
    recent: VecDeque<Disconnect>,
}

#[derive(Default)]
struct Told {
    tokens: HashSet<Box<str>>,
    disconnects: HashSet<Disconnect>,
}

impl Exchange {
    /// Keeps a disconnect for a while.
    fn remember(&mut self, disconnect: &Disconnect, now: UnixMs) {
        self.recent.retain(|known| known.at.saturating_add(REMEMBERED_FOR) > now && known != disconnect);
        if self.recent.len() >= MOST_REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(disconnect.clone());
    }
}

impl Controls {
    /// Those of a node.
    pub fn new(
        registry: Arc<Registry>,
        revocations: Arc<Revocations>,
        audit: Arc<Audit>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            revocations,
            audit,
            metrics,
            authority: Mutex::default(),
            exchange: Mutex::default(),
            due: Notify::new(),
        })
    }

    /// Clients are let in by this authority from now on.
    pub(super) fn set_authority(&self, authority: Option<Arc<Authority>>) {
        *lock(&self.authority) = authority;
    }

    /// Closes connections for the app: what other nodes are to be told, and how many those were here.
    pub(super) fn disconnect(&self, whom: control::Whom) -> (Disconnect, usize) {
        self.metrics.control("app", "disconnect");
        let disconnect = Disconnect { whom, at: unix_ms() };
        self.exchange().remember(&disconnect, disconnect.at);
        let closed = self.close(&disconnect.whom, UnixMs::MAX);
        self.note_disconnected(&disconnect.whom, closed);
        (disconnect, closed)
    }

    /// Revokes a token for the app, and closes what came with it. First the one and then the other: a client that
    /// connects in between is refused, or looks again once it is in the registry. Waits for the disk.
    pub(super) fn revoke(&self, revocation: &Revocation) -> Result<usize, RevokeError> {
        self.metrics.control("app", "revoke");
        let revoked = self.revocations.revoke(revocation, unix_ms());
        if matches!(revoked, Err(RevokeError::TooMany)) {
            return revoked.map(|()| 0);
        }
        // Whether it is kept or not, it counts now.
        let closed = self.close_with(revocation);
        revoked.map(|()| closed)
    }

    fn close(&self, whom: &control::Whom, opened_by: UnixMs) -> usize {
        match whom {
            control::Whom::Connection(id) => usize::from(self.registry.disconnect(id.as_str())),
            control::Whom::User(user) => {
                // First, so that nobody comes back by what the app said before.
                if let Some(authority) = &*lock(&self.authority) {
                    authority.forget_sessions(user.as_str());
                }
                self.registry.disconnect_all(Whom::User(user.as_str()), CloseReason::Disconnected, opened_by)
            }
        }
    }

    fn close_with(&self, revocation: &Revocation) -> usize {
        let whom = Whom::Token(revocation.token_id());
        let closed = self.registry.disconnect_all(whom, CloseReason::Unauthorized, UnixMs::MAX);
        self.audit.note(&Entry { count: Some(closed as u64), ..Entry::new(Action::Revoked) });
        closed
    }

    fn note_disconnected(&self, whom: &control::Whom, closed: usize) {
        let (user, connection) = match whom {
            control::Whom::User(user) => (Some(user.as_str()), None),
            control::Whom::Connection(id) => (None, Some(id.as_str())),
        };
        let count = Some(closed as u64);
        self.audit.note(&Entry { user, connection, count, ..Entry::new(Action::Disconnected) });
    }

    fn learn(&self, told: Vec<Revocation>) {
        if let Some(known) = &mut self.exchange().told {
            known.tokens.extend(told.iter().map(|revocation| revocation.token_id().into()));
        }
        let mut fresh = Vec::new();
        if let Err(error) = self.revocations.learn(told, unix_ms(), &mut fresh) {
            match error {
                RevokeError::TooMany => tracing::error!(
                    "another node revokes more tokens than this one keeps: sign new ones with another key"
                ),
                RevokeError::NotKept(error) => tracing::error!(
                    %error,
                    "revocations of another node hold until this one is started again: the disk does not take them"
                ),
            }
        }
        for revocation in &fresh {
            self.close_with(revocation);
        }
    }

    /// What the other nodes are to be told now, after a moment for others that would say the same.
    async fn next_words(&self) -> Vec<Control> {
        loop {
            let (asks, owes) = {
                let exchange = self.exchange();
                (exchange.asks, exchange.told.is_some())
            };
            if asks {
                self.exchange().asks = false;
                return vec![Control::Ask];
            }
            if owes {
                tokio::time::sleep(jitter(ANSWER_WITHIN)).await;
                return self.untold();
            }
            self.due.notified().await;
        }
    }

    /// What somebody asked for and nobody else has told.
    fn untold(&self) -> Vec<Control> {
        let (told, mut disconnects) = {
            let mut exchange = self.exchange();
            (exchange.told.take().unwrap_or_default(), Vec::from(exchange.recent.clone()))
        };
        disconnects.retain(|disconnect| !told.disconnects.contains(disconnect));
        let mut revocations = self.revocations.all(unix_ms());
        revocations.retain(|revocation| !told.tokens.contains(revocation.token_id()));
        let revokes = revocations.chunks(REVOCATIONS_AT_ONCE).map(|some| Control::Revoke(some.to_vec()));
        let cuts = disconnects.chunks(DISCONNECTS_AT_ONCE).map(|some| Control::Disconnect(some.to_vec()));
        revokes.chain(cuts).collect()
    }

    /// Cuts off whom another node has cut off.
    fn follow(&self, disconnect: &Disconnect) {
        {
            let mut exchange = self.exchange();
            exchange.remember(disconnect, unix_ms());
            if let Some(told) = &mut exchange.told {
                told.disconnects.insert(disconnect.clone());
            }
        }
        let closed = self.close(&disconnect.whom, disconnect.at.saturating_add(CLOCK_SKEW));
        if closed > 0 {
            self.note_disconnected(&disconnect.whom, closed);
        }
    }

    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        lock(&self.exchange)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Controlled for Controls {
    fn apply(&self, control: Control) {
        match control {
            Control::Disconnect(told) => {
                self.metrics.control("bus", "disconnect");
                for disconnect in &told {
                    self.follow(disconnect);
                }
            }
            Control::Revoke(told) => {
                self.metrics.control("bus", "revoke");
                self.learn(told);
            }
            Control::Ask => {
                self.metrics.control("bus", "ask");
                self.exchange().told.get_or_insert_default();
                self.due.notify_one();
            }
        }
    }

    fn note_missed(&self) {
        self.exchange().asks = true;
        self.due.notify_one();
    }
}

/// Asks other nodes which tokens are revoked when this one may have missed some, and answers them.
pub async fn keep_exchanging(node: Arc<Node>) {
    loop {
        for word in node.controls.next_words().await {
            while !is_told(&node, &word).await {
                tokio::time::sleep(PAUSE + jitter(PAUSE)).await;
            }
        }
    }
}

async fn is_told(node: &Node, word: &Control) -> bool {
    matches!(
        node.publisher.tell_nodes(word).await,
        Ok(Outcome::Published(_) | Outcome::Confirmed | Outcome::Queued)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Identity;

    fn controls() -> Arc<Controls> {
        Controls::new(Registry::new("n".into()), Arc::default(), Arc::default(), Arc::default())
    }

    fn revocation(id: &str) -> Revocation {
        Revocation::new(id, UnixMs::MAX).unwrap()
    }

    #[test]
    fn who_came_back_is_not_cut_off_again_by_an_old_word() {
        let controls = controls();
        let registration = controls.registry.register();
        registration
            .handle()
            .identify(Arc::new(Identity { user: Some("ann".into()), ..Identity::default() }));
        let whom = control::Whom::User(control::Name::parse("ann").unwrap());
        let word = |at| Control::Disconnect(vec![Disconnect { whom: whom.clone(), at }]);
        controls.apply(word(unix_ms() - 60_000));
        assert!(!registration.handle().is_closed());
        controls.apply(word(unix_ms()));
        assert!(registration.handle().is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_nobody_else_has_told_is_answered() {
        let controls = controls();
        for number in 0..REVOCATIONS_AT_ONCE + 2 {
            controls.revoke(&revocation(&number.to_string())).unwrap();
        }
        let whom = |name: usize| control::Whom::User(control::Name::parse(&name.to_string()).unwrap());
        for number in 0..MOST_REMEMBERED + 2 {
            controls.disconnect(whom(number));
        }
        let newest = Disconnect { whom: whom(0), at: unix_ms() };
        controls.apply(Control::Ask);
        controls.apply(Control::Revoke(vec![revocation("0"), revocation("1"), revocation("new")]));
        controls.apply(Control::Disconnect(vec![newest.clone()]));
        let (mut tokens, mut cuts) = (Vec::new(), Vec::new());
        for word in controls.next_words().await {
            match word {
                Control::Revoke(told) => tokens.extend(told),
                Control::Disconnect(told) => cuts.extend(told),
                Control::Ask => panic!("nothing was missed"),
            }
        }
        assert_eq!(tokens.len(), REVOCATIONS_AT_ONCE);
        assert!(!tokens.contains(&revocation("0")) && !tokens.contains(&revocation("new")));
        assert!(cuts.len() == MOST_REMEMBERED - 1 && !cuts.contains(&newest));
        controls.note_missed();
        assert_eq!(controls.next_words().await, [Control::Ask]);
    }
}
