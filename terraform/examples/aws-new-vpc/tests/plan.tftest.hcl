mock_provider "aws" {
  mock_data "aws_subnet" {
    defaults = { vpc_id = "vpc-0123456789abcdef0", availability_zone = "eu-west-1a" }
  }
  mock_data "aws_ami" {
    defaults = { id = "ami-0123456789abcdef0", architecture = "x86_64", root_device_name = "/dev/xvda" }
  }
}

run "it_applies_at_once_from_nothing" {
  override_resource {
    target = aws_vpc.this
    values = { ipv6_cidr_block = "2001:db8::/56" }
  }
  assert {
    condition     = length(output.public_addresses) == 2 && output.see_thru_until == formatdate("YYYY-MM-DD", timeadd(plantimestamp(), "336h"))
    error_message = "two zones, watching"
  }
}
