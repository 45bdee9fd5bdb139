//! Each module and example: formatted, valid, and its own tests pass.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::suite::ROOT;
use e2e::terraform::{Module, Terraform, modules};

/// A folder for what Terraform keeps, by module; outside the tree.
pub(crate) fn data(module: &str) -> PathBuf {
    let folder = e2e::python::target()
        .unwrap()
        .join("terraform/data")
        .join(module);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn check(name: &str) {
    let terraform = Terraform::with_stubs().unwrap();
    let folder = Path::new(ROOT).join("terraform").join(name);
    let data = data(name);
    terraform.run(&folder, &data, &["get"]).unwrap();
    terraform
        .run(&folder, &data, &["validate", "-no-color"])
        .unwrap();
    let output = terraform
        .run(&folder, &data, &["test", "-no-color"])
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = said
        .lines()
        .find(|line| line.starts_with("Success! "))
        .unwrap_or_default();
    assert!(
        !passed.is_empty() && !passed.contains(" 0 passed"),
        "{name} has no test: {said}"
    );
}

macro_rules! modules {
    ($($test:ident: $name:literal,)*) => {
        /// The modules that have a test of their own below.
        const CHECKED: &[&str] = &[$($name),*];
        $(
            #[test]
            fn $test() {
                check($name);
            }
        )*
    };
}

modules! {
    aws_allowlist: "aws/allowlist",
    aws_eni: "aws/eni",
    aws_observability: "aws/observability",
    aws_resolver_policy: "aws/resolver-policy",
    bundles_pack: "bundles/pack",
    example_aws_existing_vpc: "examples/aws-existing-vpc",
    example_aws_new_vpc: "examples/aws-new-vpc",
    example_gcp_existing_network: "examples/gcp-existing-network",
    example_gcp_new_network: "examples/gcp-new-network",
    gcp_allowlist: "gcp/allowlist",
    gcp_appliance: "gcp/appliance",
    gcp_ilb: "gcp/ilb",
    gcp_ntag: "gcp/ntag",
    gcp_observability: "gcp/observability",
    gcp_resolver_policy: "gcp/resolver-policy",
}

#[test]
fn every_module_and_example_is_checked() {
    let found: Vec<String> = modules()
        .unwrap()
        .into_iter()
        .map(|Module { name, .. }| name)
        .collect();
    assert_eq!(found, CHECKED);
}

#[test]
fn every_file_is_formatted() {
    let terraform = Terraform::with_stubs().unwrap();
    let folder = Path::new(ROOT).join("terraform");
    let mut command = terraform.command(&folder, &data("fmt"));
    let command = command.args(["fmt", "-check", "-recursive"]);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "run terraform fmt: {}",
        String::from_utf8_lossy(&output.stdout)
    );
}
