variable "network" {
  description = "Name or self link of the VPC network whose machines the rules are for."
  type        = string

  validation {
    condition     = var.network != ""
    error_message = "network is a network's name or self link."
  }
}

variable "name" {
  description = "What the names of the firewall rules begin with; the appliance's logs show the whole name as gid."
  type        = string

  # https://cloud.google.com/compute/docs/naming-resources: 63 characters; 24 are left for kind, ports and number.
  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,37}[a-z0-9])?$", var.name))
    error_message = "name is 1 to 39 lower-case letters, digits and hyphens, beginning with a letter and not ending in a hyphen."
  }
}

variable "target_tags" {
  description = "Network tags of the machines the rules are for. With neither these nor target_service_accounts they are for every machine of the network."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for tag in var.target_tags : can(regex("^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$", tag))])
    error_message = "target_tags are network tags."
  }
}

variable "target_service_accounts" {
  description = "Service accounts whose machines the rules are for, instead of target_tags."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for account in var.target_service_accounts : can(regex("^[^@ ]+@[^@ ]+$", account))])
    error_message = "target_service_accounts are e-mail addresses of service accounts."
  }
}

variable "project" {
  description = "Project of the network: the host project of a Shared VPC. Null: the provider's."
  type        = string
  default     = null

  validation {
    condition     = var.project == null || can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project is a project's id."
  }
}

variable "priority" {
  description = "Priority of the rules, below which a deny rule of yours has to stand; 0 is the highest."
  type        = number
  default     = 1000

  validation {
    condition     = var.priority >= 0 && var.priority <= 65535 && floor(var.priority) == var.priority
    error_message = "priority is a whole number from 0 to 65535."
  }
}

variable "log" {
  description = "Whether VPC firewall logging is on for the rules. The appliance logs every flow by name already."
  type        = bool
  default     = false
}

variable "tls" {
  description = "Names, patterns and @lists that may be reached with TLS on port 443. Add new ones at the end: earlier rules stay as they are then."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.tls : can(regex("^(@[A-Za-z0-9_./:-]+|[A-Za-z0-9_*?.-]+)$", name))])
    error_message = "tls: letters, digits, and _ - . * ? only, or @list."
  }
}

variable "ssh" {
  description = "Names that may be reached with SSH on port 22, each with a pinned host key if you like: git.example=SHA256:...; or @lists."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.ssh : can(regex("^(@[A-Za-z0-9_./:-]+|[A-Za-z0-9_*?.-]+(=SHA256:[A-Za-z0-9+/]{43})?)$", name))])
    error_message = "ssh: a name, a name=SHA256:<43 characters of base64>, or @list."
  }
}

variable "http" {
  description = "Names that may be reached with plain HTTP on port 80; in force only while the preference plaintext_http is allow_listed."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.http : can(regex("^(@[A-Za-z0-9_./:-]+|[A-Za-z0-9_*?.-]+)$", name))])
    error_message = "http: letters, digits, and _ - . * ? only, or @list."
  }
}

variable "other_ports" {
  description = "Names on other ports: kind is tls, ssh or http; to_port is from_port if left out."
  type = list(object({
    kind      = string
    names     = list(string)
    from_port = number
    to_port   = optional(number)
  }))
  default = []

  validation {
    condition = alltrue([for entry in var.other_ports :
      contains(["tls", "ssh", "http"], entry.kind) && length(entry.names) > 0 && entry.from_port >= 1 &&
      coalesce(entry.to_port, entry.from_port) >= entry.from_port && coalesce(entry.to_port, entry.from_port) <= 65535
    ])
    error_message = "other_ports: kind is tls, ssh or http, there is a name, and 1 <= from_port <= to_port <= 65535."
  }
  validation {
    condition     = length(distinct([for entry in var.other_ports : "${entry.from_port}-${coalesce(entry.to_port, entry.from_port)}"])) == length(var.other_ports) && !anytrue([for entry in var.other_ports : contains(["443-443", "22-22", "80-80"], "${entry.from_port}-${coalesce(entry.to_port, entry.from_port)}")])
    error_message = "other_ports: each port range once, and 443, 22 and 80 belong to tls, ssh and http."
  }
}

variable "addresses" {
  description = "Destinations without a name: exactly this protocol, ports and CIDR (/24 or longer, v6 /48 or longer); in force only while the preference address_rules is allow."
  type = list(object({
    cidr      = string
    protocol  = optional(string, "tcp")
    from_port = number
    to_port   = optional(number)
    comment   = string
  }))
  default = []

  validation {
    condition = alltrue([for entry in var.addresses :
      can(cidrhost(entry.cidr, 0)) && contains(["tcp", "udp"], entry.protocol) &&
      try(tonumber(split("/", entry.cidr)[1]), 0) >= (strcontains(entry.cidr, ":") ? 48 : 24)
    ])
    error_message = "addresses: cidr is a network of /24 or longer (v6: /48), protocol is tcp or udp."
  }
  validation {
    condition     = alltrue([for entry in var.addresses : can(regex("^[a-zA-Z0-9 ._-]{1,200}$", entry.comment))])
    error_message = "addresses: comment says what it is, in letters, digits, spaces and . _ -."
  }
}

variable "bundles" {
  description = "Ready-made lists by name: aws-ssm, aws-ecr, aws-eks-node, debian, ubuntu, amazon-linux, gcp-ops-agent, gke-node, github-actions. terraform/bundles/bundles.json has their names and where each comes from."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.bundles : contains(["aws-ssm", "aws-ecr", "aws-eks-node", "debian", "ubuntu", "amazon-linux", "gcp-ops-agent", "gke-node", "github-actions"], name)])
    error_message = "bundles are aws-ssm, aws-ecr, aws-eks-node, debian, ubuntu, amazon-linux, gcp-ops-agent, gke-node and github-actions."
  }
}

variable "region" {
  description = "Region put into the names of bundles. Needed by those that name one (gke-node)."
  type        = string
  default     = null

  validation {
    condition     = var.region == null || can(regex("^[a-z0-9-]+$", var.region))
    error_message = "region is such as europe-west1."
  }
}

variable "plain_http" {
  description = "Whether bundles add their plain HTTP names too (Ubuntu's and Debian's package sources); needs the preference plaintext_http = allow_listed."
  type        = bool
  default     = false
}

variable "see_thru_until" {
  description = "Last day, YYYY-MM-DD, UTC, on which these machines pass everything and are logged: one rule for all protocols. Null: none."
  type        = string
  default     = null

  validation {
    condition     = var.see_thru_until == null || can(formatdate("YYYY-MM-DD", "${var.see_thru_until}T00:00:00Z"))
    error_message = "see_thru_until is a day such as 2027-01-31."
  }
}

variable "ipv6" {
  description = "Whether the machines reach these names over IPv6 too."
  type        = bool
  default     = false
}
