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
        // The disk may be slow; what waits for it in vain may not.
        let (waits, disk_hangs) = match self.health.awaited() {
            Some((waited, disk_hangs)) if waited > limit => (true, disk_hangs),
            _ => (false, false),
        };
        Readiness {
            bus,
            outbox: if status.outbox_takes { "ok" } else { "the outbox refuses events: see the log lines" },
            log: match (writable, waits, disk_hangs) {
                (false, ..) => "the log refuses events: see the log lines",
                (true, true, true) => "the disk does not confirm what is written: publishes are answered 503",
                (true, true, false) => {
                    "what is written is not confirmed, though the disk is not busy with it"
                }
                (true, false, _) => "ok",
            },
            drain: if self.is_draining() { "shutting down" } else { "ok" },
            // The bus is there and the disk takes events, and yet a probe does not come back, or nobody is told that
            // the disk has them: one of the stages between them stands still.
            stalled: (overdue && is_connected || waits && !disk_hangs) && writable && !self.is_draining(),
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
