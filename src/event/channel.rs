//! Channel names and the patterns that match them.

use std::borrow::Borrow;
use std::fmt;

/// Longest channel or pattern, in bytes.
const MAX_CHANNEL_BYTES: usize = 255;
/// What channels begin with that are not for callers.
const RESERVED: char = '$';
const CONTROL: &str = "$sidewire.control";

/// Where events are published: printable ASCII without space, `*` and `>`, in non-empty tokens split
/// by `.`; `$` at the start is reserved for Sidewire.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(Box<str>);

impl Channel {
    /// Reads a channel name.
    pub fn parse(text: &str) -> Result<Self, ChannelError> {
        check(text)?;
        if text.bytes().any(|byte| matches!(byte, b'*' | b'>')) {
            return Err(ChannelError::Wildcard);
        }
        Ok(Self(text.into()))
    }

    /// The channel on which nodes tell each other whom to cut off. No caller can name it, and no pattern matches it.
    pub fn control() -> Self {
        Self(CONTROL.into())
    }

    /// Reads the name of a channel that a node wrote: what callers may name, and what nodes keep for themselves.
    pub fn from_node(text: &str) -> Result<Self, ChannelError> {
        if text == CONTROL { Ok(Self::control()) } else { Self::parse(text) }
    }

    /// Whether it is one that nodes keep for themselves.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A channel, or a channel in which a whole token is `*` (one token) or the last one `>` (one or more).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Pattern {
    /// One channel.
    Exact(Channel),
    /// Every channel that fits.
    Wild(WildPattern),
}

impl Pattern {
    /// Reads a channel or a pattern.
    pub fn parse(text: &str) -> Result<Self, ChannelError> {
        check(text)?;
        let mut wild = false;
        let mut tokens = text.split('.').peekable();
        while let Some(token) = tokens.next() {
            match token {
                "*" => wild = true,
                ">" if tokens.peek().is_none() => wild = true,
                _ if token.contains(['*', '>']) => return Err(ChannelError::Wildcard),
                _ => {}
            }
        }
        Ok(if wild { Self::Wild(WildPattern(text.into())) } else { Self::Exact(Channel(text.into())) })
    }

    /// Whether `channel` fits, in time linear in its length.
    pub fn matches(&self, channel: &Channel) -> bool {
        match self {
            Self::Exact(exact) => exact == channel,
            Self::Wild(wild) => wild.matches(channel),
        }
    }

    /// The text it was read from.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(channel) => channel.as_str(),
            Self::Wild(wild) => &wild.0,
        }
    }
}

/// A pattern with at least one wildcard.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WildPattern(Box<str>);

impl WildPattern {
    /// Whether `channel` fits.
    pub fn matches(&self, channel: &Channel) -> bool {
        if channel.is_reserved() {
            return false;
        }
        let mut tokens = channel.as_str().split('.');
        for part in self.0.split('.') {
            match (part, tokens.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (literal, Some(token)) => {
                    if literal != token {
                        return false;
                    }
                }
            }
        }
        tokens.next().is_none()
    }

    /// What every matching channel begins with: the text before the first wildcard token.
    pub fn literal_prefix(&self) -> &str {
        let end = self.0.find(['*', '>']).unwrap_or(self.0.len());
        &self.0[..end]
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), ChannelError> {
    if text.is_empty() || text.len() > MAX_CHANNEL_BYTES {
        return Err(ChannelError::Length);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ChannelError::Character);
    }
    if text.starts_with(RESERVED) {
        return Err(ChannelError::Reserved);
    }
    if text.split('.').any(str::is_empty) {
        return Err(ChannelError::EmptyToken);
    }
    Ok(())
}

/// Why a text is no channel, or no pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChannelError {
    /// Empty or too long.
    Length,
    /// A byte that is not printable ASCII.
    Character,
    /// Begins with `$`.
    Reserved,
    /// Two dots in a row, or one at an end.
    EmptyToken,
    /// A wildcard where none may be.
    Wildcard,
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "a channel has 1 to 255 bytes",
            Self::Character => "a channel is printable ASCII without spaces",
            Self::Reserved => "channels that begin with `$` are reserved",
            Self::EmptyToken => "a channel's tokens, split by `.`, must not be empty",
            Self::Wildcard => {
                "`*` must be a whole token and `>` the whole last one, and only where a pattern is allowed"
            }
        })
    }
}

impl std::error::Error for ChannelError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, channel: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(&Channel::parse(channel).unwrap())
    }

    #[test]
    fn patterns_match_whole_tokens() {
        assert!(fits("a.b", "a.b"));
        assert!(fits("a.*", "a.b"));
        assert!(!fits("a.*", "a"));
        assert!(!fits("a.*", "a.b.c"));
        assert!(fits("*.b", "a.b"));
        assert!(fits("a.>", "a.b.c"));
        assert!(!fits("a.>", "a"));
        assert!(fits(">", "a"));
        assert!(fits("*.*.c", "a.b.c"));
        assert!(!fits("a.b", "a.b.c"));
        assert!(fits("*.>", "a.b"));
        assert!(!fits("*.>", "a"));
    }

    #[test]
    fn what_nodes_keep_for_themselves_is_matched_by_nothing_and_named_by_nobody() {
        let control = Channel::control();
        for pattern in [">", "*.*", "*.control", "*.>"] {
            assert!(!Pattern::parse(pattern).unwrap().matches(&control), "{pattern}");
        }
        assert_eq!(Channel::parse(control.as_str()), Err(ChannelError::Reserved));
        assert_eq!(Channel::from_node(control.as_str()), Ok(control));
        assert_eq!(Channel::from_node("$sidewire.other"), Err(ChannelError::Reserved));
    }

    #[test]
    fn bad_names_are_refused() {
        use ChannelError::*;
        for (text, error) in [
            ("", Length),
            ("a b", Character),
            ("ä", Character),
            ("a\n", Character),
            ("$sys", Reserved),
            ("a..b", EmptyToken),
            (".a", EmptyToken),
            ("a.", EmptyToken),
            ("a.*", Wildcard),
            (">", Wildcard),
        ] {
            assert_eq!(Channel::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Channel::parse(&"a".repeat(256)), Err(Length));
        assert!(Channel::parse(&"a".repeat(255)).is_ok());
        for text in ["a*", "a.b*", ">.a", "a.>.b", "**"] {
            assert_eq!(Pattern::parse(text), Err(Wildcard), "{text:?}");
        }
    }
}
