# One appliance a zone on a fixed internal address, reached by a route that only machines with the zone's network tag have.
# No load balancer to pay for, and no instant fail-over either: a dead appliance is replaced onto the same address.

locals {
  zones = length(var.zones) > 0 ? var.zones : data.google_compute_zones.this[0].names
}

data "google_compute_subnetwork" "this" {
  name    = var.subnetwork
  region  = var.region
  project = var.project

  lifecycle {
    postcondition {
      condition     = var.static_addresses == 0 || self.private_ip_google_access
      error_message = "The subnet needs Private Google Access: without an external address an appliance reaches Google's APIs by it alone, to take its reserved one."
    }
  }
}

data "google_compute_zones" "this" {
  count = length(var.zones) == 0 ? 1 : 0

  region  = var.region
  project = var.project
}

resource "google_compute_address" "internal" {
  for_each = toset(local.zones)

  project      = data.google_compute_subnetwork.this.project
  region       = var.region
  name         = "postern-${var.deployment == null ? "" : "${var.deployment}-"}${each.key}"
  description  = "Next hop of the machines in ${each.key}"
  address_type = "INTERNAL"
  purpose      = "GCE_ENDPOINT"
  subnetwork   = data.google_compute_subnetwork.this.self_link
  labels       = var.labels
}

module "appliance" {
  source = "../appliance"

  region                = var.region
  network               = data.google_compute_subnetwork.this.network
  subnetwork            = data.google_compute_subnetwork.this.self_link
  project               = data.google_compute_subnetwork.this.project
  deployment            = var.deployment
  preferences           = var.preferences
  enforce_now           = var.enforce_now
  see_thru_days         = var.see_thru_days
  see_thru_until        = var.see_thru_until
  machine_type          = var.machine_type
  image                 = var.image
  image_project         = var.image_project
  image_family          = var.image_family
  static_addresses      = var.static_addresses
  client_cidrs          = var.client_cidrs
  bypass_cidrs          = var.bypass_cidrs
  served_cidrs          = var.served_cidrs
  networks              = var.networks
  service_projects      = var.service_projects
  serverless_subnets    = var.serverless_subnets
  dns                   = var.dns
  certificates          = var.certificates
  overlay               = var.overlay
  service_account_email = var.service_account_email
  extra_secrets         = var.extra_secrets
  kms_key               = var.kms_key
  disk_gb               = var.disk_gb
  labels                = var.labels
  appliances            = length(local.zones)
  template_addresses    = { for zone, address in google_compute_address.internal : zone => address.address }
}

resource "google_compute_health_check" "healing" {
  project             = module.appliance.project
  name                = "${module.appliance.name}-healing"
  description         = "Replaces an appliance whose data plane is not its own for a minute; what it cannot read does not turn it red"
  check_interval_sec  = 20
  timeout_sec         = 5
  healthy_threshold   = 1
  unhealthy_threshold = 3

  http_health_check {
    port         = 1042
    request_path = "/healthz"
  }
}

resource "google_compute_instance_group_manager" "appliance" {
  for_each = toset(local.zones)

  project            = module.appliance.project
  zone               = each.key
  name               = "${module.appliance.name}-${each.key}"
  base_instance_name = "${module.appliance.name}-${each.key}"
  target_size        = 1

  version {
    instance_template = module.appliance.templates[each.key]
  }

  auto_healing_policies {
    health_check      = google_compute_health_check.healing.id
    initial_delay_sec = 300
  }

  # The address is on one instance at a time, so the old one always ends before the new one starts.
  update_policy {
    type                  = "PROACTIVE"
    minimal_action        = "REPLACE"
    replacement_method    = "RECREATE"
    max_surge_fixed       = 0
    max_unavailable_fixed = 1
  }

  lifecycle {
    precondition {
      condition     = var.static_addresses == 0 || var.static_addresses >= length(local.zones)
      error_message = "static_addresses must be 0 or at least the number of zones."
    }
  }
}

resource "google_compute_route" "zone" {
  for_each = toset(var.route_enabled ? local.zones : [])

  project     = module.appliance.project
  name        = "${module.appliance.name}-${each.key}"
  network     = data.google_compute_subnetwork.this.network
  description = "Machines tagged ${module.appliance.name}-${each.key} go to the internet by way of the appliance of that zone"
  dest_range  = "0.0.0.0/0"
  next_hop_ip = google_compute_address.internal[each.key].address
  priority    = 200
  tags        = ["${module.appliance.name}-${each.key}"]

  depends_on = [google_compute_instance_group_manager.appliance]
}
