# A regional group of appliances behind an internal passthrough load balancer, which is the network's default route.
# https://cloud.google.com/load-balancing/docs/internal/ilb-next-hop-overview

locals {
  zones = length(var.zones) > 0 ? var.zones : data.google_compute_zones.this[0].names

  # Tagged so, a machine keeps the network's other way out.
  bypass_tag = "bypass-${module.appliance.name}"
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
  ipv6                  = var.ipv6
  labels                = var.labels
  appliances            = var.max_replicas
}

resource "google_compute_region_health_check" "balancer" {
  project             = module.appliance.project
  name                = "${module.appliance.name}-balancer"
  region              = var.region
  description         = "New flows go to other appliances when one does not answer for 4 s"
  check_interval_sec  = 2
  timeout_sec         = 2
  healthy_threshold   = 2
  unhealthy_threshold = 2

  http_health_check {
    port         = 1042
    request_path = "/healthz"
  }
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

resource "google_compute_region_instance_group_manager" "appliance" {
  project                   = module.appliance.project
  region                    = var.region
  name                      = module.appliance.name
  base_instance_name        = module.appliance.name
  distribution_policy_zones = local.zones

  version {
    instance_template = module.appliance.templates[""]
  }

  auto_healing_policies {
    health_check      = google_compute_health_check.healing.id
    initial_delay_sec = 300
  }

  # New beside old, old away when new is healthy. GCP wants surge to be 0 or at least the number of zones.
  # https://cloud.google.com/compute/docs/instance-groups/rolling-out-updates-to-managed-instance-groups#max_surge
  update_policy {
    type                         = "PROACTIVE"
    minimal_action               = "REPLACE"
    replacement_method           = "SUBSTITUTE"
    instance_redistribution_type = "PROACTIVE"
    max_surge_fixed              = length(local.zones)
    max_unavailable_fixed        = 0
  }

  lifecycle {
    ignore_changes = [target_size] # The autoscaler's.

    precondition {
      condition     = var.static_addresses == 0 || var.static_addresses >= var.max_replicas + length(local.zones)
      error_message = "static_addresses must be 0 or at least max_replicas plus the number of zones: replacements take theirs while the replaced still hold theirs."
    }
    precondition {
      condition     = var.max_replicas >= var.min_replicas
      error_message = "max_replicas is below min_replicas."
    }
  }
}

resource "google_compute_region_autoscaler" "appliance" {
  project = module.appliance.project
  region  = var.region
  name    = module.appliance.name
  target  = google_compute_region_instance_group_manager.appliance.id

  autoscaling_policy {
    min_replicas    = var.min_replicas
    max_replicas    = var.max_replicas
    cooldown_period = 60

    cpu_utilization {
      target = var.cpu_target
    }

    # Flows end with the appliance that carries them: shrink slowly.
    scale_in_control {
      time_window_sec = 1800
      max_scaled_in_replicas {
        fixed = 1
      }
    }
  }
}

# UNSPECIFIED with L3_DEFAULT: every protocol, so that what is refused is refused visibly.
# https://cloud.google.com/load-balancing/docs/internal/setting-up-ilb-multiple-protocols
resource "google_compute_region_backend_service" "appliance" {
  project                         = module.appliance.project
  region                          = var.region
  name                            = module.appliance.name
  load_balancing_scheme           = "INTERNAL"
  protocol                        = "UNSPECIFIED"
  session_affinity                = "NONE"
  network                         = data.google_compute_subnetwork.this.network
  health_checks                   = [google_compute_region_health_check.balancer.id]
  connection_draining_timeout_sec = 60

  backend {
    group          = google_compute_region_instance_group_manager.appliance.instance_group
    balancing_mode = "CONNECTION"
  }
}

resource "google_compute_forwarding_rule" "appliance" {
  for_each = toset(var.ipv6 ? ["", "-v6"] : [""])

  project               = module.appliance.project
  region                = var.region
  name                  = "${module.appliance.name}${each.key}"
  description           = "Next hop of the network's default route"
  load_balancing_scheme = "INTERNAL"
  ip_protocol           = "L3_DEFAULT"
  ip_version            = each.key == "" ? "IPV4" : "IPV6"
  all_ports             = true
  allow_global_access   = false
  backend_service       = google_compute_region_backend_service.appliance.id
  network               = data.google_compute_subnetwork.this.network
  subnetwork            = data.google_compute_subnetwork.this.self_link
  labels                = module.appliance.labels
}

resource "google_compute_route" "default" {
  for_each = toset(!var.route_enabled ? [] : var.ipv6 ? ["", "-v6"] : [""])

  project      = module.appliance.project
  name         = "${module.appliance.name}-default${each.key}"
  network      = data.google_compute_subnetwork.this.network
  description  = "To the internet by way of the appliances"
  dest_range   = each.key == "" ? "0.0.0.0/0" : "::/0"
  next_hop_ilb = google_compute_forwarding_rule.appliance[each.key].id
  priority     = 200 # Before the network's own default route, which has 1000.
  tags         = var.route_tags

  # A workload must not be steered to appliances that are not there yet.
  depends_on = [google_compute_region_autoscaler.appliance]
}

resource "google_compute_route" "opt_out" {
  count = var.route_tags == null ? 1 : 0

  project          = module.appliance.project
  name             = "${module.appliance.name}-opt-out"
  network          = data.google_compute_subnetwork.this.network
  description      = "Machines tagged ${local.bypass_tag} do not go through the appliances"
  dest_range       = "0.0.0.0/0"
  next_hop_gateway = "default-internet-gateway"
  priority         = 100
  tags             = [local.bypass_tag]
}
