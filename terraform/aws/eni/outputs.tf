output "cloudwatch_log_group_name" {
  description = "Log group of both logs, for the observability module and for forwarding."
  value       = var.create_log_group ? aws_cloudwatch_log_group.postern[0].name : var.log_group_name
}

output "target_network_interfaces" {
  description = "Zone to the id of its appliance's interface: the target of default routes that you make yourself."
  value       = { for zone, interface in aws_network_interface.appliance : zone => interface.id }
}

output "public_addresses" {
  description = "Zone to the IPv4 address that servers see, for their allowlists. A static address of yours is in your own state."
  value       = { for zone, address in aws_eip.appliance : zone => address.public_ip }
}

output "ipv6_addresses" {
  description = "Zone to the IPv6 addresses that servers see; empty without ipv6."
  value       = { for zone, interface in aws_network_interface.appliance : zone => interface.ipv6_addresses if var.ipv6 }
}

output "autoscaling_group_names" {
  description = "Zone to the Auto Scaling group, for the observability module."
  value       = { for zone, group in aws_autoscaling_group.appliance : zone => group.name }
}

output "iam_role_name" {
  description = "The appliances' role, to be trusted by the roles in accounts."
  value       = aws_iam_role.appliance.name
}

output "iam_role_arn" {
  description = "The same role's ARN."
  value       = aws_iam_role.appliance.arn
}

output "security_group_id" {
  description = "The appliances' security group. Workloads do not need it."
  value       = aws_security_group.appliance.id
}

output "see_thru_until" {
  description = "Last day on which everything passes and is logged; null when refusing already."
  value       = local.see_thru
}
