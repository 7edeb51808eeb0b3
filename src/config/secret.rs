//! What must not be seen: neither in `GET /v1/config` nor in a log.

use super::setting::{Setting, text};
use crate::config::node::Node;
use crate::config::problem::Problem;
use serde_json::Value as Json;
use std::fmt;

/// A password or key; empty for none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn mask(&self) -> &'static str {
        if self.is_empty() { "" } else { "***" }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mask().fmt(f)
    }
}

impl Setting for Secret {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        text(node).map(|text| Self(text.to_owned()))
    }

    fn show(&self) -> Json {
        self.mask().into()
    }
}
