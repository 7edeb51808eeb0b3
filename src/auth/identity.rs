//! Who somebody is, and until when.

use super::permissions::Permissions;
use crate::event::UnixMs;

/// Somebody whose right to be here was checked.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    /// The user; none for who is let in without a token, or by one without `sub`.
    pub user: Option<Box<str>>,
    /// The id of the token (`jti`), by which it can be revoked.
    pub token_id: Option<Box<str>>,
    /// From when on it counts no longer; none for ever.
    pub expires: Option<UnixMs>,
    /// What is allowed.
    pub permissions: Permissions,
}

impl Identity {
    /// Whether it has ceased to count at `now`.
    pub fn is_expired(&self, now: UnixMs) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}
