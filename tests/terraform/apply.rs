//! The AWS modules for real: the provider of 2021 applies and destroys them against moto.
//!
//! That provider does not know three things of today's: `domain` of an Elastic IP, `insecure_value` of a parameter, and rules
//! as resources of their own. The first two are put in its words in a copy; the allowlist and the resolver policy need newer
//! resources, and moto has no saved queries, so these three are applied by nobody here. moto also keeps a launch template's
//! own tags among those it gives to instances, so that the template, and with it its group, would differ in every plan: the
//! copy has none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::cloud::moto::{self, Moto};
use e2e::suite::ROOT;
use e2e::terraform::Terraform;

use crate::modules::data;

/// What is replaced in the copy: file, today's words, the words of 2021.
const WORDS_OF_2021: [(&str, &str, &str); 4] = [
    (
        "terraform/aws/eni/main.tf",
        "  domain = \"vpc\"\n",
        "  vpc = true\n",
    ),
    (
        "terraform/aws/eni/policy.tf",
        "  insecure_value = ",
        "  value = ",
    ),
    (
        "terraform/aws/observability/queries.tf",
        "  for_each = local.queries\n",
        "  for_each = {}\n",
    ),
    (
        "terraform/aws/eni/main.tf",
        "  ebs_optimized          = true\n  tags                   = local.tags\n",
        "  ebs_optimized          = true\n",
    ),
];

const ROOT_MODULE: &str = r#"
variable "endpoint" {}
variable "rollback" { default = false }

provider "aws" {
  region                      = "eu-west-1"
  access_key                  = "test"
  secret_key                  = "test"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  endpoints {
    ec2            = var.endpoint
    iam            = var.endpoint
    autoscaling    = var.endpoint
    ssm            = var.endpoint
    cloudwatch     = var.endpoint
    cloudwatchlogs = var.endpoint
    sts            = var.endpoint
  }
}

locals { zones = ["eu-west-1a", "eu-west-1b"] }

resource "aws_vpc" "this" { cidr_block = "10.0.0.0/16" }
resource "aws_internet_gateway" "this" { vpc_id = aws_vpc.this.id }
resource "aws_subnet" "public" {
  count             = 2
  vpc_id            = aws_vpc.this.id
  cidr_block        = cidrsubnet("10.0.0.0/16", 8, count.index)
  availability_zone = local.zones[count.index]
}
resource "aws_route_table" "private" {
  count  = 2
  vpc_id = aws_vpc.this.id
}
resource "aws_eip" "nat" { vpc = true }
resource "aws_nat_gateway" "old" {
  allocation_id = aws_eip.nat.id
  subnet_id     = aws_subnet.public[0].id
}

module "postern" {
  source                = "../terraform/aws/eni"
  public_subnets        = { for index, zone in local.zones : zone => aws_subnet.public[index].id }
  route_tables          = { for index, zone in local.zones : zone => [aws_route_table.private[index].id] }
  rollback_nat_gateways = var.rollback ? { eu-west-1a = aws_nat_gateway.old.id } : {}
  ami_id                = "ami-03cf127a"
  ami_owners            = ["801119661308"]
}

module "observability" {
  source                  = "../terraform/aws/observability"
  log_group_name          = module.postern.cloudwatch_log_group_name
  autoscaling_group_names = module.postern.autoscaling_group_names
}
"#;

/// A copy of what the modules need, with the words of 2021, and a root module beside it.
fn copy(to: &Path) {
    for folder in ["terraform", "cloudsync"] {
        fs::create_dir_all(to.join(folder)).unwrap();
    }
    for (from, into) in [
        ("terraform/aws", "terraform"),
        ("cloudsync/packaging", "cloudsync"),
    ] {
        let status = Command::new("cp")
            .arg("-r")
            .args([Path::new(ROOT).join(from), to.join(into)])
            .status()
            .unwrap();
        assert!(status.success());
    }
    for (file, today, then) in WORDS_OF_2021 {
        let path = to.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(today), "{file} has no `{today}`");
        fs::write(&path, text.replace(today, then)).unwrap();
    }
    let root = to.join("root");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("main.tf"), ROOT_MODULE).unwrap();
}

/// What a plan is about to do.
fn changed(said: &str) -> Vec<&str> {
    let lines = said.lines().filter_map(|line| line.strip_prefix("  # "));
    lines
        .filter(|line| line.contains(" will be ") || line.contains(" must be "))
        .collect()
}

/// What the account holds.
fn account(endpoint: &str) -> BTreeSet<String> {
    let output = Command::new(moto::environment().unwrap().join("bin/python"))
        .arg(Path::new(ROOT).join("tests/harness/terraform/account.py"))
        .arg(endpoint)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn aws_modules_apply_roll_back_and_destroy_and_leave_the_account_as_it_was() {
    let terraform = Terraform::with_aws_2021().unwrap();
    let moto = Moto::start().unwrap();
    let endpoint = format!("http://{}", moto.address());
    let work = tempfile::tempdir().unwrap();
    copy(work.path());
    let (root, data) = (work.path().join("root"), data("apply"));
    let variable = format!("-var=endpoint={endpoint}");
    let run = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["-no-color", "-input=false", &variable]);
        let output = terraform.run(&root, &data, &all).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let before = account(&endpoint);

    terraform.run(&root, &data, &["get"]).unwrap();
    let said = run(&["apply", "-auto-approve"]);
    assert!(said.contains("Apply complete!"), "{said}");
    let applied = account(&endpoint);
    for kind in [
        "interface ",
        "template ",
        "scaling postern-eu-west-1a 1 1",
        "parameter postern",
        "logs postern 365",
    ] {
        assert!(
            applied.iter().any(|line| line.starts_with(kind)),
            "{kind}: {applied:#?}"
        );
    }
    // Nothing has drifted, and rolling back is one route changed in place.
    let said = run(&["apply", "-auto-approve", "-var=rollback=true"]);
    assert_eq!(
        changed(&said),
        ["module.postern.aws_route.ipv4[\"eu-west-1a/0\"] will be updated in-place"],
        "{said}"
    );

    let said = run(&["destroy", "-auto-approve"]);
    assert!(said.contains("Destroy complete!"), "{said}");
    let after = account(&endpoint);
    let left: Vec<_> = after.symmetric_difference(&before).collect();
    assert!(left.is_empty(), "{left:#?}");
}
