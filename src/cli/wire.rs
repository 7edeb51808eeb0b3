//! What a node sends: events and the messages around them.

use super::error::CliError;
use crate::publish::time_text;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// An event on the wire, as far as it is printed.
#[derive(Deserialize)]
pub(super) struct WireEvent<'a> {
    #[serde(borrow)]
    pub(super) channel: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) event: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
    pub(super) time: u64,
    /// An event that waits for the bus has none yet.
    pub(super) cursor: Option<String>,
}

impl WireEvent<'_> {
    /// `TIME CHANNEL EVENT DATA`.
    pub(super) fn to_line(&self) -> String {
        format!("{} {} {} {}", time_text(self.time), self.channel, self.event, self.data)
    }
}

/// A message over a WebSocket.
pub(super) enum ServerMessage<'a> {
    Subscribed(Subscribed),
    Event(WireEvent<'a>),
    Error(ErrorMessage),
    Bye(Bye),
    /// What a subscriber need not know.
    Other,
}

#[derive(Deserialize)]
pub(super) struct Subscribed {
    pub(super) cursor: Option<String>,
    pub(super) resume: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct ErrorMessage {
    pub(super) code: String,
    pub(super) message: String,
}

#[derive(Deserialize)]
pub(super) struct Bye {
    pub(super) code: u16,
    #[serde(default)]
    pub(super) reason: String,
}

impl<'a> ServerMessage<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, CliError> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
        }
        let Kind { kind } = from_json(text)?;
        Ok(match &*kind {
            "event" => Self::Event(from_json(text)?),
            "subscribed" => Self::Subscribed(from_json(text)?),
            "error" => Self::Error(from_json(text)?),
            "bye" => Self::Bye(from_json(text)?),
            _ => Self::Other,
        })
    }
}

/// Reads JSON that a node sent.
pub(super) fn from_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, CliError> {
    serde_json::from_str(text).map_err(|error| {
        CliError::Protocol(format!("the answer is not what a node sends: {error}; is it Sidewire?"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let text = r#"{"type":"event","channel":"job.1","event":"do\"ne","data":{"a": "x\ny"},"id":"i","time":1700000000123,"cursor":"c"}"#;
        let Ok(ServerMessage::Event(event)) = ServerMessage::parse(text) else { panic!("no event") };
        assert_eq!(event.to_line(), r#"2023-11-14T22:13:20.123Z job.1 do"ne {"a": "x\ny"}"#);
        assert_eq!(event.cursor.as_deref(), Some("c"));
        let far = WireEvent { time: u64::MAX, ..event };
        assert!(far.to_line().starts_with("9999-12-31T"));
    }

    #[test]
    fn messages_are_told_apart() {
        let parse = |text| ServerMessage::parse(text);
        assert!(matches!(
            parse(r#"{"type":"subscribed","id":"1","channels":["a"],"cursor":"c","resume":"ok"}"#),
            Ok(ServerMessage::Subscribed(Subscribed { cursor: Some(_), resume: Some(_) }))
        ));
        assert!(matches!(
            parse(r#"{"type":"bye","code":1001,"reason":"r","retry":true}"#),
            Ok(ServerMessage::Bye(Bye { code: 1001, .. }))
        ));
        assert!(matches!(parse(r#"{"type":"error","code":"c","message":"m"}"#), Ok(ServerMessage::Error(_))));
        assert!(matches!(
            parse(r#"{"type":"welcome","connection":"x","heartbeat":25}"#),
            Ok(ServerMessage::Other)
        ));
        assert!(parse("hello").is_err());
        assert!(parse("{}").is_err());
    }
}
