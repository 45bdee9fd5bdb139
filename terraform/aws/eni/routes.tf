# Steering. A route is updated in place, so neither deploying nor rolling back leaves a moment without one.

locals {
  tables = merge([for zone, ids in var.route_tables : { for index, id in ids : "${zone}/${index}" => { zone = zone, id = id } }]...)

  bypasses = merge([for key, table in local.tables : { for route in var.bypass_routes : "${key} ${route.cidr}" => merge(route, { table = table.id }) }]...)
}

resource "aws_route" "ipv4" {
  for_each = local.tables

  route_table_id         = each.value.id
  destination_cidr_block = "0.0.0.0/0"
  network_interface_id   = contains(keys(var.rollback_nat_gateways), each.value.zone) ? null : aws_network_interface.appliance[each.value.zone].id
  nat_gateway_id         = lookup(var.rollback_nat_gateways, each.value.zone, null)

  # A workload must not be steered to an appliance that is not there yet.
  depends_on = [aws_autoscaling_group.appliance]
}

resource "aws_route" "ipv6" {
  for_each = { for key, table in local.tables : key => table if var.ipv6 && !contains(keys(var.rollback_nat_gateways), table.zone) }

  route_table_id              = each.value.id
  destination_ipv6_cidr_block = "::/0"
  network_interface_id        = aws_network_interface.appliance[each.value.zone].id

  depends_on = [aws_autoscaling_group.appliance]
}

resource "aws_route" "bypass" {
  for_each = local.bypasses

  route_table_id              = each.value.table
  destination_cidr_block      = strcontains(each.value.cidr, ":") ? null : each.value.cidr
  destination_ipv6_cidr_block = strcontains(each.value.cidr, ":") ? each.value.cidr : null
  nat_gateway_id              = each.value.nat_gateway_id
  transit_gateway_id          = each.value.transit_gateway_id
  vpc_peering_connection_id   = each.value.vpc_peering_connection_id
  gateway_id                  = each.value.gateway_id
  vpc_endpoint_id             = each.value.vpc_endpoint_id
}
