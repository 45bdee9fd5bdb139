# User data: one TOML document whose tables are the appliance's configuration files; `postern-cloudsync configure` reads it
# at every boot and refuses a document with anything in it that nothing would read. A JSON string or array of strings is
# also a TOML one, so jsonencode() does the quoting.

locals {
  user_data = join("\n", concat(
    [
      "# Made by Terraform (terraform/gcp).",
      "[cloudsync]",
      "provider = \"gcp\"",
      "served = ${jsonencode(distinct(concat(var.client_cidrs, var.served_cidrs)))}",
    ],
    var.deployment == null ? [] : ["deployment = ${jsonencode(var.deployment)}"],
    [
      "[cloudsync.poll]",
      "appliances = ${var.appliances}",
      "[cloudsync.gcp]",
      "networks = ${jsonencode(var.networks)}",
    ],
    var.service_projects == null ? [] : ["service_projects = ${jsonencode(var.service_projects)}"],
    flatten([for subnet in var.serverless_subnets : [
      "[[cloudsync.gcp.subnet]]",
      "name = ${jsonencode(subnet.name)}",
      "tags = ${jsonencode(subnet.tags)}",
      "service_accounts = ${jsonencode(subnet.service_accounts)}",
    ]]),
    local.dns,
    local.certificates,
    local.overlay,
    [""],
  ))

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
