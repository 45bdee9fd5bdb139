# What both ways of steering have in common: identity, preferences, instance templates, and the VPC firewall in front. Used by
# gcp/ilb and gcp/ntag; not meant to be used alone.

locals {
  name    = var.deployment == null ? "postern" : "postern-${var.deployment}"
  labels  = merge({ postern = coalesce(var.deployment, "default") }, var.labels)
  project = data.google_project.this.project_id

  # Marks the appliances themselves: their own way out must not lead to themselves.
  self_tag = "${local.name}-itself"
}

data "google_project" "this" {
  project_id = var.project
}

data "google_compute_image" "postern" {
  count = var.image == null ? 1 : 0

  project = coalesce(var.image_project, local.project)
  family  = var.image_family
}

resource "google_compute_instance_template" "appliance" {
  for_each = length(var.template_addresses) == 0 ? { "" = null } : var.template_addresses

  project        = local.project
  region         = var.region
  name_prefix    = each.key == "" ? "${local.name}-" : "${local.name}-${each.key}-"
  description    = "Postern appliance"
  machine_type   = var.machine_type
  can_ip_forward = true # It forwards what is neither from nor to itself.
  tags           = [local.self_tag]
  labels         = local.labels

  metadata = {
    # The image's first boot reads this attribute (`postern-cloudsync configure`).
    postern                = local.user_data
    block-project-ssh-keys = "true"
    enable-oslogin         = "TRUE"
    serial-port-enable     = "FALSE"
  }

  disk {
    source_image = var.image == null ? data.google_compute_image.postern[0].self_link : var.image
    boot         = true
    auto_delete  = true
    disk_type    = "pd-balanced"
    disk_size_gb = var.disk_gb
    labels       = local.labels

    dynamic "disk_encryption_key" {
      for_each = var.kms_key == null ? [] : [var.kms_key]
      content {
        kms_key_self_link = disk_encryption_key.value
      }
    }
  }

  network_interface {
    subnetwork = var.subnetwork
    network_ip = each.value
    nic_type   = "GVNIC"
    stack_type = var.ipv6 ? "IPV4_IPV6" : "IPV4_ONLY"

    # An address of the moment, unless the appliance takes a reserved one itself.
    dynamic "access_config" {
      for_each = var.static_addresses == 0 ? [1] : []
      content {
        network_tier = "PREMIUM"
      }
    }

    dynamic "ipv6_access_config" {
      for_each = var.ipv6 ? [1] : []
      content {
        network_tier = "PREMIUM"
      }
    }
  }

  service_account {
    email  = local.service_account
    scopes = ["cloud-platform"] # What it may do is IAM's to say.
  }

  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  scheduling {
    automatic_restart   = true
    on_host_maintenance = "MIGRATE"
  }

  lifecycle {
    create_before_destroy = true
  }

  depends_on = [google_secret_manager_secret_version.preferences]
}

resource "google_compute_address" "egress" {
  count = var.static_addresses

  project      = local.project
  region       = var.region
  name         = "${local.name}-egress-${count.index}"
  description  = "Taken by a Postern appliance that has no external address"
  address_type = "EXTERNAL"
  labels       = local.labels # The label postern is what an appliance looks for.
}

# Where Google's health checkers come from; the appliance answers them on the address they asked.
# https://cloud.google.com/load-balancing/docs/health-check-concepts#ip-ranges
locals {
  health_sources = ["35.191.0.0/16", "130.211.0.0/22"]
  # https://cloud.google.com/load-balancing/docs/internal#firewall_rules (internal passthrough load balancers, IPv6)
  health_sources_v6 = ["2600:2d00:1:b029::/64"]
}

resource "google_compute_firewall" "health" {
  for_each = var.ipv6 ? { "" = local.health_sources, "-v6" = local.health_sources_v6 } : { "" = local.health_sources }

  project       = local.project
  name          = "${local.name}-health${each.key}"
  network       = var.network
  description   = "Google's health checks of the appliances"
  direction     = "INGRESS"
  priority      = 200
  source_ranges = each.value
  target_tags   = [local.self_tag]

  allow {
    protocol = "tcp"
    ports    = ["1042"]
  }
}

# Every protocol: what is not to pass is refused by the appliance, visibly and with a reason.
resource "google_compute_firewall" "clients" {
  for_each = { for family, cidrs in {
    ""    = [for cidr in var.client_cidrs : cidr if !strcontains(cidr, ":")]
    "-v6" = [for cidr in var.client_cidrs : cidr if strcontains(cidr, ":")]
  } : family => cidrs if length(cidrs) > 0 }

  project       = local.project
  name          = "${local.name}-clients${each.key}"
  network       = var.network
  description   = "Workloads' traffic to the internet, by way of the appliances"
  direction     = "INGRESS"
  priority      = 200
  source_ranges = each.value
  target_tags   = [local.self_tag]

  allow {
    protocol = "all"
  }
}

# Cloud DNS forwards from addresses that are no clients (35.199.192.0/19):
# https://cloud.google.com/dns/docs/zones/forwarding-zones#firewall-rules
resource "google_compute_firewall" "resolvers" {
  for_each = { for family, sources in {
    ""    = [for source in var.dns.resolver_sources : source if !strcontains(source, ":")]
    "-v6" = [for source in var.dns.resolver_sources : source if strcontains(source, ":")]
  } : family => sources if length(sources) > 0 }

  project       = local.project
  name          = "${local.name}-resolvers${each.key}"
  network       = var.network
  description   = "Cloud resolvers ask the DNS front"
  direction     = "INGRESS"
  priority      = 200
  source_ranges = each.value
  target_tags   = [local.self_tag]

  allow {
    protocol = "tcp"
    ports    = ["53"]
  }
  allow {
    protocol = "udp"
    ports    = ["53"]
  }
}

resource "google_compute_firewall" "strangers" {
  for_each = var.ipv6 ? { "" = ["0.0.0.0/0"], "-v6" = ["::/0"] } : { "" = ["0.0.0.0/0"] }

  project       = local.project
  name          = "${local.name}-strangers${each.key}"
  network       = var.network
  description   = "Nobody else dials an appliance"
  direction     = "INGRESS"
  priority      = 400
  source_ranges = each.value
  target_tags   = [local.self_tag]

  deny {
    protocol = "all"
  }
}

# The VPC firewall of a locked-down network may deny egress; the appliances are the egress.
resource "google_compute_firewall" "out" {
  for_each = var.ipv6 ? { "" = ["0.0.0.0/0"], "-v6" = ["::/0"] } : { "" = ["0.0.0.0/0"] }

  project            = local.project
  name               = "${local.name}-out${each.key}"
  network            = var.network
  description        = "The appliances reach the internet"
  direction          = "EGRESS"
  priority           = 200
  destination_ranges = each.value
  target_tags        = [local.self_tag]

  allow {
    protocol = "all"
  }
}

resource "google_compute_route" "itself" {
  for_each = var.ipv6 ? { "" = "0.0.0.0/0", "-v6" = "::/0" } : { "" = "0.0.0.0/0" }

  project          = local.project
  name             = "${local.name}-itself${each.key}"
  network          = var.network
  description      = "The appliances' own way out"
  dest_range       = each.value
  next_hop_gateway = "default-internet-gateway"
  priority         = 100
  tags             = [local.self_tag]
}

resource "google_compute_route" "bypass" {
  for_each = var.bypass_cidrs

  project          = local.project
  name             = "${local.name}-bypass-${each.key}"
  network          = var.network
  description      = "Does not go through the appliances"
  dest_range       = each.value
  next_hop_gateway = "default-internet-gateway"
  priority         = 150
}
