variable "public_subnets" {
  description = "One appliance per entry: availability zone (or any label of yours) to the id of a public subnet in that zone, whose default route is an internet gateway. Zones and private subnets should match one to one, so that no byte crosses zones."
  type        = map(string)

  validation {
    condition     = length(var.public_subnets) > 0 && alltrue([for zone in keys(var.public_subnets) : can(regex("^[a-z0-9-]{1,32}$", zone))])
    error_message = "public_subnets needs at least one entry; its keys are 1 to 32 lower-case letters, digits and hyphens."
  }
}

variable "route_tables" {
  description = "Private route tables whose default route becomes the appliance of the same zone: zone to a list of route table ids. A table that has a default route already: see \"Migration\" in the README. Empty: routes are yours, from the output target_network_interfaces."
  type        = map(list(string))
  default     = {}

  validation {
    condition     = alltrue([for zone, tables in var.route_tables : length(tables) > 0])
    error_message = "route_tables: leave a zone out instead of giving it an empty list."
  }
}

variable "rollback_nat_gateways" {
  description = "Rollback in one apply: zone to the id of a NAT gateway. The default routes of that zone's route_tables are switched to it in place, and back when the entry is removed; the appliance stays as it is. IPv6 default routes of the zone are removed meanwhile, as NAT gateways take IPv4."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for id in values(var.rollback_nat_gateways) : id != ""])
    error_message = "rollback_nat_gateways: every value is a NAT gateway's id."
  }
}

variable "bypass_routes" {
  description = "Destinations that do not go through the appliance, in every table of route_tables: a CIDR (v4 or v6) and exactly one target."
  type = list(object({
    cidr                      = string
    nat_gateway_id            = optional(string)
    transit_gateway_id        = optional(string)
    vpc_peering_connection_id = optional(string)
    gateway_id                = optional(string)
    vpc_endpoint_id           = optional(string)
  }))
  default = []

  validation {
    condition     = alltrue([for route in var.bypass_routes : can(cidrhost(route.cidr, 0))])
    error_message = "bypass_routes: cidr is an IPv4 or IPv6 network such as 192.0.2.0/24."
  }
}

variable "deployment" {
  description = "Name of this deployment, where an account and region has several: it ends the names of everything made here and chooses the preferences document postern_<deployment>. Null: the only one, whose document is called postern."
  type        = string
  default     = null

  validation {
    condition     = var.deployment == null || can(regex("^[a-z0-9][a-z0-9-]{0,23}$", var.deployment))
    error_message = "deployment is 1 to 24 lower-case letters, digits and hyphens, beginning with a letter or digit."
  }
}

variable "preferences" {
  description = "Preferences of the deployment, as in the README's table, without %default around them and without see_thru, which enforce_now, see_thru_days and see_thru_until decide. What is left out keeps its default."
  type        = any
  default     = {}

  validation {
    condition = can(keys(var.preferences)) && length(setsubtract(try(keys(var.preferences), ["none"]), [
      "wildcard_exposure", "flow_log_verbosity", "x509_crls", "certificate_check", "address_mismatch", "ech", "plaintext_http",
      "address_rules", "quic", "on_policy_change", "allow_private_answers", "dns_front", "internal_zones",
    ])) == 0
    error_message = "preferences is a map; its keys are wildcard_exposure, flow_log_verbosity, x509_crls, certificate_check, address_mismatch, ech, plaintext_http, address_rules, quic, on_policy_change, allow_private_answers, dns_front and internal_zones (see_thru has variables of its own)."
  }
  validation {
    condition = alltrue([for key, values in {
      wildcard_exposure  = ["none", "prohibit_asterisk", "prohibit_public_suffix", "nuclear"]
      flow_log_verbosity = ["full", "sessions", "only_disallowed", "none"]
      x509_crls          = ["ignore", "allow"]
      certificate_check  = ["observe", "enforce", "off"]
      address_mismatch   = ["refuse", "observe"]
      ech                = ["refuse", "allow_outer"]
      plaintext_http     = ["refuse", "allow_listed"]
      address_rules      = ["refuse", "allow"]
      quic               = ["refuse", "inspect"]
      on_policy_change   = ["end_refused", "keep"]
      dns_front          = ["off", "enforce", "observe"]
    } : try(contains(values, var.preferences[key]), !contains(try(keys(var.preferences), []), key))])
    error_message = "preferences: a value is none of those the README's table lists for its key."
  }
}

variable "enforce_now" {
  description = "Refuse from the first minute. False: the first see_thru_days pass everything, logged with what would have refused it."
  type        = bool
  default     = false
}

variable "see_thru_days" {
  description = "How many days a new deployment watches before it refuses, counted from the first apply; the day is kept in state and does not move."
  type        = number
  default     = 14

  validation {
    condition     = var.see_thru_days >= 1 && var.see_thru_days <= 365 && floor(var.see_thru_days) == var.see_thru_days
    error_message = "see_thru_days is a whole number from 1 to 365."
  }
}

variable "see_thru_until" {
  description = "Last day of watching, YYYY-MM-DD, UTC, inclusive, instead of one computed from see_thru_days; it can be set again at any time, for instance to look at one release. Ignored with enforce_now."
  type        = string
  default     = null

  validation {
    condition     = var.see_thru_until == null || can(formatdate("YYYY-MM-DD", "${var.see_thru_until}T00:00:00Z"))
    error_message = "see_thru_until is a day such as 2027-01-31."
  }
}

variable "instance_type" {
  description = "Size of each appliance, at least 1 GiB of memory. The cost table in terraform/COST.md says which carries what. An Arm type (a g after the generation: c7g, t4g) needs an Arm image."
  type        = string
  default     = "t3.small"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*[0-9][a-z0-9-]*\\.[a-z0-9-]+$", var.instance_type))
    error_message = "instance_type is an EC2 instance type such as c6i.large."
  }
}

variable "ami_id" {
  description = "Image to run. Null: the newest that ami_owners have with a name matching ami_name, looked up at every plan, so that building an image and applying is the whole upgrade."
  type        = string
  default     = null

  validation {
    condition     = var.ami_id == null || can(regex("^ami-[0-9a-f]{8,17}$", var.ami_id))
    error_message = "ami_id is an image's id such as ami-0123456789abcdef0."
  }
}

variable "ami_owners" {
  description = "Accounts whose images are looked for: self, or account numbers. packer/ builds the image into your own account."
  type        = list(string)
  default     = ["self"]

  validation {
    condition     = length(var.ami_owners) > 0 && alltrue([for owner in var.ami_owners : can(regex("^(self|[0-9]{12})$", owner))])
    error_message = "ami_owners are self or 12-digit account numbers; an image of anybody's would be a way in."
  }
}

variable "ami_name" {
  description = "Pattern of the image's name."
  type        = string
  default     = "postern-*"

  validation {
    condition     = length(var.ami_name) >= 3
    error_message = "ami_name has at least 3 characters."
  }
}

variable "static_addresses" {
  description = "Elastic IPs of yours to keep: zone to allocation id. A zone left out gets a new one, which lives as long as this module."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for id in values(var.static_addresses) : id != ""])
    error_message = "static_addresses: every value is an Elastic IP's allocation id."
  }
}

variable "ipv6" {
  description = "Whether the appliances take IPv6 too: one address each, a ::/0 route in every table of route_tables, and source translation like IPv4's. The public subnets need an IPv6 CIDR and a ::/0 route to an internet gateway."
  type        = bool
  default     = false
}

variable "served_vpcs" {
  description = "Ids of the VPCs whose interfaces are clients, where traffic of other VPCs arrives too (peering, transit gateway). Empty: the VPC of the subnets."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for id in var.served_vpcs : id != ""])
    error_message = "served_vpcs are VPC ids."
  }
}

variable "served_cidrs" {
  description = "Source networks that may be clients beside those of the served VPCs, such as on-premises ranges that overlay lists."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.served_cidrs : can(cidrhost(cidr, 0))])
    error_message = "served_cidrs are networks such as 10.0.0.0/8."
  }
}

variable "dns" {
  description = "Whom the appliance asks for names, the resolvers of its network by default. The DNS front (preference dns_front) needs upstreams, such as 169.254.169.253, and answers cloud resolvers that are resolver_sources for all the clients behind them; front_record_types are passed on beside the usual ones, such as TXT."
  type = object({
    upstreams          = optional(list(string), [])
    resolver_sources   = optional(list(string), [])
    front_record_types = optional(list(string), [])
  })
  default = {}

  validation {
    condition     = alltrue([for address in var.dns.upstreams : can(cidrhost("${address}/${strcontains(address, ":") ? 128 : 32}", 0))])
    error_message = "dns: upstreams are addresses, v4 or v6."
  }
  validation {
    condition     = alltrue([for source in var.dns.resolver_sources : can(cidrhost(strcontains(source, "/") ? source : "${source}/${strcontains(source, ":") ? 128 : 32}", 0))])
    error_message = "dns: resolver_sources are addresses or networks, v4 or v6."
  }
}

variable "certificates" {
  description = "How the certificates of allowed servers are looked at (preference certificate_check): private authorities to trust beside the system's, in PEM, and how many handshakes of its own an appliance makes a second, 0 for none."
  type = object({
    authorities = optional(string, "")
    per_second  = optional(number, 20)
  })
  default = {}

  validation {
    condition     = var.certificates.authorities == "" || strcontains(var.certificates.authorities, "-----BEGIN CERTIFICATE-----")
    error_message = "certificates: authorities are certificates in PEM."
  }
  validation {
    condition     = var.certificates.per_second >= 0 && var.certificates.per_second <= 100
    error_message = "certificates: per_second is 0 to 100."
  }
}

variable "overlay" {
  description = "Clients and groups that no security group describes: local groups with their annotations, and clients by address or CIDR with ids of local groups or security groups."
  type = object({
    groups = optional(list(object({
      id = string
      rules = list(object({
        description = string
        protocol    = optional(string, "tcp")
        ports       = optional(string, "443")
        cidr        = optional(string)
      }))
    })), [])
    clients = optional(list(object({
      address  = string
      instance = optional(string)
      groups   = list(string)
    })), [])
  })
  default = {}

  validation {
    condition     = alltrue([for client in var.overlay.clients : can(cidrhost(strcontains(client.address, "/") ? client.address : "${client.address}/${strcontains(client.address, ":") ? 128 : 32}", 0))])
    error_message = "overlay: a client's address is an address or a network, v4 or v6."
  }
}

variable "log_group_name" {
  description = "CloudWatch log group of both logs; DiscrimiNAT keeps saved queries of the incumbent's working."
  type        = string
  default     = "postern"

  validation {
    condition     = can(regex("^[a-zA-Z0-9_/.#-]{1,512}$", var.log_group_name))
    error_message = "log_group_name has letters, digits and _/.#- only."
  }
}

variable "create_log_group" {
  description = "Whether the log group is made here. False where another deployment or module owns it."
  type        = bool
  default     = true
}

variable "log_retention_days" {
  description = "Days that CloudWatch keeps log lines; 0 keeps them for ever."
  type        = number
  default     = 365

  # https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
  validation {
    condition     = contains([0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is one of CloudWatch's: 0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653."
  }
}

variable "kms_key_arn" {
  description = "KMS key for the root volumes and the log group. Its policy must let the CloudWatch Logs service of the region and the Auto Scaling service-linked role use it. Null: AWS's own keys; both are encrypted either way."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key (not an alias)."
  }
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of the appliances' role."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:[a-z-]+:iam::", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn is the ARN of an IAM policy."
  }
}

variable "extra_policy_arns" {
  description = "Further policies for the appliances' role, by a name of yours: arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore for Session Manager, for instance."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for arn in values(var.extra_policy_arns) : can(regex("^arn:[a-z-]+:iam::", arn))])
    error_message = "extra_policy_arns are ARNs of IAM policies."
  }
}

variable "extra_lists" {
  description = "ARNs of SSM parameters and Secrets Manager secrets that annotations refer to as @lists and whose names begin neither with postern nor DiscrimiNAT; also in other accounts."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.extra_lists : can(regex("^arn:[a-z-]+:(ssm|secretsmanager):[a-z0-9-]+:[0-9]{12}:(parameter/|secret:).+$", arn))])
    error_message = "extra_lists are ARNs such as arn:aws:ssm:eu-west-1:123456789012:parameter/team1-list."
  }
}

variable "accounts" {
  description = "Other accounts whose security groups and interfaces are read by assuming a role there: for shared VPCs and transit gateways."
  type = list(object({
    account     = string
    role        = string
    external_id = optional(string)
    vpcs        = optional(list(string), [])
  }))
  default = []

  validation {
    condition     = alltrue([for each in var.accounts : can(regex("^[0-9]{12}$", each.account)) && can(regex("^arn:[a-z-]+:iam::[0-9]{12}:role/", each.role))])
    error_message = "accounts: account has 12 digits, role is a role's ARN."
  }
}

variable "root_volume_gb" {
  description = "Size of the root volume: the image plus 1 GiB of spool for days when no log can be shipped."
  type        = number
  default     = 8

  validation {
    condition     = var.root_volume_gb >= 4 && var.root_volume_gb <= 1024
    error_message = "root_volume_gb is from 4 to 1024."
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
