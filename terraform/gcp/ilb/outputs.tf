output "opt_out_network_tag" {
  description = "Network tag of machines that are not to go through the appliances; null with route_tags."
  value       = var.route_tags == null ? local.bypass_tag : null
}

output "instance_group" {
  description = "The group of appliances, for the observability module."
  value       = google_compute_region_instance_group_manager.appliance.name
}

output "deployment" {
  description = "The deployment's name, or null for the only one."
  value       = var.deployment
}

output "default_preferences" {
  description = "Name of the secret that holds the preferences document."
  value       = module.appliance.preferences_secret
}

output "public_addresses" {
  description = "The reserved external addresses that servers see; empty when each appliance has one of the moment."
  value       = module.appliance.public_addresses
}

output "service_account_email" {
  description = "Whom the appliances run as."
  value       = module.appliance.service_account_email
}

output "see_thru_until" {
  description = "Last day on which everything passes and is logged; null when refusing already."
  value       = module.appliance.see_thru_until
}
