output "security_group_id" {
  description = "The group that carries the rules: attach it to the workloads."
  value       = local.group
}

output "descriptions" {
  description = "Every rule's description, by rule: for review, and for postern lint."
  value       = { for key, rule in local.rules : key => rule.description }
}

output "names" {
  description = "The names allowed, bundles resolved: for the resolver-policy module."
  value       = distinct(flatten([for set in local.sets : [for name in set.names : split("=", name)[0] if !startswith(name, "@")]]))
}
