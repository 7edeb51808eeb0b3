//! What the documentation says of the tests.

use std::path::Path;

/// A test that is named and does not exist shows nothing.
fn check_names(document: &str, least: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join(document)).expect("the table is there");
    let named: Vec<(&str, &str)> =
        text.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")).collect();
    let is_name = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let named: Vec<_> =
        named.into_iter().filter(|(module, name)| module.split('/').all(is_name) && is_name(name)).collect();
    for (module, name) in &named {
        let found = ["tests/it", "src", "tests"].iter().any(|folder| {
            let source = std::fs::read_to_string(root.join(folder).join(format!("{module}.rs")));
            source.is_ok_and(|source| source.contains(&format!("fn {name}(")))
        });
        assert!(found, "{document} names {module}::{name}, which is no test");
    }
    assert!(named.len() > least, "only {} tests are named in {document}", named.len());
}

#[test]
fn every_test_that_the_table_of_faults_names_exists() {
    check_names("docs/faults.md", 80);
}

#[test]
fn every_test_that_the_list_of_attacks_names_exists() {
    check_names("docs/security.md", 50);
}
