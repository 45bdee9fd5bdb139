variable "project" {
  description = "Project whose appliances are watched. Null: the provider's."
  type        = string
  default     = null

  validation {
    condition     = var.project == null || can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project is a project's id."
  }
}

variable "location" {
  description = "Where the log bucket is: a region, or global."
  type        = string
  default     = "global"

  validation {
    condition     = can(regex("^[a-z0-9-]+$", var.location))
    error_message = "location is a region or global."
  }
}

variable "log_retention_days" {
  description = "Days that the log bucket keeps lines."
  type        = number
  default     = 365

  # https://cloud.google.com/logging/quotas#logs_retention_periods
  validation {
    condition     = var.log_retention_days >= 1 && var.log_retention_days <= 3650
    error_message = "log_retention_days is from 1 to 3650."
  }
}

variable "log_kms_key" {
  description = "Cloud KMS key for the log bucket, as projects/P/locations/L/keyRings/R/cryptoKeys/K; the location must not be global then. Null: Google's own."
  type        = string
  default     = null

  validation {
    condition     = var.log_kms_key == null || can(regex("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.log_kms_key))
    error_message = "log_kms_key is projects/P/locations/L/keyRings/R/cryptoKeys/K."
  }
}

variable "name" {
  description = "What names of everything begin with."
  type        = string
  default     = "postern"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,40}$", var.name))
    error_message = "name is 1 to 41 lower-case letters, digits and hyphens, beginning with a letter."
  }
}

variable "notification_channels" {
  description = "Monitoring channels told when an alert goes off: projects/P/notificationChannels/N."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for channel in var.notification_channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", channel))])
    error_message = "notification_channels are projects/P/notificationChannels/N."
  }
}

variable "refusals_factor" {
  description = "How many times the refusals of the same hour a week ago raise the alert."
  type        = number
  default     = 3

  validation {
    condition     = var.refusals_factor > 1 && var.refusals_factor <= 100
    error_message = "refusals_factor is above 1 and at most 100."
  }
}

variable "forward_destination" {
  description = "Where lines go on to, for the organisation's SIEM: pubsub.googleapis.com/..., bigquery.googleapis.com/..., storage.googleapis.com/... or logging.googleapis.com/... Grant the output forward_writer the right to write there. Null: nowhere."
  type        = string
  default     = null

  validation {
    condition     = var.forward_destination == null || can(regex("^(pubsub|bigquery|storage|logging)\\.googleapis\\.com/", var.forward_destination))
    error_message = "forward_destination begins with pubsub.googleapis.com/, bigquery.googleapis.com/, storage.googleapis.com/ or logging.googleapis.com/."
  }
}

variable "forward_logs" {
  description = "Which logs are forwarded: flow, config, dns, end."
  type        = set(string)
  default     = ["flow", "config"]

  validation {
    condition     = length(var.forward_logs) > 0 && length(setsubtract(var.forward_logs, ["flow", "config", "dns", "end"])) == 0
    error_message = "forward_logs are flow, config, dns and end."
  }
}
