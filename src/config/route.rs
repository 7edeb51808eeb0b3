//! Routes: URLs of the app's own choice that name a channel.

use super::node::Node;
use super::problem::Problem;
use super::setting::{Setting, TableReader};
use crate::event::{Channel, EventName, Pattern};
use percent_encoding::percent_decode_str;
use serde_json::{Value as Json, json};
use std::fmt;
use std::str::FromStr;

/// One `[[client.routes]]`: `path = "/ws/job/{id}"` serves `channel = "job.{id}"` on every transport.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    path: PathTemplate,
    channel: ChannelTemplate,
    /// Events after which a client is told that all is done, and disconnected.
    pub close_on: Vec<EventName>,
}

impl Route {
    const KEYS: [&'static str; 3] = ["path", "channel", "close_on"];

    /// The channel (or pattern) that the path of a request names; `None` if the path is another's.
    ///
    /// A `{name}` takes one segment that is one token of a channel, percent-decoded. A value with a `.` or a
    /// wildcard in it would reach channels that the route was not written for, so it does not fit.
    pub fn channel_for(&self, path: &str) -> Option<Pattern> {
        let values = self.path.captures(path)?;
        Pattern::parse(&self.channel.fill(|name| {
            values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value.as_str())
        }))
        .ok()
    }

    /// The path as it was written.
    pub fn path(&self) -> String {
        self.path.to_string()
    }

    /// Whether some path would fit both, and neither says more.
    pub(super) fn same_paths_as(&self, other: &Self) -> bool {
        self.path.0.len() == other.path.0.len()
            && self.path.0.iter().zip(&other.path.0).all(|pair| match pair {
                (Segment::Literal(one), Segment::Literal(two)) => one == two,
                (Segment::Capture(_), Segment::Capture(_)) => true,
                _ => false,
            })
    }
}

impl Setting for Route {
    const IS_TABLE: bool = true;

    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        let mut table = TableReader::new(node, "client.routes", &Self::KEYS)?;
        let path: Option<PathTemplate> = table.required("path");
        let channel: Option<ChannelTemplate> = table.required("channel");
        let close_on = table.optional("close_on").unwrap_or_default();
        if let (Some(path), Some(channel)) = (&path, &channel) {
            for name in channel.names().filter(|name| !path.names().any(|known| known == *name)) {
                table.refuse("channel", &format!("`{{{name}}}` is not in the path {path}; add it there"));
            }
        }
        table.finish(path.zip(channel).map(|(path, channel)| Self { path, channel, close_on }))
    }

    fn show(&self) -> Json {
        json!({
            "path": self.path.to_string(),
            "channel": self.channel.to_string(),
            "close_on": self.close_on.show(),
        })
    }
}

/// A path in which a whole segment may be `{name}`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct PathTemplate(Vec<Segment>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Segment {
    Literal(String),
    Capture(String),
}

impl PathTemplate {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    fn captures(&self, path: &str) -> Option<Vec<(&str, String)>> {
        let mut given = path.strip_prefix('/')?.split('/');
        let mut values = Vec::new();
        for segment in &self.0 {
            let text = given.next()?;
            match segment {
                Segment::Literal(literal) if literal == text => {}
                Segment::Literal(_) => return None,
                Segment::Capture(name) => {
                    let value = percent_decode_str(text).decode_utf8().ok()?;
                    if value.contains('.') || Channel::parse(&value).is_err() {
                        return None;
                    }
                    values.push((name.as_str(), value.into_owned()));
                }
            }
        }
        given.next().is_none().then_some(values)
    }
}

impl FromStr for PathTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let rest = text.strip_prefix('/').ok_or_else(|| TemplateError::NoSlash(text.into()))?;
        let mut segments = Vec::new();
        let mut names = Vec::new();
        for part in rest.split('/') {
            if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                let name = parse_name(name)?;
                if names.contains(&name) {
                    return Err(TemplateError::Twice(name));
                }
                names.push(name.clone());
                segments.push(Segment::Capture(name));
            } else {
                let literal =
                    |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'?' | b'#' | b'%');
                if part.is_empty() || !part.bytes().all(literal) {
                    return Err(TemplateError::Segment(part.into()));
                }
                segments.push(Segment::Literal(part.into()));
            }
        }
        // A first segment that takes anything would take `v1` too.
        match segments.first() {
            Some(Segment::Literal(first)) if first != "v1" => Ok(Self(segments)),
            _ => Err(TemplateError::Ours(text.into())),
        }
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|segment| match segment {
            Segment::Literal(text) => write!(f, "/{text}"),
            Segment::Capture(name) => write!(f, "/{{{name}}}"),
        })
    }
}

/// A channel or pattern in which `{name}` may stand for a part of the path.
#[derive(Clone, PartialEq, Eq, Debug)]
struct ChannelTemplate(Vec<Piece>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    Name(String),
}

impl ChannelTemplate {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Name(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    fn fill<'a>(&'a self, value: impl Fn(&'a str) -> &'a str) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Name(name) => value(name),
            })
            .collect()
    }
}

impl FromStr for ChannelTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| TemplateError::Unclosed(text.into()))?;
            pieces.push(Piece::Text(before.into()));
            pieces.push(Piece::Name(parse_name(name)?));
            rest = after;
        }
        pieces.push(Piece::Text(rest.into()));
        let template = Self(pieces);
        // Whether it becomes a channel does not hang on the values: each is one plain token.
        match Pattern::parse(&template.fill(|_| "x")) {
            Ok(_) => Ok(template),
            Err(error) => Err(TemplateError::Channel(format!("{text:?} is no channel: {error}"))),
        }
    }
}

impl fmt::Display for ChannelTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Name(name) => write!(f, "{{{name}}}"),
        })
    }
}

super::setting::written_as_text!(PathTemplate, ChannelTemplate);

fn parse_name(name: &str) -> Result<String, TemplateError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(TemplateError::Name(name.into()));
    }
    Ok(name.into())
}

/// Why a text is no template.
#[derive(Clone, PartialEq, Eq, Debug)]
enum TemplateError {
    NoSlash(String),
    Segment(String),
    Name(String),
    Twice(String),
    Ours(String),
    Unclosed(String),
    Channel(String),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash(path) => {
                write!(f, "{path:?} does not begin with /; write a path such as \"/ws/job/{{id}}\"")
            }
            Self::Segment(part) => write!(
                f,
                "the segment {part:?} is neither plain text nor one {{name}}; write a path such as \"/ws/job/{{id}}\""
            ),
            Self::Name(name) => {
                write!(f, "{{{name}}} is no name; write letters, digits and _ between the braces")
            }
            Self::Twice(name) => write!(f, "{{{name}}} is there twice; name each part of a path once"),
            Self::Ours(path) => {
                write!(
                    f,
                    "{path:?} could hide a path of Sidewire's own; begin with plain text other than /v1"
                )
            }
            Self::Unclosed(channel) => write!(f, "{channel:?} has a {{ without its }}"),
            Self::Channel(message) => f.write_str(message),
        }
    }
}

#[cfg(test)]
mod tests;
