mock_provider "aws" {}

variables {
  vpc_id = "vpc-0123456789abcdef0"
  region = "eu-west-1"
}

run "a_short_list_is_one_rule" {
  command = plan
  variables {
    tls = ["api.github.com", "*.example.org"]
  }
  assert {
    condition     = jsonencode(output.descriptions) == jsonencode({ "tls-443-443-0" = "postern:tls:api.github.com,*.example.org" })
    error_message = jsonencode(output.descriptions)
  }
  assert {
    condition     = aws_vpc_security_group_egress_rule.allowlist["tls-443-443-0"].cidr_ipv4 == "0.0.0.0/0" && aws_vpc_security_group_egress_rule.allowlist["tls-443-443-0"].from_port == 443
    error_message = "the first rule opens the way"
  }
}

run "long_lists_are_split_under_255_characters_and_no_two_rules_are_duplicates" {
  command = plan
  variables {
    tls         = [for index in range(300) : "service-${index}.internal.example.com"]
    ssh         = ["git.example"]
    bundles     = ["aws-ssm", "github-actions"]
    other_ports = [{ kind = "tls", names = ["ldap.example"], from_port = 636 }]
  }
  assert {
    condition     = alltrue([for text in values(output.descriptions) : length(text) <= 255 && can(regex("^[a-zA-Z0-9 ._:/()#,@\\[\\]+=&;{}!$*-]+$", text))])
    error_message = "EC2 refuses one of them"
  }
  assert {
    condition     = length(distinct([for rule in aws_vpc_security_group_egress_rule.allowlist : "${rule.ip_protocol} ${coalesce(rule.from_port, -1)} ${coalesce(rule.to_port, -1)} ${rule.cidr_ipv4}"])) == length(aws_vpc_security_group_egress_rule.allowlist)
    error_message = "two rules have the same protocol, ports and CIDR"
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_egress_rule.allowlist : cidrhost(rule.cidr_ipv4, 0) == split("/", rule.cidr_ipv4)[0]])
    error_message = "EC2 refuses a CIDR with host bits"
  }
  assert {
    condition     = length(setsubtract(toset(var.tls), toset(flatten([for text in values(output.descriptions) : split(",", replace(text, "postern:tls:", ""))])))) == 0
    error_message = "a name is lost"
  }
}

run "ipv6_opens_its_own_way" {
  command = plan
  variables {
    tls  = ["api.github.com"]
    ipv6 = true
  }
  assert {
    condition     = jsonencode(sort([for rule in aws_vpc_security_group_egress_rule.allowlist : coalesce(rule.cidr_ipv4, rule.cidr_ipv6)])) == jsonencode(["0.0.0.0/0", "::/0"])
    error_message = "one rule a family"
  }
}

run "bundles_name_the_region" {
  command = plan
  variables {
    bundles    = ["aws-ecr", "ubuntu"]
    plain_http = true
  }
  assert {
    condition     = contains(output.names, "api.ecr.eu-west-1.amazonaws.com") && contains(output.names, "eu-west-1.ec2.archive.ubuntu.com")
    error_message = jsonencode(output.names)
  }
}

run "see_thru_and_addresses_have_rules_of_their_own" {
  command = plan
  variables {
    see_thru_until = "2027-01-31"
    addresses      = [{ cidr = "203.0.113.0/24", protocol = "udp", from_port = 123, comment = "ntp" }]
  }
  assert {
    condition     = jsonencode(sort(values(output.descriptions))) == jsonencode(["postern:address:ntp", "postern:see-thru:2027-01-31"])
    error_message = jsonencode(output.descriptions)
  }
}

run "an_existing_group_gets_the_rules" {
  command = plan
  variables {
    vpc_id            = null
    security_group_id = "sg-0123456789abcdef0"
    tls               = ["a.example"]
  }
  assert {
    condition     = output.security_group_id == "sg-0123456789abcdef0" && length(aws_security_group.allowlist) == 0
    error_message = "no group of its own"
  }
}

run "neither_vpc_nor_group_is_an_error" {
  command = plan
  variables {
    vpc_id = null
    tls    = ["a.example"]
  }
  expect_failures = [aws_security_group.allowlist]
}

run "more_than_60_rules_is_an_error" {
  command = plan
  variables {
    tls = [for index in range(61) : format("%03d.%s.example", index, join(".", [for label in range(3) : join("", [for letter in range(60) : "a"])]))]
  }
  expect_failures = [aws_vpc_security_group_egress_rule.allowlist]
}

run "a_question_mark_is_refused_where_EC2_would" {
  command = plan
  variables {
    tls = ["api-?.example.org"]
  }
  expect_failures = [var.tls]
}

run "a_wide_address_is_refused" {
  command = plan
  variables {
    addresses = [{ cidr = "0.0.0.0/0", protocol = "udp", from_port = 123, comment = "ntp" }]
  }
  expect_failures = [var.addresses]
}

run "two_rules_for_the_same_ports_are_refused" {
  command = plan
  variables {
    other_ports = [{ kind = "tls", names = ["a.example"], from_port = 8443 }, { kind = "ssh", names = ["b.example"], from_port = 8443 }]
  }
  expect_failures = [var.other_ports]
}
