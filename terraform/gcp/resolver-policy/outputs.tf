output "response_policy_name" {
  description = "The response policy, for rules of your own."
  value       = google_dns_response_policy.this.response_policy_name
}

output "domains" {
  description = "What is resolved, as Cloud DNS is told: widened patterns included."
  value       = local.names
}

output "blocking" {
  description = "Whether everything else is blocked."
  value       = local.block
}
