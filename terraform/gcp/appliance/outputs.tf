output "name" {
  description = "What the names of everything begin with: postern, or postern-DEPLOYMENT."
  value       = local.name
}

output "labels" {
  description = "Labels of everything."
  value       = local.labels
}

output "project" {
  description = "Project everything is in."
  value       = local.project
}

output "self_tag" {
  description = "Network tag of the appliances themselves."
  value       = local.self_tag
}

output "templates" {
  description = "Self links of the instance templates, by zone, or by the empty string where there is one."
  value       = { for key, template in google_compute_instance_template.appliance : key => template.self_link }
}

output "service_account_email" {
  description = "Whom the appliances run as."
  value       = local.service_account
}

output "public_addresses" {
  description = "The reserved external addresses; empty when each appliance has one of the moment."
  value       = google_compute_address.egress[*].address
}

output "see_thru_until" {
  description = "Last day on which everything passes and is logged; null when refusing already."
  value       = local.see_thru
}

output "preferences_secret" {
  description = "Name of the preferences document's secret."
  value       = google_secret_manager_secret.preferences.secret_id
}
