//! `sidewire publish CHANNEL [DATA|-]`

use super::address::{Listener, NodeAddress};
use super::credential::CredentialArgs;
use super::error::CliError;
use super::http::{HttpClient, target};
use super::output;
use super::tls::TrustArgs;
use crate::event::Json;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

/// Options of `publish`.
#[derive(Args, Debug)]
pub struct PublishArgs {
    /// Where it goes
    channel: String,
    /// The data: JSON, or else text; - reads it from standard input; null without it
    #[arg(allow_hyphen_values = true)]
    data: Option<String>,
    /// Name of the event [default: message]
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Its id; to publish the same id again is a duplicate and sends nothing
    #[arg(long)]
    id: Option<String>,
    /// How long it is kept, such as 24h; 0 is live only
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// A tag; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// When it is answered: once it is safe on disk, confirmed by the bus, or accepted in memory
    #[arg(long, value_enum, default_value = "log")]
    ack: Ack,
    /// The app listener: host:port, https://host:port or unix:/path [default: as configured]
    #[arg(long, value_name = "ADDRESS")]
    app: Option<NodeAddress>,
    #[command(flatten)]
    credential: CredentialArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIDEWIRE_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Ack {
    Log,
    Bus,
    None,
}

/// Publishes and prints the node's answer.
pub(super) async fn run(args: PublishArgs) -> Result<(), CliError> {
    let data = Payload::read(args.data.as_deref())?;
    let request = PublishRequest {
        channel: &args.channel,
        event: args.event.as_deref(),
        id: args.id.as_deref(),
        ttl: args.ttl.as_deref(),
        tags: args.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        data,
    };
    let (content_type, body) = request.encode()?;
    let ack = match args.ack {
        Ack::Log => "log",
        Ack::Bus => "bus",
        Ack::None => "none",
    };
    let token = args.credential.token(&args.config, args.app.is_some(), |config| &config.app.token_file)?;
    let address = NodeAddress::resolve(args.app, &args.trust, args.config, Listener::App)?;
    let answer = HttpClient::new(address)
        .showing(token)
        .post(&target("/v1/publish", [("ack", ack)]), content_type, body)
        .await?;
    output::line(String::from_utf8_lossy(&answer.success()?).trim_end())
}

#[derive(serde::Serialize)]
struct PublishRequest<'a> {
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_ttl")]
    ttl: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<&'a str, &'a str>,
    data: Payload,
}

impl PublishRequest<'_> {
    /// JSON, or MessagePack where the data are bytes, which JSON has no place for.
    fn encode(&self) -> Result<(&'static str, Bytes), CliError> {
        let unfit = |error: &dyn std::fmt::Display| CliError::Input(format!("cannot be sent: {error}"));
        match self.data {
            Payload::Bytes(_) => {
                let body = rmp_serde::to_vec_named(self).map_err(|error| unfit(&error))?;
                Ok(("application/msgpack", body.into()))
            }
            Payload::Json(_) => {
                let body = serde_json::to_vec(self).map_err(|error| unfit(&error))?;
                Ok(("application/json", body.into()))
            }
        }
    }
}

/// A number of seconds goes as a number, anything else as the text it is.
fn as_ttl<S: Serializer>(ttl: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    match ttl.map(|text| (text, text.parse::<u64>())) {
        Some((_, Ok(seconds))) => serializer.serialize_u64(seconds),
        Some((text, Err(_))) => serializer.serialize_str(text),
        None => serializer.serialize_none(),
    }
}

enum Payload {
    Json(Json),
    Bytes(Vec<u8>),
}

impl Payload {
    fn read(typed: Option<&str>) -> Result<Self, CliError> {
        match typed {
            None => Ok(Self::Json(Json::null())),
            Some("-") => {
                let mut bytes = Vec::new();
                std::io::stdin()
                    .read_to_end(&mut bytes)
                    .map_err(|error| CliError::Input(format!("standard input: {error}")))?;
                Ok(Self::from_bytes(bytes))
            }
            Some(text) => Ok(Self::from_text(text)),
        }
    }

    fn from_bytes(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::from_text(&text),
            Err(error) => Self::Bytes(error.into_bytes()),
        }
    }

    fn from_text(text: &str) -> Self {
        Self::Json(Json::parse(text).unwrap_or_else(|_| Json::string(text)))
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(json) => {
                let raw: &RawValue = serde_json::from_str(json.as_str()).map_err(S::Error::custom)?;
                raw.serialize(serializer)
            }
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

/// Reads `NAME=VALUE`.
pub(super) fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write NAME=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(data: Payload) -> PublishRequest<'static> {
        PublishRequest { channel: "a", event: None, id: None, ttl: None, tags: BTreeMap::new(), data }
    }

    fn encoded(request: &PublishRequest<'_>) -> (&'static str, String) {
        let (content_type, body) = request.encode().unwrap();
        (content_type, String::from_utf8_lossy(&body).into_owned())
    }

    #[test]
    fn json_goes_as_it_was_typed_and_the_rest_as_text() {
        let data = |text: &str| encoded(&request(Payload::from_text(text))).1;
        assert_eq!(data("{\"a\": 1.50}"), r#"{"channel":"a","data":{"a": 1.50}}"#);
        assert_eq!(data("hello"), r#"{"channel":"a","data":"hello"}"#);
        assert_eq!(data("1e400"), r#"{"channel":"a","data":"1e400"}"#);
    }

    #[test]
    fn every_option_has_its_field() {
        let mut request = request(Payload::Json(Json::null()));
        request.event = Some("e");
        request.id = Some("i");
        request.ttl = Some("24h");
        request.tags.insert("k", "v");
        let expected = r#"{"channel":"a","event":"e","id":"i","ttl":"24h","tags":{"k":"v"},"data":null}"#;
        assert_eq!(encoded(&request), ("application/json", expected.into()));
        request.ttl = Some("0");
        assert!(encoded(&request).1.contains(r#""ttl":0,"#));
    }

    #[test]
    fn bytes_go_as_message_pack() {
        let (content_type, body) = request(Payload::from_bytes(vec![0xff, 0x00])).encode().unwrap();
        assert_eq!(content_type, "application/msgpack");
        assert_eq!(&body[..], b"\x82\xa7channel\xa1a\xa4data\xc4\x02\xff\x00");
    }

    #[test]
    fn tags_are_split_at_the_first_equals_sign() {
        assert_eq!(parse_tag("k=v=w"), Ok(("k".into(), "v=w".into())));
        assert!(parse_tag("=v").is_err());
        assert!(parse_tag("k").is_err());
    }
}
