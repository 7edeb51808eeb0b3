//! What the service manager is told (sd_notify(3)): ready, reloading, stopping, in words how it goes, and
//! again and again that it is alive.

use rustix::time::{ClockId, clock_gettime};
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How often the condition is reported, unless the watchdog wants to know more often.
const INTERVAL: Duration = Duration::from_secs(1);

/// The same until it was ready once: somebody waits for that.
const STARTING_INTERVAL: Duration = Duration::from_millis(100);

/// How much longer a start may take, counted from each report of a node that waits for its bus.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// All that readiness asks for is given.
    Ready,
    /// Not ready, for a reason outside this process. A restart would not help.
    Waiting,
    /// Not ready, because something in this process stands still. A restart is what helps.
    Stalled,
}

/// Who started this process and watches over it; perhaps nobody.
pub struct ServiceManager {
    channel: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    was_ready: bool,
    status: String,
}

impl ServiceManager {
    /// The one that the environment names (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub fn of_process() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && ours).map(Duration::from_micros);
        let channel = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| {
            open(&name)
                .inspect_err(|error| {
                    tracing::warn!(socket = %name.display(), %error, "the service manager cannot be told of our state");
                })
                .ok()
        });
        Self { channel, watchdog, was_ready: false, status: String::new() }
    }

    /// How soon [`Self::report`] wants to be called again; `None` if nobody listens.
    pub fn interval(&self) -> Option<Duration> {
        self.channel.as_ref()?;
        let interval = if self.was_ready { INTERVAL } else { STARTING_INTERVAL };
        // A third: a report may be lost or late, and the next one still comes in time.
        Some(self.watchdog.map_or(interval, |limit| interval.min(limit / 3)))
    }

    /// Tells how it goes. A stalled process is not reported as alive, so that the watchdog ends it.
    pub fn report(&mut self, condition: Condition, status: &str) {
        let mut message = String::new();
        if condition == Condition::Ready && !self.was_ready {
            self.was_ready = true;
            message.push_str("READY=1\n");
        }
        if condition == Condition::Waiting && !self.was_ready {
            message.push_str(&format!("EXTEND_TIMEOUT_USEC={}\n", PATIENCE.as_micros()));
        }
        if self.watchdog.is_some() && condition != Condition::Stalled {
            message.push_str("WATCHDOG=1\n");
        }
        if self.status != status {
            status.clone_into(&mut self.status);
            message.push_str(&status_line(status));
        }
        self.send(&message);
    }

    /// The configuration is being read again; [`Self::reloaded`] must follow.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}\n"));
    }

    /// The configuration was read again, or the old one stays in force: `outcome` says.
    pub fn reloaded(&mut self, outcome: &str) {
        outcome.clone_into(&mut self.status);
        self.send(&format!("READY=1\n{}", status_line(outcome)));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.send(&format!("STOPPING=1\n{}", status_line("draining")));
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.channel
            && !message.is_empty()
        {
            // A manager that is busy or gone must not hold us up; the next report is soon.
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// One line, whatever the words are: the next line would be another assignment.
fn status_line(words: &str) -> String {
    format!("STATUS={}\n", words.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(watchdog: Option<Duration>) -> (ServiceManager, UnixDatagram, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let told = UnixDatagram::bind(&path).unwrap();
        told.set_nonblocking(true).unwrap();
        let channel = Some(open(path.as_os_str()).unwrap());
        (ServiceManager { channel, watchdog, was_ready: false, status: String::new() }, told, directory)
    }

    fn last(told: &UnixDatagram) -> Option<String> {
        let mut message = [0; 4096];
        let length = told.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).unwrap())
    }

    #[test]
    fn ready_is_told_once_and_only_what_lives_is_alive() {
        let (mut manager, told, _directory) = manager(Some(Duration::from_secs(3)));
        assert_eq!(manager.interval(), Some(STARTING_INTERVAL));
        manager.report(Condition::Waiting, "the bus is away");
        let message = last(&told).unwrap();
        assert_eq!(message, "EXTEND_TIMEOUT_USEC=60000000\nWATCHDOG=1\nSTATUS=the bus is away\n");
        manager.report(Condition::Stalled, "the bus is away");
        assert_eq!(last(&told), None);
        manager.report(Condition::Ready, "ready");
        assert_eq!(last(&told).unwrap(), "READY=1\nWATCHDOG=1\nSTATUS=ready\n");
        assert_eq!(manager.interval(), Some(Duration::from_secs(1)));
        manager.report(Condition::Ready, "ready");
        assert_eq!(last(&told).unwrap(), "WATCHDOG=1\n");
        manager.report(Condition::Waiting, "two\nlines");
        assert_eq!(last(&told).unwrap(), "WATCHDOG=1\nSTATUS=two lines\n");
    }

    #[test]
    fn a_manager_that_is_gone_or_full_holds_nobody_up() {
        let (mut manager, told, directory) = manager(None);
        for round in 0..10_000 {
            manager.report(Condition::Ready, &format!("round {round}"));
        }
        drop((told, directory));
        manager.stopping();
    }

    #[test]
    fn without_a_manager_nothing_is_reported() {
        let mut nobody =
            ServiceManager { channel: None, watchdog: None, was_ready: false, status: String::new() };
        assert_eq!(nobody.interval(), None);
        nobody.report(Condition::Ready, "ready");
        assert!(open(OsStr::new("relative")).is_err());
        assert!(open(OsStr::new("@abstract")).is_ok());
    }
}
