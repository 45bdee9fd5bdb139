# Names in, VPC firewall rules out: EGRESS ALLOW rules that carry names in their descriptions.

locals {
  bundles = jsondecode(file("${path.module}/../../bundles/bundles.json"))

  bundled = { for kind in ["tls", "http"] : kind => [
    for name in flatten([for bundle in var.bundles : lookup(local.bundles[bundle], kind, [])]) : replace(name, "{region}", coalesce(var.region, "{region}"))
  ] }

  sets = { for set in concat(
    [
      { kind = "tls", names = concat(var.tls, local.bundled.tls), from = 443, to = 443 },
      { kind = "ssh", names = var.ssh, from = 22, to = 22 },
      { kind = "http", names = concat(var.http, var.plain_http ? local.bundled.http : []), from = 80, to = 80 },
    ],
    [for entry in var.other_ports : { kind = entry.kind, names = entry.names, from = entry.from_port, to = coalesce(entry.to_port, entry.from_port) }],
  ) : "${set.kind}-${set.from}-${set.to}" => set if length(set.names) > 0 }

  ports = { for key, set in local.sets : key => set.from == set.to ? ["${set.from}"] : ["${set.from}-${set.to}"] }

  # A rule has ranges of one family only; the second family gets rules of its own.
  # https://cloud.google.com/firewall/docs/firewalls#protocols_and_ports
  families = var.ipv6 ? { "" = ["0.0.0.0/0"], "-v6" = ["::/0"] } : { "" = ["0.0.0.0/0"] }

  rules = merge(
    merge(flatten([for key, set in local.sets : [for suffix, ranges in local.families :
      { for index, text in module.pack[key].descriptions : "${key}-${index}${suffix}" => { description = text, protocol = "tcp", ports = local.ports[key], ranges = ranges } }
    ]])...),
    { for index, entry in var.addresses : "address-${index}" => {
      description = "postern:address:${entry.comment}"
      protocol    = entry.protocol
      ports       = coalesce(entry.to_port, entry.from_port) == entry.from_port ? ["${entry.from_port}"] : ["${entry.from_port}-${entry.to_port}"]
      ranges      = [entry.cidr]
    } },
    { for suffix, ranges in var.see_thru_until == null ? {} : local.families : "see-thru${suffix}" => {
      description = "postern:see-thru:${var.see_thru_until}", protocol = "all", ports = null, ranges = ranges
    } },
  )
}

module "pack" {
  source   = "../../bundles/pack"
  for_each = local.sets

  prefix = "postern:${each.value.kind}:"
  names  = each.value.names
  # 2,048 is what the API stores; some room is left for a comment added by hand.
  limit = 1900
}

resource "google_compute_firewall" "allowlist" {
  for_each = local.rules

  name                    = "${var.name}-${each.key}"
  project                 = var.project
  network                 = var.network
  direction               = "EGRESS"
  priority                = var.priority
  description             = each.value.description
  destination_ranges      = each.value.ranges
  target_tags             = length(var.target_tags) > 0 ? var.target_tags : null
  target_service_accounts = length(var.target_service_accounts) > 0 ? var.target_service_accounts : null

  allow {
    protocol = each.value.protocol
    ports    = each.value.ports
  }

  dynamic "log_config" {
    for_each = var.log ? [1] : []
    content {
      metadata = "INCLUDE_ALL_METADATA"
    }
  }

  lifecycle {
    # https://cloud.google.com/firewall/docs/firewalls#target_param
    precondition {
      condition     = length(var.target_tags) == 0 || length(var.target_service_accounts) == 0
      error_message = "GCP takes target_tags or target_service_accounts in a rule, not both."
    }
    precondition {
      condition     = !strcontains(each.value.description, "{region}")
      error_message = "A bundle names a region: give region."
    }
  }
}
