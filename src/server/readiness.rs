//! Whether a node is ready, and what is missing: for `/readyz` and for the service manager.

use super::node::Node;
use crate::systemd::Condition;
use std::fmt;

/// What readiness rests on. Each is `ok`, or says what is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Readiness {
    bus: String,
    outbox: &'static str,
    log: &'static str,
    drain: &'static str,
    stalled: bool,
}

impl Node {
    /// Ready means that publishes are accepted and that a probe has come back over the bus of late: proof of
    /// delivery, not of an open port.
    pub fn readiness(&self) -> Readiness {
        let limit = self.settings().probe_interval * 2;
        let age = self.since_probe();
        let overdue = age.unwrap_or_else(|| self.started.elapsed()) > limit;
        let status = self.bus.status();
        let is_connected = status.trouble.is_none();
        let bus = match (status.trouble, age) {
            (Some(trouble), _) => trouble,
            (None, None) => "no probe has come back yet".to_owned(),
            (None, Some(age)) if overdue => format!(
                "nothing comes back over the bus: the last probe did {} ms ago, though the link stands",
                age.as_millis()
            ),
            (None, Some(_)) => "ok".to_owned(),
        };
        let writable = self.health.is_writable();
        Readiness {
            bus,
            outbox: if status.outbox_takes { "ok" } else { "the outbox refuses events: see the log lines" },
            log: if writable { "ok" } else { "the log refuses events: see the log lines" },
            drain: if self.is_draining() { "shutting down" } else { "ok" },
            // The bus is there and the disk takes events, and yet a probe does not come back: one of the stages
            // between them stands still.
            stalled: overdue && writable && is_connected && !self.is_draining(),
        }
    }
}

impl Readiness {
    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.checks().iter().all(|(_, state)| *state == "ok")
    }

    /// Each check with its state.
    pub fn checks(&self) -> [(&'static str, &str); 4] {
        [("bus", &self.bus), ("outbox", self.outbox), ("log", self.log), ("drain", self.drain)]
    }

    /// What a service manager makes of it: a full disk or a bus that is away is not mended by a restart.
    pub fn condition(&self) -> Condition {
        match (self.is_ready(), self.stalled) {
            (true, _) => Condition::Ready,
            (false, true) => Condition::Stalled,
            (false, false) => Condition::Waiting,
        }
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ready() {
            return f.write_str("ready");
        }
        f.write_str("not ready")?;
        for (name, state) in self.checks().into_iter().filter(|(_, state)| *state != "ok") {
            write!(f, "; {name}: {state}")?;
        }
        Ok(())
    }
}
