//! Keys of later versions. They are refused by name: somebody who sets one relies on what it does.

/// Keys, and sections with all that is in them.
const LATER: &[&str] = &["presence"];

/// Whether a later version has this key.
pub(super) fn is_later(key: &str) -> bool {
    LATER
        .iter()
        .any(|later| key.strip_prefix(later).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_all_its_keys_along() {
        assert!(is_later("presence"));
        assert!(is_later("presence.ttl"));
        assert!(!is_later("telemetry.audit_files"));
        assert!(!is_later("authors"));
        assert!(!is_later("bus"));
    }
}
