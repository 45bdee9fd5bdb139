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
  subnetwork = "egress"
}

run "two_arguments_are_enough_and_it_begins_by_watching" {
  assert {
    condition     = output.see_thru_until == formatdate("YYYY-MM-DD", timeadd(plantimestamp(), "336h"))
    error_message = "14 days of see-thru"
  }
  assert {
    condition     = google_compute_route.default[""].dest_range == "0.0.0.0/0" && google_compute_route.default[""].priority == 200 && google_compute_route.default[""].next_hop_ilb == google_compute_forwarding_rule.appliance[""].id
    error_message = "the default route leads to the load balancer"
  }
  assert {
    condition     = google_compute_forwarding_rule.appliance[""].ip_protocol == "L3_DEFAULT" && google_compute_forwarding_rule.appliance[""].all_ports && google_compute_region_backend_service.appliance.protocol == "UNSPECIFIED"
    error_message = "every protocol reaches the appliance"
  }
  assert {
    condition     = one(google_compute_region_autoscaler.appliance.autoscaling_policy).min_replicas == 2 && one(google_compute_region_instance_group_manager.appliance.update_policy).max_unavailable_fixed == 0 && one(google_compute_region_instance_group_manager.appliance.update_policy).max_surge_fixed == 3
    error_message = "never fewer than two, and none goes before its successor is there"
  }
  assert {
    condition     = output.opt_out_network_tag == "bypass-postern" && tolist(google_compute_route.opt_out[0].tags)[0] == "bypass-postern"
    error_message = "a tag opts out"
  }
}

run "tags_opt_in_instead" {
  command = plan
  variables {
    route_tags = ["behind-postern"]
  }
  assert {
    condition     = tolist(google_compute_route.default[""].tags)[0] == "behind-postern" && length(google_compute_route.opt_out) == 0
    error_message = "only tagged machines"
  }
}

run "rollback_takes_the_route_away_and_nothing_else" {
  command = plan
  variables {
    route_enabled = false
  }
  assert {
    condition     = length(google_compute_route.default) == 0
    error_message = "no default route of ours"
  }
}

run "both_families" {
  command = plan
  variables {
    ipv6 = true
  }
  assert {
    condition     = google_compute_forwarding_rule.appliance["-v6"].ip_version == "IPV6" && google_compute_route.default["-v6"].dest_range == "::/0"
    error_message = "IPv6 has its own next hop"
  }
}

run "too_few_addresses_for_a_replacement_are_refused" {
  command = plan
  variables {
    static_addresses = 6
  }
  expect_failures = [google_compute_region_instance_group_manager.appliance]
}

run "an_unknown_preference_is_refused" {
  command = plan
  variables {
    preferences = { wildcard_exposrue = "none" }
  }
  expect_failures = [var.preferences]
}
