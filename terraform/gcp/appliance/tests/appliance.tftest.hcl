mock_provider "google" {
  mock_data "google_compute_subnetwork" {
    defaults = {
      network                  = "projects/p-12345/global/networks/prod"
      self_link                = "projects/p-12345/regions/europe-west1/subnetworks/egress"
      project                  = "p-12345"
      private_ip_google_access = true
    }
  }
  mock_data "google_compute_zones" {
    defaults = { names = ["europe-west1-b", "europe-west1-c", "europe-west1-d"] }
  }
  mock_data "google_project" {
    defaults = { project_id = "p-12345", number = "123456789012" }
  }
  mock_data "google_compute_image" {
    defaults = { self_link = "projects/p-12345/global/images/postern-1" }
  }
}

variables {
  region     = "europe-west1"
  network    = "projects/p-12345/global/networks/prod"
  subnetwork = "projects/p-12345/regions/europe-west1/subnetworks/egress"
}

run "health_checkers_reach_the_appliances_and_strangers_do_not" {
  assert {
    condition     = jsonencode(sort(google_compute_firewall.health[""].source_ranges)) == jsonencode(["130.211.0.0/22", "35.191.0.0/16"])
    error_message = "Google's health checks"
  }
  assert {
    condition     = google_compute_firewall.strangers[""].priority > google_compute_firewall.clients[""].priority && one(google_compute_firewall.strangers[""].deny).protocol == "all"
    error_message = "everybody else is denied, after clients"
  }
}

run "the_account_may_what_the_permissions_file_lists_and_no_more" {
  assert {
    condition     = length(setsubtract(google_project_iam_custom_role.appliance[0].permissions, toset(concat(local.permissions.policy.permissions, local.permissions.preflight.permissions, local.permissions.logs.permissions)))) == 0 && contains(google_project_iam_custom_role.appliance[0].permissions, "compute.firewalls.list")
    error_message = jsonencode(google_project_iam_custom_role.appliance[0].permissions)
  }
  assert {
    condition     = strcontains(one(google_project_iam_member.secrets[0].condition).expression, "projects/123456789012/secrets/postern")
    error_message = "secrets by name"
  }
}

run "taking_an_address_is_permitted_where_there_is_one_to_take" {
  command = plan
  variables {
    static_addresses = 4
  }
  assert {
    condition     = contains(google_project_iam_custom_role.appliance[0].permissions, "compute.addresses.use") && length(one(google_compute_instance_template.appliance[""].network_interface).access_config) == 0
    error_message = "no address of the moment, and the permission to take one"
  }
}

run "preferences_are_one_document_and_enforcing_at_once_is_one_word" {
  variables {
    enforce_now = true
    preferences = { ech = "allow_outer", internal_zones = ["corp.example"] }
  }
  assert {
    condition     = google_secret_manager_secret_version.preferences.secret_data == jsonencode({ "%default" = { ech = "allow_outer", internal_zones = ["corp.example"], see_thru = null } })
    error_message = "the document"
  }
}

run "user_data_says_what_was_asked_for" {
  command = plan
  variables {
    deployment         = "prod"
    serverless_subnets = [{ name = "europe-west1/run", tags = ["run"] }]
    service_projects   = ["team-a-1234"]
    overlay = {
      groups  = [{ id = "dc", rules = [{ description = "postern:tls:a.example" }] }]
      clients = [{ address = "10.9.0.0/16", groups = ["dc"] }]
    }
  }
  assert {
    condition     = strcontains(google_compute_instance_template.appliance[""].metadata["postern"], "deployment = \"prod\"") && strcontains(google_compute_instance_template.appliance[""].metadata["postern"], "[[overlay.group.rule]]")
    error_message = google_compute_instance_template.appliance[""].metadata["postern"]
  }
  assert {
    condition     = google_project_iam_custom_role.reader["team-a-1234"].project == "team-a-1234"
    error_message = "service projects are read"
  }
}

run "an_account_of_yours_gets_nothing_from_us" {
  command = plan
  variables {
    service_account_email = "mine@p-12345.iam.gserviceaccount.com"
  }
  assert {
    condition     = length(google_project_iam_custom_role.appliance) + length(google_service_account.appliance) + length(google_project_iam_member.secrets) == 0
    error_message = "no roles"
  }
}
