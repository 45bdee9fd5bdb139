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
    defaults = { names = ["europe-west1-b", "europe-west1-c"] }
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

run "machines_opt_in_by_tag" {
  assert {
    condition     = output.zonal_network_tags["europe-west1-b"] == "postern-europe-west1-b"
    error_message = "a tag a zone"
  }
}
