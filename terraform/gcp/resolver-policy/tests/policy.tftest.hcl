mock_provider "google-beta" {}

variables {
  networks = ["projects/p-12345/global/networks/prod"]
  names    = ["API.github.com", "*.example.org", "api-*.eu.example.com", "**.deep.example", "cdn.?.example.net", ""]
}

run "an_empty_line_is_an_error" {
  command         = plan
  expect_failures = [var.names]
}

run "names_are_allowed_and_nothing_is_blocked_at_first" {
  variables {
    names          = ["API.github.com", "*.example.org", "api-*.eu.example.com", "**.deep.example"]
    internal_zones = ["corp.example"]
  }
  assert {
    condition     = jsonencode(output.domains) == jsonencode(toset(["*.corp.example", "*.deep.example", "*.eu.example.com", "*.example.org", "*.internal", "api.github.com", "corp.example", "internal"]))
    error_message = jsonencode(output.domains)
  }
  assert {
    condition     = google_dns_response_policy_rule.everything.behavior == "bypassResponsePolicy" && length(google_dns_response_policy_rule.everything.local_data) == 0 && !output.blocking
    error_message = "the first days let pass"
  }
  assert {
    condition     = alltrue([for rule in google_dns_response_policy_rule.allow : length(rule.rule_name) <= 63 && can(regex("^[a-z]([a-z0-9-]*[a-z0-9])?$", rule.rule_name)) && endswith(rule.dns_name, ".")])
    error_message = jsonencode([for rule in google_dns_response_policy_rule.allow : rule.rule_name])
  }
}

run "enforcing_answers_everything_else" {
  variables {
    names       = ["a.example"]
    enforce_now = true
  }
  assert {
    condition     = google_dns_response_policy_rule.everything.dns_name == "*." && google_dns_response_policy_rule.everything.behavior == null && length(google_dns_response_policy_rule.everything.local_data) == 1
    error_message = "blocked"
  }
}
