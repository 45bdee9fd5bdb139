variable "networks" {
  description = "Self links of the networks whose queries to Cloud DNS are held to the names. A network has at most one response policy."
  type        = list(string)

  validation {
    condition     = length(var.networks) > 0 && alltrue([for network in var.networks : network != ""])
    error_message = "networks has at least one self link."
  }
}

variable "names" {
  description = "Names that may be resolved, patterns included: what `postern-cloudsync once --print-names` prints, read with split(\"\\n\", trimspace(file(...))), or the output names of allowlist modules."
  type        = list(string)

  validation {
    condition     = alltrue([for name in var.names : can(regex("^[A-Za-z0-9_*?.-]{1,253}$", trimspace(name)))])
    error_message = "names are names or patterns, one each."
  }
}

variable "internal_zones" {
  description = "Zones of yours that are resolved as before, with everything below them: corp.example."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for zone in var.internal_zones : can(regex("^[A-Za-z0-9_.-]{1,253}$", zone))])
    error_message = "internal_zones are names without wildcards."
  }
}

variable "cloud_zones" {
  description = "Zones of the platform that are resolved with everything below them: internal is that of machines' and metadata's names. googleapis.com is not in it, because a bucket's name under storage.googleapis.com is anybody's; list the APIs you use in names."
  type        = list(string)
  default     = ["internal"]

  validation {
    condition     = alltrue([for zone in var.cloud_zones : can(regex("^[A-Za-z0-9_.-]{1,253}$", zone))])
    error_message = "cloud_zones are names without wildcards."
  }
}

variable "enforce_now" {
  description = "Block from the first minute. False: for observe_days the policy allows everything, while Cloud DNS query logging shows what is asked; the first apply after that blocks."
  type        = bool
  default     = false
}

variable "observe_days" {
  description = "How many days a new policy lets everything pass, counted from the first apply."
  type        = number
  default     = 14

  validation {
    condition     = var.observe_days >= 1 && var.observe_days <= 365 && floor(var.observe_days) == var.observe_days
    error_message = "observe_days is a whole number from 1 to 365."
  }
}

variable "project" {
  description = "Project of the networks. Null: the provider's."
  type        = string
  default     = null

  validation {
    condition     = var.project == null || can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project is a project's id."
  }
}

variable "name" {
  description = "Name of the response policy."
  type        = string
  default     = "postern"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,46}[a-z0-9])?$", var.name))
    error_message = "name is 1 to 48 lower-case letters, digits and hyphens, beginning with a letter."
  }
}
