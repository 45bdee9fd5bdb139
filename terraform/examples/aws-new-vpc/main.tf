# A new VPC over two zones with everything: appliances, an allowlist for a workload, a resolver policy, alarms.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.50, < 7"
    }
  }
}

variable "region" {
  description = "Region of everything."
  type        = string
  default     = "eu-west-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is such as eu-west-1."
  }
}

provider "aws" {
  region = var.region
}

locals {
  zones = { "${var.region}a" = 0, "${var.region}b" = 1 }
}

resource "aws_vpc" "this" {
  cidr_block                       = "10.10.0.0/16"
  enable_dns_hostnames             = true
  assign_generated_ipv6_cidr_block = true
  tags                             = { Name = "postern-example" }
}

# Nobody is in the VPC's own default group.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_subnet" "public" {
  for_each = local.zones

  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(aws_vpc.this.cidr_block, 8, each.value)
  ipv6_cidr_block   = cidrsubnet(aws_vpc.this.ipv6_cidr_block, 8, each.value)
}

resource "aws_subnet" "private" {
  for_each = local.zones

  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(aws_vpc.this.cidr_block, 4, each.value + 1)
  ipv6_cidr_block   = cidrsubnet(aws_vpc.this.ipv6_cidr_block, 8, each.value + 16)
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this.id
  }
  route {
    ipv6_cidr_block = "::/0"
    gateway_id      = aws_internet_gateway.this.id
  }
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

# One a zone, without a default route: the module makes it.
resource "aws_route_table" "private" {
  for_each = local.zones

  vpc_id = aws_vpc.this.id
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[each.key].id
}

module "postern" {
  source = "../../aws/eni"

  public_subnets = { for zone, subnet in aws_subnet.public : zone => subnet.id }
  route_tables   = { for zone, table in aws_route_table.private : zone => [table.id] }
  ipv6           = true
}

# Attach its security group to the workload.
module "web" {
  source = "../../aws/allowlist"

  vpc_id  = aws_vpc.this.id
  name    = "web"
  region  = var.region
  tls     = ["api.github.com", "*.example.org"]
  bundles = ["aws-ssm", "amazon-linux"]
  ipv6    = true
}

# What the route cannot see: queries to the VPC resolver. With many groups, names come from `postern-cloudsync once --print-names`.
module "resolver" {
  source = "../../aws/resolver-policy"

  vpc_ids = { this = aws_vpc.this.id }
  names   = module.web.names
}

module "observability" {
  source = "../../aws/observability"

  log_group_name          = module.postern.cloudwatch_log_group_name
  autoscaling_group_names = module.postern.autoscaling_group_names
}

output "public_addresses" {
  description = "Addresses that servers see, by zone."
  value       = module.postern.public_addresses
}

output "see_thru_until" {
  description = "Last day on which everything passes and is logged."
  value       = module.postern.see_thru_until
}
