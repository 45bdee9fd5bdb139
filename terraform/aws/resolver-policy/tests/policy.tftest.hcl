mock_provider "aws" {}

variables {
  vpc_ids = { prod = "vpc-0123456789abcdef0" }
  names   = ["API.github.com", "*.example.org", "api-*.eu.example.com", "**.deep.example", "cdn.?.example.net", ""]
}

run "an_empty_line_is_an_error" {
  command         = plan
  expect_failures = [var.names]
}

run "names_are_allowed_and_everything_else_is_only_reported_at_first" {
  variables {
    names          = ["API.github.com", "*.example.org", "api-*.eu.example.com", "**.deep.example", "cdn.?.example.net"]
    internal_zones = ["corp.example"]
  }
  assert {
    condition     = jsonencode(output.domains.allowed) == jsonencode(["*.deep.example", "*.eu.example.com", "*.example.net", "*.example.org", "api.github.com"])
    error_message = jsonencode(output.domains)
  }
  assert {
    condition     = jsonencode(output.domains.internal) == jsonencode(["*.corp.example", "corp.example"])
    error_message = jsonencode(output.domains)
  }
  assert {
    condition     = aws_route53_resolver_firewall_rule.block.action == "ALERT" && !output.blocking
    error_message = "the first days report"
  }
  assert {
    condition     = alltrue([for rule in aws_route53_resolver_firewall_rule.allow : rule.priority < aws_route53_resolver_firewall_rule.block.priority && rule.firewall_domain_redirection_action == "TRUST_REDIRECTION_DOMAIN"])
    error_message = "allowed before blocked, with their aliases"
  }
  assert {
    condition     = aws_route53_resolver_firewall_config.this["prod"].firewall_fail_open == "DISABLED"
    error_message = "closed when it fails"
  }
}

run "enforcing_blocks_with_nxdomain" {
  variables {
    names       = ["a.example"]
    enforce_now = true
  }
  assert {
    condition     = aws_route53_resolver_firewall_rule.block.action == "BLOCK" && aws_route53_resolver_firewall_rule.block.block_response == "NXDOMAIN"
    error_message = "blocked"
  }
}

run "no_names_still_leaves_the_platforms_zones" {
  command = plan
  variables {
    names = []
  }
  assert {
    condition     = jsonencode(keys(output.domains)) == jsonencode(["cloud"])
    error_message = jsonencode(output.domains)
  }
}

run "the_platforms_zones_hold_no_strangers_names" {
  command = plan
  variables {
    names = []
  }
  assert {
    condition     = !anytrue([for domain in output.domains.cloud : endswith(domain, "amazonaws.com")])
    error_message = "anybody can have a name below amazonaws.com"
  }
}
