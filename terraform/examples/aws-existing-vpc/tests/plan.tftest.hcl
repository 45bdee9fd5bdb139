mock_provider "aws" {
  mock_data "aws_subnet" {
    defaults = { vpc_id = "vpc-0123456789abcdef0", availability_zone = "eu-west-1a" }
  }
  mock_data "aws_ami" {
    defaults = { id = "ami-0123456789abcdef0", architecture = "x86_64", root_device_name = "/dev/xvda" }
  }
}

variables {
  zones = { eu-west-1a = { public_subnet = "subnet-a", private_route_tables = ["rtb-a"] } }
}

run "it_needs_ids_and_nothing_else" {
  assert {
    condition     = keys(output.target_network_interfaces)[0] == "eu-west-1a"
    error_message = "one zone"
  }
}

run "rolling_back_is_one_variable" {
  variables {
    rollback_nat_gateways = { eu-west-1a = "nat-0123456789abcdef0" }
  }
  assert {
    condition     = length(output.target_network_interfaces) == 1
    error_message = "the appliance stays"
  }
}
