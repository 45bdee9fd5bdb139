//! The table of the incumbent's formats has every one of them, and names tests that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What the incumbent's public documentation has: annotations, keys of its preferences document, fields of its logs.
const PUBLISHED: [&str; 32] = [
    "annotation `discriminat:tls:`",
    "annotation `discriminat:ssh:`",
    "annotation `discriminat:see-thru:`",
    "preference `wildcard_exposure`",
    "preference `flow_log_verbosity`",
    "preference `see_thru`",
    "preference `x509_crls`",
    "flow `cat`",
    "flow `outcome`",
    "flow `dhost`",
    "flow `src`",
    "flow `spt`",
    "flow `dst`",
    "flow `dpt`",
    "flow `proto`",
    "flow `proto_v`",
    "flow `reason`",
    "flow `instance`",
    "flow `pqc`",
    "flow `http_code`",
    "flow `http_method`",
    "flow `http_path`",
    "flow `http_user_agent`",
    "flow `see_thru_exerted`",
    "flow `see_thru_gid`",
    "flow `see_thru_days_remaining`",
    "config `cat`",
    "config `outcome`",
    "config `client`",
    "config `gid`",
    "config `addr`",
    "config `proto`",
];

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
    let mut first_tests = BTreeSet::new();
    let mut rows = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in &tests {
            assert!(known.contains(*test), "there is no test {test}");
        }
        assert!(first_tests.insert(tests[0]), "not its own test: {row}");
        rows.extend(
            row.split(" | ")
                .next()
                .and_then(|what| what.strip_prefix("| ")),
        );
    }
    for published in PUBLISHED {
        assert!(rows.contains(published), "no row for {published}");
    }
}
