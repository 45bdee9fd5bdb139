variable "region" {
  description = "Region of the appliances and of the subnet."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region is such as europe-west1."
  }
}

variable "subnetwork" {
  description = "Name of the subnet the appliances stand in. Private Google Access must be on where they take static_addresses, so that they reach Google's APIs before they have one."
  type        = string

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$", var.subnetwork))
    error_message = "subnetwork is a subnet's name, without project and region."
  }
}

variable "project" {
  description = "Project of the network and the appliances: the host project of a Shared VPC. Null: the provider's."
  type        = string
  default     = null

  validation {
    condition     = var.project == null || can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project is a project's id."
  }
}

variable "deployment" {
  description = "Name of this deployment, where a project has several: it ends the names of everything made here and chooses the preferences secret postern_<deployment>. Null: the only one, whose secret is called postern."
  type        = string
  default     = null

  validation {
    condition     = var.deployment == null || can(regex("^[a-z0-9][a-z0-9-]{0,15}$", var.deployment))
    error_message = "deployment is 1 to 16 lower-case letters, digits and hyphens, beginning with a letter or digit."
  }
}

variable "zones" {
  description = "Zones of the region that get appliances. Empty: all of them."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for zone in var.zones : can(regex("^[a-z]+-[a-z]+[0-9]+-[a-z]$", zone))])
    error_message = "zones are such as europe-west1-b."
  }
}

variable "route_tags" {
  description = "Network tags of the machines whose default route goes through the appliances. Null: all machines of the network but those tagged as the output opt_out_network_tag says."
  type        = list(string)
  default     = null

  validation {
    condition     = var.route_tags == null || length(coalesce(var.route_tags, ["x"])) > 0
    error_message = "route_tags is null or has at least one tag."
  }
}

variable "route_enabled" {
  description = "Rollback in one apply: false takes the default routes away and leaves the appliances as they are, so that Cloud NAT's route serves again."
  type        = bool
  default     = true
}

variable "min_replicas" {
  description = "Fewest appliances the autoscaler keeps; 2 outlive the loss of a zone."
  type        = number
  default     = 2

  validation {
    condition     = var.min_replicas >= 1 && var.min_replicas <= 64 && floor(var.min_replicas) == var.min_replicas
    error_message = "min_replicas is a whole number from 1 to 64."
  }
}

variable "max_replicas" {
  description = "Most appliances the autoscaler makes."
  type        = number
  default     = 6

  validation {
    condition     = var.max_replicas >= 1 && var.max_replicas <= 64 && floor(var.max_replicas) == var.max_replicas
    error_message = "max_replicas is a whole number from 1 to 64."
  }
}

variable "cpu_target" {
  description = "Share of CPU at which the autoscaler adds an appliance."
  type        = number
  default     = 0.6

  validation {
    condition     = var.cpu_target > 0 && var.cpu_target <= 1
    error_message = "cpu_target is above 0 and at most 1."
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

variable "machine_type" {
  description = "Size of each appliance, at least 1 GiB of memory. The cost table in terraform/COST.md says which carries what. An Arm type (t2a, c4a) needs an Arm image: image_family = \"postern-arm64\"."
  type        = string
  default     = "e2-small"

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*-[a-z0-9-]+$", var.machine_type))
    error_message = "machine_type is a Compute Engine type such as n2d-highcpu-2."
  }
}

variable "image" {
  description = "Image to run, as a self link or projects/P/global/images/NAME. Null: the newest of image_family, looked up at every plan, so that building an image and applying is the whole upgrade."
  type        = string
  default     = null

  validation {
    condition     = var.image == null || can(regex("projects/[^/]+/global/images/[^/]+$", var.image))
    error_message = "image ends in projects/P/global/images/NAME."
  }
}

variable "image_project" {
  description = "Project whose images are looked for. Null: project. packer/ builds the image into your own."
  type        = string
  default     = null

  validation {
    condition     = var.image_project == null || can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.image_project))
    error_message = "image_project is a project's id."
  }
}

variable "image_family" {
  description = "Family of the image: packer/ names it postern-amd64 or postern-arm64."
  type        = string
  default     = "postern-amd64"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$", var.image_family))
    error_message = "image_family is an image family's name."
  }
}

variable "static_addresses" {
  description = "How many external IPv4 addresses to reserve, labelled so that appliances take a free one each: at least as many as there can be appliances at once, replacements included. 0: an address of the moment for each."
  type        = number
  default     = 0

  validation {
    condition     = var.static_addresses >= 0 && var.static_addresses <= 64 && floor(var.static_addresses) == var.static_addresses
    error_message = "static_addresses is a whole number from 0 to 64."
  }
}

variable "client_cidrs" {
  description = "Source networks that may send through the appliances: the VPC firewall in front of them admits these, and the appliance then asks which machine it is."
  type        = list(string)
  default     = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]

  validation {
    condition     = length(var.client_cidrs) > 0 && alltrue([for cidr in var.client_cidrs : can(cidrhost(cidr, 0))])
    error_message = "client_cidrs are networks such as 10.0.0.0/8."
  }
}

variable "bypass_cidrs" {
  description = "Destinations that do not go through the appliances but straight to the internet gateway (from machines that have an external address, or over Private Google Access): name to CIDR."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, cidr in var.bypass_cidrs : can(cidrhost(cidr, 0)) && can(regex("^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", name))])
    error_message = "bypass_cidrs: names are lower-case letters, digits and hyphens, values networks such as 34.126.0.0/18."
  }
}

variable "served_cidrs" {
  description = "Source networks that may be clients beside the networks' own, such as on-premises ranges that overlay lists."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.served_cidrs : can(cidrhost(cidr, 0))])
    error_message = "served_cidrs are networks such as 10.0.0.0/8."
  }
}

variable "networks" {
  description = "Networks whose machines are clients, NAME or PROJECT/NAME, where more than the subnet's own are peered to it. Empty: the subnet's own."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for network in var.networks : can(regex("^([a-z][a-z0-9-]*/)?[a-z][a-z0-9-]*$", network))])
    error_message = "networks are NAME or PROJECT/NAME."
  }
}

variable "service_projects" {
  description = "Projects attached to a Shared VPC whose machines are clients; the appliances' service account gets its reading role there. Null: whatever is attached, and the roles are yours to grant."
  type        = list(string)
  default     = null

  validation {
    condition     = var.service_projects == null || alltrue([for project in coalesce(var.service_projects, []) : can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", project))])
    error_message = "service_projects are project ids."
  }
}

variable "serverless_subnets" {
  description = "Subnets whose addresses are clients though no machine has them: serverless connectors and direct VPC egress, by REGION/NAME, with the tags and service accounts that they count as having."
  type = list(object({
    name             = string
    tags             = optional(list(string), [])
    service_accounts = optional(list(string), [])
  }))
  default = []

  validation {
    condition     = alltrue([for subnet in var.serverless_subnets : can(regex("^[a-z]+-[a-z]+[0-9]+/[a-z][a-z0-9-]*$", subnet.name))])
    error_message = "serverless_subnets: name is REGION/NAME."
  }
}

variable "dns" {
  description = "Whom the appliance asks for names, the resolvers of its network by default. The DNS front (preference dns_front) needs upstreams, such as 169.254.169.254, and answers cloud resolvers that are resolver_sources for all the clients behind them; front_record_types are passed on beside the usual ones, such as TXT."
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
  description = "Clients and groups that no firewall rule describes: local groups with their annotations, and clients by address or CIDR with ids of local groups or firewall rules."
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

variable "service_account_email" {
  description = "Service account of yours for the appliances, with the permissions of cloudsync/packaging/gcp/permissions.json. Null: one is made, with exactly these."
  type        = string
  default     = null

  validation {
    condition     = var.service_account_email == null || can(regex("^[^@ ]+@[^@ ]+$", var.service_account_email))
    error_message = "service_account_email is a service account's address."
  }
}

variable "extra_secrets" {
  description = "Secrets that annotations refer to as @lists and whose names begin neither with postern nor DiscrimiNAT: their names, in project."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for secret in var.extra_secrets : can(regex("^[A-Za-z0-9_-]{1,255}$", secret))])
    error_message = "extra_secrets are names of secrets."
  }
}

variable "kms_key" {
  description = "Cloud KMS key for disks and the preferences secret, as projects/P/locations/L/keyRings/R/cryptoKeys/K. Its users must include the Compute Engine and Secret Manager service agents. Null: Google's own keys."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key == null || can(regex("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key))
    error_message = "kms_key is projects/P/locations/L/keyRings/R/cryptoKeys/K."
  }
}

variable "disk_gb" {
  description = "Size of the boot disk: the image plus 1 GiB of spool for days when no log can be shipped."
  type        = number
  default     = 10

  validation {
    condition     = var.disk_gb >= 10 && var.disk_gb <= 1024
    error_message = "disk_gb is from 10 to 1024."
  }
}

variable "ipv6" {
  description = "Whether the appliances take IPv6 too, with source translation like IPv4's. The subnet must be dual-stack with external IPv6 (stack_type IPV4_IPV6, ipv6_access_type EXTERNAL)."
  type        = bool
  default     = false
}

variable "labels" {
  description = "Labels for everything made here."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key, value in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))])
    error_message = "labels have lower-case letters, digits, _ and - only."
  }
}
