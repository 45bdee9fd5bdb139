# A network that is there already, one machine at a time: only those with the output's tags go through an appliance.

terraform {
  required_version = ">= 1.5"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0, < 8"
    }
  }
}

variable "region" {
  description = "Region of the subnet."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region is such as europe-west1."
  }
}

variable "subnetwork" {
  description = "Name of the subnet the appliances stand in."
  type        = string

  validation {
    condition     = var.subnetwork != ""
    error_message = "subnetwork is a subnet's name."
  }
}

module "postern" {
  source = "../../gcp/ntag"

  region     = var.region
  subnetwork = var.subnetwork
}

output "zonal_network_tags" {
  description = "Tag by zone: give it to a machine and it goes through that zone's appliance."
  value       = module.postern.zonal_network_tags
}
