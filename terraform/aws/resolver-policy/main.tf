# Queries to the VPC resolver never cross the appliance, so a workload could carry data out in them. Route 53 Resolver DNS
# Firewall holds them to the same names: allow these, the zones of one's own and the platform's, then block everything.

locals {
  # DNS Firewall takes a * at the front only, where it stands for one or more labels. A pattern with a wildcard elsewhere is
  # widened to the part after it: the appliance still compares the whole.
  # https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/resolver-dns-firewall-domain-lists.html
  widened = [for name in var.names : lower(trimspace(name))]
  allowed = sort(distinct([for name in local.widened :
    can(regex("[*?]", name)) ? "*.${regex("^.*[*?][^.]*\\.(.*)$", name)[0]}" : name
  ]))

  below = { for kind, zones in { internal = var.internal_zones, cloud = var.cloud_zones } : kind => sort(distinct(flatten([for zone in zones : [lower(zone), "*.${lower(zone)}"]]))) }

  lists = { for kind, domains in merge({ allowed = local.allowed }, local.below) : kind => domains if length(domains) > 0 }

  order = ["allowed", "internal", "cloud"]

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

resource "aws_route53_resolver_firewall_domain_list" "allowed" {
  for_each = local.lists

  name    = "${var.name}-${each.key}"
  domains = each.value
  tags    = var.tags
}

resource "aws_route53_resolver_firewall_domain_list" "everything" {
  name    = "${var.name}-everything"
  domains = ["*"]
  tags    = var.tags
}

resource "aws_route53_resolver_firewall_rule_group" "this" {
  name = var.name
  tags = var.tags
}

resource "aws_route53_resolver_firewall_rule" "allow" {
  for_each = local.lists

  name                    = "${var.name}-${each.key}"
  action                  = "ALLOW"
  priority                = 100 + index(local.order, each.key)
  firewall_rule_group_id  = aws_route53_resolver_firewall_rule_group.this.id
  firewall_domain_list_id = aws_route53_resolver_firewall_domain_list.allowed[each.key].id

  # An allowed name may be a CNAME to one that nobody lists; by default DNS Firewall inspects every name of the chain and
  # would block it. The appliance takes chains inside one answer only, so trusting them here opens nothing.
  # https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/resolver-dns-firewall-rule-settings.html
  firewall_domain_redirection_action = "TRUST_REDIRECTION_DOMAIN"
}

# NXDOMAIN, which programs take for an answer at once; with NODATA some ask on.
resource "aws_route53_resolver_firewall_rule" "block" {
  name                    = "${var.name}-everything"
  action                  = local.block ? "BLOCK" : "ALERT"
  block_response          = local.block ? "NXDOMAIN" : null
  priority                = 900
  firewall_rule_group_id  = aws_route53_resolver_firewall_rule_group.this.id
  firewall_domain_list_id = aws_route53_resolver_firewall_domain_list.everything.id
}

resource "aws_route53_resolver_firewall_rule_group_association" "this" {
  for_each = var.vpc_ids

  name                   = "${var.name}-${each.key}"
  firewall_rule_group_id = aws_route53_resolver_firewall_rule_group.this.id
  vpc_id                 = each.value
  priority               = var.priority
  mutation_protection    = "DISABLED"
  tags                   = var.tags

  # A VPC must not be held to a list that is still empty.
  depends_on = [aws_route53_resolver_firewall_rule.allow, aws_route53_resolver_firewall_rule.block]
}

# https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/resolver-dns-firewall-vpc-configuration.html
resource "aws_route53_resolver_firewall_config" "this" {
  for_each = var.vpc_ids

  resource_id        = each.value
  firewall_fail_open = var.fail_open ? "ENABLED" : "DISABLED"
}

resource "aws_route53_resolver_query_log_config" "this" {
  count = var.query_log_destination_arn == null ? 0 : 1

  name            = var.name
  destination_arn = var.query_log_destination_arn
  tags            = var.tags
}

resource "aws_route53_resolver_query_log_config_association" "this" {
  for_each = var.query_log_destination_arn == null ? {} : var.vpc_ids

  resolver_query_log_config_id = aws_route53_resolver_query_log_config.this[0].id
  resource_id                  = each.value
}
