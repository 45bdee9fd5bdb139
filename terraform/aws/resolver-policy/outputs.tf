output "rule_group_id" {
  description = "The rule group, for VPCs of other accounts to which it is shared."
  value       = aws_route53_resolver_firewall_rule_group.this.id
}

output "domains" {
  description = "What is resolved, as DNS Firewall is told: widened patterns included."
  value       = local.lists
}

output "blocking" {
  description = "Whether everything else is blocked, rather than reported."
  value       = local.block
}
