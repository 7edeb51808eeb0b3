//! The service manager: the sockets that it opened for us, and what it is told of our state.
//!
//! Both are protocols of systemd that others speak too, and both are silent when nobody asks: without
//! `LISTEN_FDS` nothing is taken over, without `NOTIFY_SOCKET` nothing is told.

mod activation;
mod notify;

pub use activation::{ActivationError, PassedSocket, PassedSockets, take_passed_sockets};
pub use notify::{Condition, ServiceManager};
