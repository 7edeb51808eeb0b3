//! Patterns of channels, as Redis has them.

/// A pattern for `PSUBSCRIBE`: `*`, `?`, `[abc]`, `[^a-z]`, and `\` before what is meant as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Glob(Vec<u8>);

impl Glob {
    /// A pattern as somebody configured it, under the prefix that all channels of a namespace have. A last token
    /// `>` is what it is elsewhere in Sidewire: everything below.
    pub(super) fn new(prefix: &str, pattern: &str) -> Self {
        let pattern = match pattern.strip_suffix('>') {
            Some(rest) if rest.is_empty() || rest.ends_with('.') => format!("{rest}*"),
            _ => pattern.to_owned(),
        };
        Self(format!("{prefix}{pattern}").into_bytes())
    }

    /// The pattern as Redis takes it.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether a channel fits: in time of at most the product of both lengths.
    pub(super) fn fits(&self, channel: &[u8]) -> bool {
        let pattern = self.0.as_slice();
        let (mut at, mut from) = (0, 0);
        // Where to go on if what follows the last `*` does not fit here: one byte later.
        let mut star: Option<(usize, usize)> = None;
        loop {
            if pattern.get(at) == Some(&b'*') {
                star = Some((at + 1, from));
                at += 1;
                continue;
            }
            let byte = channel.get(from).copied();
            match (at < pattern.len(), byte) {
                (false, None) => return true,
                (true, Some(byte)) => {
                    let (fits, next) = one(pattern, at, byte);
                    if fits {
                        at = next;
                        from += 1;
                        continue;
                    }
                }
                (true | false, _) => {}
            }
            match star {
                Some((after, begin)) if begin < channel.len() => {
                    star = Some((after, begin + 1));
                    at = after;
                    from = begin + 1;
                }
                _ => return false,
            }
        }
    }
}

/// Whether one byte fits what stands at `at`, and where that ends.
fn one(pattern: &[u8], at: usize, byte: u8) -> (bool, usize) {
    match pattern[at] {
        b'?' => (true, at + 1),
        b'\\' if at + 1 < pattern.len() => (pattern[at + 1] == byte, at + 2),
        b'[' => class(pattern, at + 1, byte),
        literal => (literal == byte, at + 1),
    }
}

/// The same for what stands in brackets. A bracket that is never closed ends with the pattern, as in Redis.
fn class(pattern: &[u8], mut at: usize, byte: u8) -> (bool, usize) {
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    let mut fits = false;
    loop {
        match pattern.get(at..).unwrap_or_default() {
            [] => break,
            [b'\\', literal, ..] => {
                fits |= *literal == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [one, b'-', two, ..] => {
                fits |= (*one.min(two)..=*one.max(two)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                fits |= *literal == byte;
                at += 1;
            }
        }
    }
    (fits != negated, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_redis_has_it() {
        for (pattern, channel, fits) in [
            ("cron.*", "cron.a.b", true),
            ("cron.*", "cron.", true),
            ("cron.*", "cron", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h\\*", "h*", true),
            ("h\\*", "hx", false),
            ("[a\\]b]", "]", true),
            ("[ab", "a", true),
            ("a\\", "a\\", true),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("*a", "aaab", false),
            ("*ab", "aaab", true),
        ] {
            assert_eq!(Glob::new("", pattern).fits(channel.as_bytes()), fits, "{pattern} {channel}");
        }
    }

    #[test]
    fn our_last_token_is_everything_below() {
        assert_eq!(Glob::new("shop.", ">").as_bytes(), b"shop.*");
        assert_eq!(Glob::new("", "cron.>").as_bytes(), b"cron.*");
        assert_eq!(Glob::new("", "a>").as_bytes(), b"a>");
    }

    #[test]
    fn many_stars_take_no_longer_than_they_may() {
        let pattern = Glob::new("", &"*a".repeat(100));
        assert!(!pattern.fits("a".repeat(60).as_bytes()));
        assert!(pattern.fits("a".repeat(100).as_bytes()));
    }
}
