//! What may be done where: patterns, each with a set of rights.

use crate::event::{Channel, Pattern};
use std::fmt;
use std::str::FromStr;

/// Something that may be allowed on a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Gets what is published from now on, and what came since its cursor.
    Subscribe,
    /// Publishes.
    Publish,
    /// Reads what is kept.
    History,
    /// Sees who else is there.
    Presence,
}

impl Right {
    const ALL: [Self; 4] = [Self::Subscribe, Self::Publish, Self::History, Self::Presence];

    /// The word in a token and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "sub",
            Self::Publish => "pub",
            Self::History => "history",
            Self::Presence => "presence",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Right {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        Self::ALL
            .into_iter()
            .find(|right| right.as_str() == text)
            .ok_or_else(|| GrantError::Right(text.chars().take(32).collect()))
    }
}

/// A set of rights.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rights(u8);

impl Rights {
    /// Whether a right is among them.
    pub const fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.has(*right))
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Self(rights.into_iter().fold(0, |bits, right| bits | right.bit()))
    }
}

/// What stands for the user in a pattern.
const USER: &str = "{sub}";

/// A grant as it is written in a token or in the configuration: `{sub}` in its pattern stands for the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantTemplate {
    pattern: Box<str>,
    rights: Rights,
}

impl GrantTemplate {
    /// Reads a pattern with its rights.
    pub fn parse<'r>(pattern: &str, rights: impl IntoIterator<Item = &'r str>) -> Result<Self, GrantError> {
        let invalid = |_| GrantError::Pattern(pattern.chars().take(64).collect());
        Pattern::parse(&pattern.replace(USER, "u")).map_err(invalid)?;
        let rights = rights.into_iter().map(str::parse).collect::<Result<Rights, _>>()?;
        Ok(Self { pattern: pattern.into(), rights })
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Its rights.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// Whether it is a grant only together with a user.
    pub fn names_user(&self) -> bool {
        self.pattern.contains(USER)
    }

    /// The grant for a user. A name that is not a single token would reach further than it was meant to:
    /// `a.>` as the user of `user.{sub}`.
    pub fn fill(&self, user: Option<&str>) -> Result<Grant, GrantError> {
        let pattern = if self.names_user() {
            let user = user.ok_or(GrantError::NoUser)?;
            let token = Pattern::parse(user).is_ok() && !user.contains(['.', '*', '>', '{', '}']);
            if !token {
                return Err(GrantError::User);
            }
            Pattern::parse(&self.pattern.replace(USER, user))
        } else {
            Pattern::parse(&self.pattern)
        };
        // With a name of 200 bytes the pattern may have become too long.
        pattern.map(|pattern| Grant { pattern, rights: self.rights }).map_err(|_| GrantError::User)
    }
}

/// Why a grant cannot be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GrantError {
    /// No pattern of channels.
    Pattern(String),
    /// No right that there is.
    Right(String),
    /// `{sub}` without a user.
    NoUser,
    /// A user that is not a single token of a channel where one is needed.
    User,
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(text) => write!(f, "{text:?} is no pattern of channels"),
            Self::Right(text) => {
                write!(f, "{text:?} is no right; there are \"sub\", \"pub\", \"history\" and \"presence\"")
            }
            Self::NoUser => f.write_str("`{sub}` stands for a user, and there is none"),
            Self::User => f.write_str(
                "the user takes the place of `{sub}` in a pattern, and so must be one token of a channel: printable ASCII without space, `.`, `*`, `>`",
            ),
        }
    }
}

impl std::error::Error for GrantError {}

/// Rights on the channels of a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The channels.
    pub pattern: Pattern,
    /// The rights.
    pub rights: Rights,
}

/// Everything that somebody may do.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Permissions {
    everything: bool,
    grants: Box<[Grant]>,
}

impl Permissions {
    /// All rights on all channels.
    pub fn everything() -> Self {
        Self { everything: true, grants: Box::default() }
    }

    /// These grants and nothing else.
    pub fn new(grants: impl IntoIterator<Item = Grant>) -> Self {
        Self { everything: false, grants: grants.into_iter().collect() }
    }

    /// Whether they are all there are.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.grants.is_empty()
    }

    /// The grants; none where everything is allowed.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The patterns that have a right.
    pub fn patterns(&self, right: Right) -> impl Iterator<Item = &Pattern> {
        self.grants.iter().filter(move |grant| grant.rights.has(right)).map(|grant| &grant.pattern)
    }

    /// Whether a right is given on a channel.
    pub fn allow_channel(&self, right: Right, channel: &Channel) -> bool {
        self.everything || self.patterns(right).any(|pattern| pattern.matches(channel))
    }

    /// Whether a right is given on every channel that a pattern can match, be it by several grants together.
    pub fn allow(&self, right: Right, wanted: &Pattern) -> bool {
        if self.everything || self.patterns(right).any(|granted| covers(granted.as_str(), wanted.as_str())) {
            return true;
        }
        let Some(prefix) = wanted.as_str().strip_suffix('>') else {
            // There are always more tokens than the grants name. Only one that has a wildcard wherever
            // `wanted` has one lets all of them through, so no two grants do together what none does alone.
            return false;
        };
        // `a.>` is `a.*`, `a.*.*` and so on: each length may be let through by another grant. Beyond the
        // longest grant all lengths are alike.
        let longest = self.patterns(right).map(|granted| granted.as_str().split('.').count()).max();
        let begin = wanted.as_str().split('.').count();
        let mut of_length = prefix.to_owned();
        for _ in begin..=longest.unwrap_or(0).max(begin) + 1 {
            of_length.push('*');
            if !self.patterns(right).any(|granted| covers(granted.as_str(), &of_length)) {
                return false;
            }
            of_length.push('.');
        }
        true
    }
}

/// Whether every channel that `wanted` can match is matched by `granted`.
fn covers(granted: &str, wanted: &str) -> bool {
    let mut wanted = wanted.split('.');
    for token in granted.split('.') {
        match (token, wanted.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            (_, Some(">")) => return false,
            ("*", Some(_)) => {}
            (_, Some("*")) => return false,
            (literal, Some(asked)) if literal != asked => return false,
            _ => {}
        }
    }
    wanted.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn allowed(grants: &[&str], wanted: &str) -> bool {
        let grants =
            grants.iter().map(|text| GrantTemplate::parse(text, ["sub"]).unwrap().fill(None).unwrap());
        Permissions::new(grants).allow(Right::Subscribe, &pattern(wanted))
    }

    #[test]
    fn a_pattern_is_allowed_only_as_a_whole() {
        for (grants, wanted, expected) in [
            (&["a.b"][..], "a.b", true),
            (&["a.*"], "a.b", true),
            (&["a.*"], "a.*", true),
            (&["a.>"], "a.*.c", true),
            (&["a.>"], "a.>", true),
            (&[">"], ">", true),
            (&["a.*"], "a.>", false),
            (&["a.b"], "a.*", false),
            (&["a.>"], "a", false),
            (&["a.>"], ">", false),
            (&["a.>"], "*.b", false),
            (&["*.b"], "a.*", false),
            (&["a.*", "a.*.>"], "a.>", true),
            (&["a.*", "a.*.*", "a.*.*.>"], "a.>", true),
            (&["a.*", "a.*.*.>"], "a.>", false),
            (&["a.*", "a.b.>"], "a.>", false),
            (&[], "a", false),
        ] {
            assert_eq!(allowed(grants, wanted), expected, "{grants:?} for {wanted}");
        }
    }

    #[test]
    fn rights_are_apart() {
        let grant = GrantTemplate::parse("a.>", ["pub"]).unwrap().fill(None).unwrap();
        let permissions = Permissions::new([grant]);
        assert!(permissions.allow_channel(Right::Publish, &Channel::parse("a.b").unwrap()));
        assert!(!permissions.allow(Right::Subscribe, &pattern("a.b")));
        assert!(Permissions::everything().allow(Right::History, &pattern(">")));
    }

    #[test]
    fn a_user_takes_the_place_of_one_token_and_no_more() {
        let template = GrantTemplate::parse("user.{sub}.>", ["sub"]).unwrap();
        assert_eq!(template.fill(Some("ann")).unwrap().pattern, pattern("user.ann.>"));
        for user in ["", "a.b", "*", ">", "a b", "a*", "ä", "$a", "{sub}", "a\nb", "a\0", &"x".repeat(250)] {
            assert_eq!(template.fill(Some(user)), Err(GrantError::User), "{user:?}");
        }
        assert_eq!(template.fill(None), Err(GrantError::NoUser));
        let plain = GrantTemplate::parse("news", ["sub"]).unwrap();
        assert!(plain.fill(Some("ann@example.com")).is_ok(), "a name that is not filled in may be anything");
    }

    #[test]
    fn what_is_no_grant_is_refused() {
        for text in ["", "a..b", "a.>.b", "a b", "$sys", "{sub}..a"] {
            assert!(GrantTemplate::parse(text, ["sub"]).is_err(), "{text}");
        }
        assert!(GrantTemplate::parse("a", ["SUB"]).is_err());
    }

    fn token() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just("*")]
    }

    fn any_pattern() -> impl Strategy<Value = String> {
        (proptest::collection::vec(token(), 0..4), any::<bool>()).prop_map(|(tokens, open)| {
            let mut text = tokens.join(".");
            if open || text.is_empty() {
                text += if text.is_empty() { ">" } else { ".>" };
            }
            text
        })
    }

    proptest! {
        /// Held against every channel of up to six tokens of an alphabet with one token that no grant names.
        #[test]
        fn allowed_is_exactly_that_no_channel_is_left_out(
            grants in proptest::collection::vec(any_pattern(), 0..5),
            wanted in any_pattern(),
        ) {
            let wanted_pattern = pattern(&wanted);
            let granted: Vec<Pattern> = grants.iter().map(|text| pattern(text)).collect();
            let mut channels = vec![String::new()];
            let mut left_out = false;
            for _ in 0..6 {
                channels = channels.iter().flat_map(|begin| ["a", "b", "x"].map(|token| {
                    if begin.is_empty() { token.to_owned() } else { format!("{begin}.{token}") }
                })).collect();
                left_out |= channels.iter().map(|text| Channel::parse(text).unwrap()).any(|channel| {
                    wanted_pattern.matches(&channel) && !granted.iter().any(|grant| grant.matches(&channel))
                });
            }
            let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
            prop_assert_eq!(allowed(&grants, &wanted), !left_out);
        }
    }
}
