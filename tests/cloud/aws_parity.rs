//! The table of the incumbent's formats names tests that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Every function in the Rust files under a folder, build output left out.
fn functions(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            functions(&path, into);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.split("fn ").skip(1);
            let names = names.filter_map(|rest| rest.split('(').next());
            into.extend(names.map(ToOwned::to_owned));
        }
    }
}

#[test]
fn every_test_that_the_parity_table_names_exists() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(root.join("cloudsync/README.md")).unwrap();
    let (_, table) = readme
        .split_once("## The incumbent's formats, and the test of each")
        .unwrap();
    let mut known = BTreeSet::new();
    functions(&root, &mut known);
    let mut count = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            assert!(known.contains(test), "there is no test {test}");
            count += 1;
        }
    }
    assert!(count >= 12, "only {count} tests");
}
