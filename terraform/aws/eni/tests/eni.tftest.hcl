mock_provider "aws" {
  mock_data "aws_subnet" {
    defaults = { vpc_id = "vpc-0123456789abcdef0", availability_zone = "eu-west-1a" }
  }
  mock_data "aws_ami" {
    defaults = { id = "ami-0123456789abcdef0", architecture = "x86_64", root_device_name = "/dev/xvda" }
  }
}

variables {
  public_subnets = { eu-west-1a = "subnet-a", eu-west-1b = "subnet-b" }
  route_tables   = { eu-west-1a = ["rtb-a", "rtb-a2"], eu-west-1b = ["rtb-b"] }
}

run "one_argument_is_enough_and_it_begins_by_watching" {
  variables {
    route_tables = {}
  }
  assert {
    condition     = output.see_thru_until == formatdate("YYYY-MM-DD", timeadd(plantimestamp(), "336h"))
    error_message = "14 days of see-thru"
  }
  assert {
    condition     = jsondecode(aws_ssm_parameter.preferences.insecure_value)["%default"].see_thru == output.see_thru_until && aws_ssm_parameter.preferences.name == "postern"
    error_message = aws_ssm_parameter.preferences.insecure_value
  }
  assert {
    condition     = length(aws_route.ipv4) == 0
    error_message = "routes are made where they are asked for"
  }
}

run "an_interface_outlives_its_instance_and_there_is_exactly_one_instance" {
  assert {
    condition     = alltrue([for interface in aws_network_interface.appliance : interface.source_dest_check == false])
    error_message = "it forwards"
  }
  assert {
    condition = alltrue([for zone, template in aws_launch_template.appliance :
      one(template.network_interfaces).network_interface_id == aws_network_interface.appliance[zone].id && one(template.network_interfaces).device_index == 0 && tostring(one(template.network_interfaces).delete_on_termination) == "false"
    ])
    error_message = "device 0, and not deleted with the instance"
  }
  assert {
    condition     = alltrue([for group in aws_autoscaling_group.appliance : group.min_size == 1 && group.max_size == 1 && group.desired_capacity == 1 && one(one(group.instance_refresh).preferences).min_healthy_percentage == 0])
    error_message = "1/1/1, and a refresh ends the old one first"
  }
  assert {
    condition     = alltrue([for group in aws_autoscaling_group.appliance : one(group.initial_lifecycle_hook).lifecycle_transition == "autoscaling:EC2_INSTANCE_LAUNCHING" && one(group.initial_lifecycle_hook).default_result == "ABANDON"])
    error_message = "a boot that never reports is abandoned"
  }
  # The appliance completes the hook of its own group, so it has to know both names.
  assert {
    condition = alltrue([for zone, group in aws_autoscaling_group.appliance :
      strcontains(base64decode(aws_launch_template.appliance[zone].user_data), "autoscaling_group = \"${group.name}\"") &&
      strcontains(base64decode(aws_launch_template.appliance[zone].user_data), "launch_hook = \"${one(group.initial_lifecycle_hook).name}\"")
    ])
    error_message = base64decode(aws_launch_template.appliance["eu-west-1a"].user_data)
  }
  assert {
    condition     = alltrue([for zone, association in aws_eip_association.appliance : association.network_interface_id == aws_network_interface.appliance[zone].id && association.allow_reassociation == false])
    error_message = "the address stays on the interface"
  }
}

run "the_group_is_open_both_ways_so_that_ec2_does_not_track" {
  assert {
    condition     = one(aws_security_group.appliance.ingress).protocol == "-1" && tolist(one(aws_security_group.appliance.ingress).cidr_blocks)[0] == "0.0.0.0/0" && tolist(one(aws_security_group.appliance.egress).ipv6_cidr_blocks)[0] == "::/0"
    error_message = "anything narrower is tracked"
  }
}

run "metadata_is_v2_and_one_hop_and_disks_are_encrypted" {
  assert {
    condition     = alltrue([for template in aws_launch_template.appliance : one(template.metadata_options).http_tokens == "required" && one(template.metadata_options).http_put_response_hop_limit == 1])
    error_message = "IMDSv2"
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.appliance : tostring(one(one(template.block_device_mappings).ebs).encrypted) == "true"])
    error_message = "encrypted"
  }
}

run "routes_lead_to_the_zones_own_appliance" {
  assert {
    condition     = aws_route.ipv4["eu-west-1a/1"].network_interface_id == aws_network_interface.appliance["eu-west-1a"].id && aws_route.ipv4["eu-west-1b/0"].network_interface_id == aws_network_interface.appliance["eu-west-1b"].id && length(aws_route.ipv4) == 3
    error_message = "each zone its own"
  }
}

run "rollback_switches_the_same_routes_to_the_nat_gateway" {
  variables {
    rollback_nat_gateways = { eu-west-1a = "nat-0123456789abcdef0" }
  }
  assert {
    condition     = aws_route.ipv4["eu-west-1a/0"].nat_gateway_id == "nat-0123456789abcdef0" && aws_route.ipv4["eu-west-1a/0"].network_interface_id == null && aws_route.ipv4["eu-west-1b/0"].nat_gateway_id == null
    error_message = "one zone is rolled back, the other is not"
  }
}

run "ipv6_has_addresses_and_routes" {
  variables {
    ipv6 = true
  }
  assert {
    condition     = aws_route.ipv6["eu-west-1b/0"].destination_ipv6_cidr_block == "::/0" && aws_network_interface.appliance["eu-west-1a"].ipv6_address_count == 1
    error_message = "both families"
  }
}

run "bypasses_take_their_own_way_in_every_table" {
  command = plan
  variables {
    bypass_routes = [{ cidr = "10.0.0.0/8", transit_gateway_id = "tgw-0123" }, { cidr = "2001:db8::/32", gateway_id = "igw-0123" }]
  }
  assert {
    condition     = length(aws_route.bypass) == 6 && aws_route.bypass["eu-west-1a/0 2001:db8::/32"].destination_ipv6_cidr_block == "2001:db8::/32" && aws_route.bypass["eu-west-1a/0 10.0.0.0/8"].transit_gateway_id == "tgw-0123"
    error_message = "two bypasses in three tables"
  }
}

run "enforcing_at_once_is_one_word" {
  variables {
    enforce_now = true
    preferences = { ech = "allow_outer", internal_zones = ["corp.example"] }
  }
  assert {
    condition     = aws_ssm_parameter.preferences.insecure_value == jsonencode({ "%default" = { ech = "allow_outer", internal_zones = ["corp.example"], see_thru = null } })
    error_message = aws_ssm_parameter.preferences.insecure_value
  }
}

run "a_deployment_has_names_of_its_own" {
  variables {
    deployment = "prod"
  }
  assert {
    condition     = aws_ssm_parameter.preferences.name == "postern_prod" && aws_autoscaling_group.appliance["eu-west-1a"].name == "postern-prod-eu-west-1a"
    error_message = "names"
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.appliance["eu-west-1a"].user_data), "deployment = \"prod\"")
    error_message = base64decode(aws_launch_template.appliance["eu-west-1a"].user_data)
  }
}

run "addresses_of_yours_are_kept" {
  variables {
    static_addresses = { eu-west-1a = "eipalloc-1" }
  }
  assert {
    condition     = aws_eip_association.appliance["eu-west-1a"].allocation_id == "eipalloc-1" && length(aws_eip.appliance) == 1
    error_message = "one new, one kept"
  }
}

run "the_role_may_what_the_file_lists_and_what_was_asked_for" {
  variables {
    extra_lists    = ["arn:aws:ssm:eu-west-1:123456789012:parameter/team1-list", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team2"]
    accounts       = [{ account = "210987654321", role = "arn:aws:iam::210987654321:role/postern-reader", external_id = "x" }]
    log_group_name = "egress"
  }
  assert {
    condition     = jsonencode(slice(jsondecode(aws_iam_role_policy.appliance.policy).Statement, 0, length(local.policy_file.Statement))) == jsonencode(local.policy_file.Statement)
    error_message = "the file's statements, word for word"
  }
  assert {
    condition     = jsonencode([for statement in slice(jsondecode(aws_iam_role_policy.appliance.policy).Statement, length(local.policy_file.Statement), length(local.policy_file.Statement) + 4) : statement.Resource]) == jsonencode([["arn:*:logs:*:*:log-group:egress*"], ["arn:aws:ssm:eu-west-1:123456789012:parameter/team1-list"], ["arn:aws:secretsmanager:eu-west-1:123456789012:secret:team2-??????"], ["arn:aws:iam::210987654321:role/postern-reader"]])
    error_message = aws_iam_role_policy.appliance.policy
  }
}

run "an_arm_type_asks_for_an_arm_image" {
  command = plan
  variables {
    instance_type = "c7g.medium"
  }
  expect_failures = [data.aws_ami.postern]
}

run "unknown_preferences_are_refused" {
  command = plan
  variables {
    preferences = { wildcard_exposrue = "none" }
  }
  expect_failures = [var.preferences]
}

run "unknown_values_are_refused" {
  command = plan
  variables {
    preferences = { ech = "allow" }
  }
  expect_failures = [var.preferences]
}

run "anybodys_image_is_refused" {
  command = plan
  variables {
    ami_owners = ["*"]
  }
  expect_failures = [var.ami_owners]
}
