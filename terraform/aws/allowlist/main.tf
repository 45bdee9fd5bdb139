# Names in, security group rules out. Rules carry names in their descriptions; the appliance does not compare their CIDR.

locals {
  region  = var.region == null ? data.aws_region.current[0].name : var.region
  bundles = jsondecode(file("${path.module}/../../bundles/bundles.json"))

  bundled = { for kind in ["tls", "http"] : kind => [
    for name in flatten([for bundle in var.bundles : lookup(local.bundles[bundle], kind, [])]) : replace(name, "{region}", local.region)
  ] }

  # By kind and ports: what EC2 counts as one rule but for the CIDR.
  sets = { for set in concat(
    [
      { kind = "tls", names = concat(var.tls, local.bundled.tls), from = 443, to = 443 },
      { kind = "ssh", names = var.ssh, from = 22, to = 22 },
      { kind = "http", names = concat(var.http, var.plain_http ? local.bundled.http : []), from = 80, to = 80 },
    ],
    [for entry in var.other_ports : { kind = entry.kind, names = entry.names, from = entry.from_port, to = coalesce(entry.to_port, entry.from_port) }],
  ) : "${set.kind}-${set.from}-${set.to}" => set if length(set.names) > 0 }

  # EC2 refuses two rules of a group with the same protocol, ports and CIDR, so each further description gets a CIDR of its
  # own. The first opens the way for all of them; the others repeat parts of it.
  # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AuthorizeSecurityGroupEgress.html
  cidrs = concat(
    var.ipv6 ? ["0.0.0.0/0", "::/0"] : ["0.0.0.0/0"],
    [for length in range(1, 33) : "0.0.0.0/${length}"],
    [for length in range(1, 33) : "128.0.0.0/${length}"],
  )

  # With IPv6 and a single description, ::/0 carries it a second time: something has to open the way.
  packed = { for key, set in local.sets : key => var.ipv6 && length(module.pack[key].descriptions) == 1 ? concat(module.pack[key].descriptions, module.pack[key].descriptions) : module.pack[key].descriptions }

  rules = merge(
    merge([for key, set in local.sets : { for index, text in local.packed[key] :
      "${key}-${index}" => { description = text, protocol = "tcp", from = set.from, to = set.to, cidr = local.cidrs[index] }
    }]...),
    { for entry in var.addresses :
      "address-${entry.protocol}-${entry.from_port}-${entry.cidr}" => {
        description = "postern:address:${entry.comment}", protocol = entry.protocol, from = entry.from_port, to = coalesce(entry.to_port, entry.from_port), cidr = entry.cidr
      }
    },
    # Every protocol: another set than all of the above, so no duplicate.
    { for cidr in var.see_thru_until == null ? [] : var.ipv6 ? ["0.0.0.0/0", "::/0"] : ["0.0.0.0/0"] :
      "see-thru-${cidr}" => { description = "postern:see-thru:${var.see_thru_until}", protocol = "-1", from = null, to = null, cidr = cidr }
    },
  )

  group = var.security_group_id == null ? aws_security_group.allowlist[0].id : var.security_group_id
}

data "aws_region" "current" {
  count = var.region == null ? 1 : 0
}

module "pack" {
  source   = "../../bundles/pack"
  for_each = local.sets

  prefix = "postern:${each.value.kind}:"
  names  = each.value.names
  limit  = 255 # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_IpRange.html
}

resource "aws_security_group" "allowlist" {
  count = var.security_group_id == null ? 1 : 0

  name_prefix = "${var.name}-"
  description = "What workloads with this group may reach through Postern"
  vpc_id      = var.vpc_id
  tags        = merge({ Name = var.name }, var.tags)

  lifecycle {
    create_before_destroy = true # Workloads hold it while its successor is attached.

    precondition {
      condition     = var.vpc_id != null
      error_message = "Give vpc_id (a new group) or security_group_id (an existing one)."
    }
  }
}

resource "aws_vpc_security_group_egress_rule" "allowlist" {
  for_each = local.rules

  security_group_id = local.group
  description       = each.value.description
  ip_protocol       = each.value.protocol
  from_port         = each.value.from
  to_port           = each.value.to
  cidr_ipv4         = strcontains(each.value.cidr, ":") ? null : each.value.cidr
  cidr_ipv6         = strcontains(each.value.cidr, ":") ? each.value.cidr : null
  tags              = merge({ Name = var.name }, var.tags)

  lifecycle {
    # 60 rules a group by default, inbound and outbound counted apart, IPv4 and IPv6 too.
    # https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html#vpc-limits-security-groups
    precondition {
      condition     = length([for rule in local.rules : rule if !strcontains(rule.cidr, ":")]) <= 60
      error_message = "More than 60 rules: spread the names over two groups, or put them into an external list (@name)."
    }
  }
}
