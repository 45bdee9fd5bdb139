# Queries to Cloud DNS never cross the appliance, so a workload could carry data out in them. A response policy holds them to
# the same names: each of these bypasses the policy, and *. answers everything else.

locals {
  # A wildcard stands at the front only. A pattern with one elsewhere is widened to the part after it: the appliance still
  # compares the whole. https://cloud.google.com/dns/docs/zones/manage-response-policies
  widened = [for name in var.names : lower(trimspace(name))]
  allowed = [for name in local.widened : can(regex("[*?]", name)) ? "*.${regex("^.*[*?][^.]*\\.(.*)$", name)[0]}" : name]
  below   = flatten([for zone in concat(var.internal_zones, var.cloud_zones) : [lower(zone), "*.${lower(zone)}"]])
  names   = toset(concat(local.allowed, local.below))

  until = terraform_data.observe.output
  block = var.enforce_now || timecmp(plantimestamp(), local.until) >= 0
}

# The first apply's time plus observe_days, kept.
resource "terraform_data" "observe" {
  input = timeadd(plantimestamp(), "${var.observe_days * 24}h")

  lifecycle {
    ignore_changes = [input]
  }
}

resource "google_dns_response_policy" "this" {
  provider             = google-beta
  project              = var.project
  response_policy_name = var.name
  description          = "What machines may resolve: the names that Postern lets them reach"

  dynamic "networks" {
    for_each = toset(var.networks)
    content {
      network_url = networks.value
    }
  }

  lifecycle {
    # https://cloud.google.com/dns/quotas#limits (rules per response policy)
    precondition {
      condition     = length(local.names) < 10000
      error_message = "A response policy has at most 10,000 rules: list wildcards instead of names."
    }
  }
}

resource "google_dns_response_policy_rule" "allow" {
  provider = google-beta
  for_each = local.names

  project         = var.project
  response_policy = google_dns_response_policy.this.response_policy_name
  # Rule names have no dots and no stars, and 63 characters; the beginning of the name is there for whoever reads the list.
  rule_name = "allow-${substr(sha256(each.key), 0, 12)}-${trim(substr(replace(each.key, "/[^a-z0-9]+/", "-"), 0, 40), "-")}"
  dns_name  = "${each.key}."
  behavior  = "bypassResponsePolicy"
}

# The longest suffix decides, so this is what no other rule names. Local data overrides all other answers for a matched name;
# of types without data there is none, so only this text comes back, to any question.
# https://cloud.google.com/dns/docs/reference/rest/v1/responsePolicyRules
resource "google_dns_response_policy_rule" "everything" {
  provider = google-beta

  project         = var.project
  response_policy = google_dns_response_policy.this.response_policy_name
  rule_name       = "everything"
  dns_name        = "*."
  behavior        = local.block ? null : "bypassResponsePolicy"

  dynamic "local_data" {
    for_each = local.block ? [1] : []
    content {
      local_datas {
        name    = "*."
        type    = "TXT"
        ttl     = 60
        rrdatas = ["\"not allowed by policy\""]
      }
    }
  }

  # Nothing is blocked before everything allowed is in place.
  depends_on = [google_dns_response_policy_rule.allow]
}
