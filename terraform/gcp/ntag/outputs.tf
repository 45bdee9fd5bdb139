output "zonal_network_tags" {
  description = "Zone to the network tag that sends a machine's traffic to that zone's appliance."
  value       = { for zone in local.zones : zone => "${module.appliance.name}-${zone}" }
}

output "next_hop_addresses" {
  description = "Zone to the fixed internal address of its appliance, for routes of your own."
  value       = { for zone, address in google_compute_address.internal : zone => address.address }
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
