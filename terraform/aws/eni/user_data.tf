# User data: one TOML document whose tables are the appliance's configuration files; `postern-cloudsync configure` reads it
# at every boot and refuses a document with anything in it that nothing would read. A JSON string or array of strings is
# also a TOML one, so jsonencode() does the quoting.

locals {
  user_data = { for zone in keys(var.public_subnets) : zone => join("\n", concat(
    [
      "# Made by Terraform (terraform/aws/eni).",
      "[cloudsync]",
      "provider = \"aws\"",
      "served = ${jsonencode(var.served_cidrs)}",
    ],
    var.deployment == null ? [] : ["deployment = ${jsonencode(var.deployment)}"],
    [
      "[cloudsync.poll]",
      "appliances = ${length(var.public_subnets)}",
      "[cloudsync.logs]",
      "group = ${jsonencode(var.log_group_name)}",
      "group_managed = true", # Made here or by whoever create_log_group leaves it to; its retention too.
      "[cloudsync.aws]",
      "vpcs = ${jsonencode(var.served_vpcs)}",
      "elastic_ip = false", # It is on the interface already.
      "autoscaling_group = ${jsonencode("${local.name}-${zone}")}",
      "launch_hook = ${jsonencode(local.launch_hook)}",
    ],
    flatten([for each in var.accounts : concat(
      ["[[cloudsync.aws.accounts]]", "account = ${jsonencode(each.account)}", "role = ${jsonencode(each.role)}", "vpcs = ${jsonencode(each.vpcs)}"],
      each.external_id == null ? [] : ["external_id = ${jsonencode(each.external_id)}"],
    )]),
    local.dns,
    local.certificates,
    local.overlay,
    [""],
  )) }

  dns = length(flatten(values(var.dns))) == 0 ? [] : [
    "[postern.dns]",
    "upstreams = ${jsonencode(var.dns.upstreams)}",
    "resolver_sources = ${jsonencode(var.dns.resolver_sources)}",
    "front_record_types = ${jsonencode(var.dns.front_record_types)}",
  ]

  certificates = var.certificates.authorities == "" && var.certificates.per_second == 20 ? [] : [
    "[postern.certificates]",
    "authorities = ${jsonencode(var.certificates.authorities)}",
    "per_second = ${var.certificates.per_second}",
  ]

  overlay = length(var.overlay.groups) + length(var.overlay.clients) == 0 ? [] : concat(
    ["[overlay]"],
    flatten([for group in var.overlay.groups : concat(
      ["[[overlay.group]]", "id = ${jsonencode(group.id)}"],
      flatten([for rule in group.rules : concat(
        ["[[overlay.group.rule]]"],
        [for key, value in rule : "${key} = ${jsonencode(value)}" if value != null],
      )]),
    )]),
    flatten([for client in var.overlay.clients : concat(
      ["[[overlay.client]]"],
      [for key, value in client : "${key} = ${jsonencode(value)}" if value != null],
    )]),
  )
}
