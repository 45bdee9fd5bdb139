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

run "a_zone_has_an_appliance_an_address_a_route_and_a_tag" {
  assert {
    condition     = length(google_compute_instance_group_manager.appliance) == 3 && alltrue([for group in google_compute_instance_group_manager.appliance : group.target_size == 1])
    error_message = "one a zone"
  }
  assert {
    condition     = alltrue([for zone, route in google_compute_route.zone : route.next_hop_ip == google_compute_address.internal[zone].address && tolist(route.tags)[0] == "postern-${zone}"])
    error_message = "routes by tag"
  }
  assert {
    condition     = output.zonal_network_tags["europe-west1-b"] == "postern-europe-west1-b"
    error_message = "the tag is said"
  }
  assert {
    condition     = alltrue([for group in google_compute_instance_group_manager.appliance : one(group.update_policy).max_surge_fixed == 0])
    error_message = "an address cannot be on two instances"
  }
}

run "rollback_takes_the_routes_away_and_nothing_else" {
  command = plan
  variables {
    route_enabled = false
  }
  assert {
    condition     = length(google_compute_route.zone) == 0 && length(google_compute_instance_group_manager.appliance) == 3
    error_message = "no routes of ours"
  }
}

run "fewer_addresses_than_zones_are_refused" {
  command = plan
  variables {
    static_addresses = 2
  }
  expect_failures = [google_compute_instance_group_manager.appliance["europe-west1-b"], google_compute_instance_group_manager.appliance["europe-west1-c"], google_compute_instance_group_manager.appliance["europe-west1-d"]]
}
