//! A token that the app or the operator shares with a node, in a file that others cannot read.

use ring::digest::{SHA256, digest};
use std::fmt;
use subtle::ConstantTimeEq as _;

/// A token to compare others with. Only its digest is kept, so that no dump has it.
#[derive(Clone)]
pub struct SharedToken([u8; 32]);

impl SharedToken {
    /// The token of these bytes; none of no bytes.
    pub fn new(token: &[u8]) -> Option<Self> {
        (!token.is_empty()).then(|| Self(hash(token)))
    }

    /// Whether `candidate` is the same. How long this takes tells nothing about where they differ, nor about
    /// how long the token is.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.ct_eq(&hash(candidate)).into()
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

impl fmt::Debug for SharedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_matches() {
        let token = SharedToken::new(b"a long token").unwrap();
        assert!(token.matches(b"a long token"));
        for other in [&b""[..], b"a", b"a long toke", b"a long token ", b"A long token"] {
            assert!(!token.matches(other));
        }
        assert!(SharedToken::new(b"").is_none());
    }
}
