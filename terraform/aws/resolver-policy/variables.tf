variable "vpc_ids" {
  description = "VPCs whose queries to the VPC resolver are held to the names, by a key of yours (the key stays when the VPC is replaced)."
  type        = map(string)

  validation {
    condition     = length(var.vpc_ids) > 0 && alltrue([for id in values(var.vpc_ids) : id != ""])
    error_message = "vpc_ids has at least one VPC's id."
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
  description = "Zones of the platform that are resolved with everything below them: private host names, and endpoints answered inside the VPC. The default has no zone in which a stranger can get a name; amazonaws.com is not in it, because a bucket's or a load balancer's name is anybody's."
  type        = list(string)
  default     = ["internal", "compute.internal", "ec2.internal", "local"]

  validation {
    condition     = alltrue([for zone in var.cloud_zones : can(regex("^[A-Za-z0-9_.-]{1,253}$", zone))])
    error_message = "cloud_zones are names without wildcards."
  }
}

variable "enforce_now" {
  description = "Block from the first minute. False: for observe_days everything is answered and what would have been blocked raises an alert in the query log; the first apply after that blocks."
  type        = bool
  default     = false
}

variable "observe_days" {
  description = "How many days a new policy only alerts, counted from the first apply."
  type        = number
  default     = 14

  validation {
    condition     = var.observe_days >= 1 && var.observe_days <= 365 && floor(var.observe_days) == var.observe_days
    error_message = "observe_days is a whole number from 1 to 365."
  }
}

variable "fail_open" {
  description = "Whether queries are answered while DNS Firewall itself does not answer. False is fail closed, as everything else here is."
  type        = bool
  default     = false
}

variable "query_log_destination_arn" {
  description = "Log group, bucket or Firehose stream for the resolver's query log, where alerts and blocks are seen. Null: none."
  type        = string
  default     = null

  validation {
    condition     = var.query_log_destination_arn == null || can(regex("^arn:[a-z-]+:(logs|s3|firehose):", var.query_log_destination_arn))
    error_message = "query_log_destination_arn is the ARN of a log group, a bucket or a Firehose stream."
  }
}

variable "priority" {
  description = "Priority of the rule group among those of a VPC, 101 to 9900; lower is earlier."
  type        = number
  default     = 101

  # https://docs.aws.amazon.com/Route53/latest/APIReference/API_route53resolver_AssociateFirewallRuleGroup.html
  validation {
    condition     = var.priority > 100 && var.priority < 9900
    error_message = "priority is above 100 and below 9900."
  }
}

variable "name" {
  description = "What names of everything begin with."
  type        = string
  default     = "postern"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,48}$", var.name))
    error_message = "name is 1 to 48 letters, digits, _ and -."
  }
}

variable "tags" {
  description = "Tags for everything made here."
  type        = map(string)
  default     = {}

  validation {
    condition     = !anytrue([for key in keys(var.tags) : startswith(lower(key), "aws:")])
    error_message = "tags: keys that begin with aws: are AWS's own."
  }
}
