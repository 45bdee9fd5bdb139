mock_provider "google" {}

variables {
  network = "prod"
  name    = "web"
}

run "a_short_list_is_one_egress_rule" {
  command = plan
  variables {
    tls         = ["api.github.com", "api-?.example.org"]
    target_tags = ["web"]
  }
  assert {
    condition     = google_compute_firewall.allowlist["tls-443-443-0"].description == "postern:tls:api.github.com,api-?.example.org"
    error_message = jsonencode(output.descriptions)
  }
  assert {
    condition     = google_compute_firewall.allowlist["tls-443-443-0"].direction == "EGRESS" && length(google_compute_firewall.allowlist) == 1 && google_compute_firewall.allowlist["tls-443-443-0"].name == "web-tls-443-443-0"
    error_message = "one rule out"
  }
}

run "long_lists_are_split_under_1900_characters" {
  command = plan
  variables {
    tls = [for index in range(300) : "service-${index}.internal.example.com"]
  }
  assert {
    condition     = alltrue([for text in values(output.descriptions) : length(text) <= 1900]) && length(output.descriptions) == 6
    error_message = jsonencode({ for key, text in output.descriptions : key => length(text) })
  }
}

run "families_do_not_share_a_rule" {
  command = plan
  variables {
    tls  = ["a.example"]
    ipv6 = true
  }
  assert {
    condition     = jsonencode(sort(flatten([for rule in google_compute_firewall.allowlist : rule.destination_ranges]))) == jsonencode(["0.0.0.0/0", "::/0"])
    error_message = "one rule a family"
  }
}

run "see_thru_is_for_every_protocol" {
  command = plan
  variables {
    see_thru_until = "2027-01-31"
    addresses      = [{ cidr = "203.0.113.0/24", protocol = "udp", from_port = 123, comment = "ntp" }]
  }
  assert {
    condition     = one(google_compute_firewall.allowlist["see-thru"].allow).protocol == "all" && one(google_compute_firewall.allowlist["address-0"].allow).ports[0] == "123"
    error_message = "protocols"
  }
}

run "a_bundle_that_names_a_region_asks_for_it" {
  command = plan
  variables {
    bundles = ["gke-node"]
  }
  expect_failures = [google_compute_firewall.allowlist]
}

run "a_bundle_gets_its_region" {
  command = plan
  variables {
    bundles = ["gke-node", "gcp-ops-agent"]
    region  = "europe-west1"
  }
  assert {
    condition     = contains(output.names, "europe-west1-docker.pkg.dev")
    error_message = jsonencode(output.names)
  }
}

run "two_kinds_of_target_are_refused" {
  command = plan
  variables {
    tls                     = ["a.example"]
    target_tags             = ["web"]
    target_service_accounts = ["web@project.iam.gserviceaccount.com"]
  }
  expect_failures = [google_compute_firewall.allowlist]
}

run "a_name_GCP_would_refuse_is_refused" {
  command = plan
  variables {
    name = "Web"
  }
  expect_failures = [var.name]
}
