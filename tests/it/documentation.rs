//! What the documentation says of the tests.

use std::path::Path;

/// A test that is named and does not exist shows nothing.
#[test]
fn every_test_that_the_table_of_faults_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/faults.md")).expect("the table is there");
    let named: Vec<(&str, &str)> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once("::"))
        .filter(|named| *named != ("MODULE", "NAME"))
        .collect();
    for (module, name) in &named {
        let found = ["tests/it", "src", "tests"].iter().any(|folder| {
            let source = std::fs::read_to_string(root.join(folder).join(format!("{module}.rs")));
            source.is_ok_and(|source| source.contains(&format!("fn {name}(")))
        });
        assert!(found, "docs/faults.md names {module}::{name}, which is no test");
    }
    assert!(named.len() > 80, "only {} tests are named", named.len());
}
