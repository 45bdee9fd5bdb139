# A VPC that is there already: the ids of one public subnet and the private route tables of each zone, and nothing else changes.
# The private tables must have no default route of somebody else's: terraform/MIGRATION.md says how it is handed over.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.30, < 7"
    }
  }
}

variable "zones" {
  description = "Availability zone to the id of its public subnet and the ids of its private route tables."
  type        = map(object({ public_subnet = string, private_route_tables = list(string) }))

  validation {
    condition     = length(var.zones) > 0
    error_message = "zones has at least one entry."
  }
}

variable "rollback_nat_gateways" {
  description = "Zone to the NAT gateway that takes over again: fill it in and apply to roll back, empty it to return."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for id in values(var.rollback_nat_gateways) : id != ""])
    error_message = "rollback_nat_gateways: every value is a NAT gateway's id."
  }
}

module "postern" {
  source = "../../aws/eni"

  public_subnets        = { for zone, it in var.zones : zone => it.public_subnet }
  route_tables          = { for zone, it in var.zones : zone => it.private_route_tables }
  rollback_nat_gateways = var.rollback_nat_gateways

  # The incumbent's log group: saved queries and subscriptions go on working.
  log_group_name   = "DiscrimiNAT"
  create_log_group = false
}

output "target_network_interfaces" {
  description = "Interface by zone, for route tables that are made elsewhere."
  value       = module.postern.target_network_interfaces
}
