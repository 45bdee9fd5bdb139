//! What the documents say is what the modules are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use e2e::suite::ROOT;
use e2e::terraform::{modules, variables};

/// The incumbent's variables and outputs, as it publishes them for its modules of 2.20 and 2.30.
const THEIRS: [&str; 48] = [
    "public_subnets",
    "preferences",
    "tags",
    "instance_size",
    "key_pair_name",
    "user_data_base64",
    "ami_owner",
    "ami_version",
    "ami_auto_update",
    "iam_get_additional_ssm_params",
    "iam_get_additional_secrets",
    "byol",
    "ashr",
    "private_subnets",
    "connection_draining_time",
    "high_availability_mode",
    "per_region_min_instances",
    "per_region_max_instances",
    "per_az_min_instances",
    "per_az_max_instances",
    "cloudwatch_log_group_name",
    "target_network_interfaces",
    "target_gwlb_endpoints",
    "project_id",
    "subnetwork_name",
    "region",
    "zones_names",
    "only_route_tags",
    "bypass_cidrs",
    "client_cidrs",
    "labels",
    "custom_deployment_id",
    "random_deployment_id",
    "machine_type",
    "instances_per_zone",
    "mig_target_size",
    "mig_update_policy_type",
    "block-project-ssh-keys",
    "custom_service_account_email",
    "image_project",
    "image_family",
    "image_version",
    "image_auto_update",
    "opt_out_network_tag",
    "deployment_id",
    "default_preferences",
    "zonal_network_tags",
    "user_data_base64",
];

/// What stands in backquotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join("terraform").join(name)).unwrap()
}

#[test]
fn every_variable_and_output_of_the_incumbent_has_a_row_and_every_one_of_ours_in_it_exists() {
    let mut ours = BTreeSet::new();
    for module in modules().unwrap() {
        if ["aws/eni", "gcp/ilb", "gcp/ntag"].contains(&module.name.as_str()) {
            for kind in ["variable", "output"] {
                ours.extend(
                    variables(&module, kind)
                        .unwrap()
                        .into_iter()
                        .map(|it| it.name),
                );
            }
        }
    }
    let (mut theirs_said, mut ours_said) = (BTreeSet::new(), BTreeSet::new());
    for line in document("INCUMBENT.md")
        .lines()
        .filter(|line| line.starts_with("| "))
    {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, left, right, ..] = cells.as_slice() else {
            continue;
        };
        if *left == "theirs" {
            continue;
        }
        theirs_said.extend(quoted(left));
        ours_said.extend(quoted(right));
    }
    let missing: Vec<&&str> = THEIRS
        .iter()
        .filter(|name| !theirs_said.contains(**name))
        .collect();
    assert!(missing.is_empty(), "without a row: {missing:?}");
    let invented: Vec<_> = ours_said
        .iter()
        .filter(|name| !ours.contains(*name) && !name.contains('/'))
        .collect();
    assert!(
        invented.is_empty(),
        "no such variable or output: {invented:?}"
    );
    let silent: Vec<_> = ours
        .iter()
        .filter(|name| !ours_said.contains(*name))
        .collect();
    assert!(
        silent.len() <= 12,
        "of ours the table says nothing about {silent:?}"
    );
}

#[test]
fn every_module_stands_in_the_readme() {
    let readme = document("README.md");
    for module in modules().unwrap() {
        assert!(
            readme.contains(&module.name) || module.name.starts_with("examples/"),
            "{}",
            module.name
        );
    }
}

#[test]
fn the_deploy_section_is_a_part_of_the_examples() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let (_, section) = readme.split_once("## Deploy").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let examples: String = ["aws-new-vpc", "gcp-new-network"]
        .map(|name| document(&format!("examples/{name}/main.tf")))
        .concat();
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let examples = plain(&examples);
    let blocks: Vec<&str> = section.split("```").skip(1).step_by(2).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        for part in block.trim_start_matches("hcl").split("\n}\n") {
            let part = plain(part).replace(
                "\"git::https://YOUR-HOST/postern.git//terraform/",
                "\"../../",
            );
            assert!(examples.contains(&part), "not in an example: {part}");
        }
    }
}
