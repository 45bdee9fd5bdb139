//! What ships, held against what the image tier tries: run by `cargo suite --long --only image`, which makes all of it first
//! ([`e2e::image::shipped`]) and takes an hour and more.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops with the reason"
)]

mod arm64;

use e2e::image::{build, shipped};

/// Boots Packer's image, on a processor that does a billion instructions a second.
#[test]
fn ready_within_six_seconds_of_processor_time() {
    let said = shipped::measure(&["--at-most", "6"], &shipped::packers_image().unwrap()).unwrap();
    println!("{said}");
}

/// From two folders, with two target folders, nothing built before.
#[test]
fn packages_built_twice_from_two_folders_are_the_same_bytes() {
    let folder = shipped::folder().unwrap();
    let (first, second) = (folder.join("packages"), folder.join("again"));
    let differ = build::different_files(&first, &second).unwrap();
    assert!(differ.is_empty(), "{differ:?} differ");
    assert_eq!(std::fs::read_dir(second).unwrap().count(), 2);
}
