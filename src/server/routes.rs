//! The app's own URLs: a path whose parts name a channel.

use crate::event::{Channel, EventName};
use std::sync::Arc;

/// One `[[client.routes]]`.
#[derive(Clone, Debug)]
pub struct Route {
    /// The parts of the path.
    pub path: Vec<Part>,
    /// The parts of the channel, in order, to be joined without a separator.
    pub channel: Vec<Part>,
    /// The events after which the connection is closed.
    pub close_on: Arc<[EventName]>,
}

/// A piece of text, or a name whose value comes from the path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// As it stands.
    Literal(String),
    /// `{name}`.
    Name(String),
}

impl Route {
    /// The channel that a path names; `None` when the path is not this route's or names no valid channel.
    pub fn channel(&self, path: &str) -> Option<Channel> {
        let mut segments = path.strip_prefix('/')?.split('/');
        let mut values = Vec::new();
        for part in &self.path {
            let segment = segments.next()?;
            match part {
                Part::Literal(literal) if literal == segment => {}
                Part::Literal(_) => return None,
                Part::Name(name) => {
                    let value = percent_encoding::percent_decode_str(segment).decode_utf8().ok()?;
                    values.push((name, value));
                }
            }
        }
        if segments.next().is_some() {
            return None;
        }
        let mut channel = String::new();
        for part in &self.channel {
            match part {
                Part::Literal(literal) => channel.push_str(literal),
                Part::Name(name) => channel.push_str(&values.iter().find(|(known, _)| *known == name)?.1),
            }
        }
        Channel::parse(&channel).ok()
    }
}
