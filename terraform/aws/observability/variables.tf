variable "log_group_name" {
  description = "Log group of the appliances: output cloudwatch_log_group_name of the eni module."
  type        = string

  validation {
    condition     = var.log_group_name != ""
    error_message = "log_group_name is a log group's name."
  }
}

variable "autoscaling_group_names" {
  description = "Zone to Auto Scaling group, as the eni module says: for the alarms about instances. Empty: no such alarms."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in values(var.autoscaling_group_names) : name != ""])
    error_message = "autoscaling_group_names: every value is a group's name."
  }
}

variable "name" {
  description = "What the names of alarms, dashboard and queries begin with, and the metric namespace."
  type        = string
  default     = "postern"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,64}$", var.name))
    error_message = "name is 1 to 64 letters, digits, _ and -."
  }
}

variable "alarm_topic_arns" {
  description = "SNS topics told when an alarm goes off, and when it is over."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.alarm_topic_arns : can(regex("^arn:[a-z-]+:sns:", arn))])
    error_message = "alarm_topic_arns are ARNs of SNS topics."
  }
}

variable "refusals_sensitivity" {
  description = "Width of the band around the usual number of refusals, in standard deviations: the alarm goes off above it."
  type        = number
  default     = 3

  validation {
    condition     = var.refusals_sensitivity >= 1 && var.refusals_sensitivity <= 20
    error_message = "refusals_sensitivity is from 1 to 20."
  }
}

variable "forward_destination_arn" {
  description = "Where both logs go on to, for the organisation's SIEM: a Firehose stream, a Kinesis stream, a Lambda function or a CloudWatch Logs destination. Null: nowhere."
  type        = string
  default     = null

  validation {
    condition     = var.forward_destination_arn == null || can(regex("^arn:[a-z-]+:(firehose|kinesis|lambda|logs):", var.forward_destination_arn))
    error_message = "forward_destination_arn is the ARN of a Firehose or Kinesis stream, a function or a Logs destination."
  }
}

variable "forward_role_arn" {
  description = "Role that CloudWatch Logs takes to write to a Firehose or Kinesis stream; functions and destinations need none."
  type        = string
  default     = null

  validation {
    condition     = var.forward_role_arn == null || can(regex("^arn:[a-z-]+:iam::", var.forward_role_arn))
    error_message = "forward_role_arn is a role's ARN."
  }
}

variable "forward_logs" {
  description = "Which lines are forwarded: flow (refused and allowed), config, dns, end. A subscription takes them by what they have, so one destination can get either log or both."
  type        = set(string)
  default     = ["flow", "config"]

  validation {
    condition     = length(var.forward_logs) > 0 && length(setsubtract(var.forward_logs, ["flow", "config", "dns", "end"])) == 0
    error_message = "forward_logs are flow, config, dns and end."
  }
}

variable "tags" {
  description = "Tags for the alarms."
  type        = map(string)
  default     = {}

  validation {
    condition     = !anytrue([for key in keys(var.tags) : startswith(lower(key), "aws:")])
    error_message = "tags: keys that begin with aws: are AWS's own."
  }
}
