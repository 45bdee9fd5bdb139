output "rule_names" {
  description = "Names of the firewall rules: what logs show as gid."
  value       = { for key, rule in google_compute_firewall.allowlist : key => rule.name }
}

output "descriptions" {
  description = "Every rule's description, by rule: for review, and for postern lint."
  value       = { for key, rule in local.rules : key => rule.description }
}

output "names" {
  description = "The names allowed, bundles resolved: for the resolver-policy module."
  value       = distinct(flatten([for set in local.sets : [for name in set.names : split("=", name)[0] if !startswith(name, "@")]]))
}
