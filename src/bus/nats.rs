//! NATS as the bus: [`JetStream`], which keeps events in one order, and [`Core`], plain subjects for apps that
//! speak NATS themselves.
//!
//! # What is on JetStream
//!
//! One stream for each namespace, `SIDEWIRE_<namespace>`, with two sets of subjects:
//!
//! | subject | what |
//! | --- | --- |
//! | `sidewire.<namespace>.ev.<channel>` | events; the tokens of a channel are tokens of the subject |
//! | `sidewire.<namespace>.sys` | probes, and notes that a new epoch began |
//!
//! The fields of [`envelope`](super::envelope) are the headers `Sidewire-Id`, `Sidewire-Channel` and so on, the
//! payload is as the publisher gave it. A position is the sequence of the stream. `Nats-Msg-Id` is
//! `<origin>-<seq>`, so what is sent again within the stream's window of duplicates is stored once.
//!
//! Which log it is, its epoch, stands in the metadata of the stream (`sidewire-epoch`): a stream that is deleted
//! and made anew has another.

mod ack;
mod core;
mod headers;
mod jetstream;
mod link;
mod options;
mod publisher;
mod stream;
mod subjects;
mod survey;
mod tail;

pub use self::core::{Core, CoreSender, CoreTail};
pub use jetstream::JetStream;
pub use options::{NatsAddress, NatsIdentity, NatsOptions};
pub use publisher::Publisher;
pub use stream::{Kept, Storage};
pub use survey::survey;
pub use tail::StreamTail;
