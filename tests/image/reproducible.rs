//! The same sources give the same bytes.

use std::collections::BTreeSet;

use e2e::image::build;

/// Packages are the same file twice; of an image made twice, only the files named in `packer/differs.txt` differ.
#[test]
fn made_twice_only_listed_paths_differ() {
    let listed: BTreeSet<String> = include_str!("../../packer/differs.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(ToOwned::to_owned)
        .collect();
    assert!(listed.len() <= 10, "too many: {listed:?}");
    let found = match build::differences() {
        Ok(found) => found,
        Err(error) => panic!("{error:#}"),
    };
    let unexpected: Vec<&String> = found.difference(&listed).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}
