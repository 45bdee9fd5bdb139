variable "vpc_id" {
  description = "VPC in which a new security group with the rules is made, to be attached to workloads beside their other groups. Give this or security_group_id."
  type        = string
  default     = null

  validation {
    condition     = var.vpc_id == null || var.vpc_id != ""
    error_message = "vpc_id is a VPC's id."
  }
}

variable "security_group_id" {
  description = "Existing security group that gets the rules. It should have no rule of its own for the same protocol, ports and CIDR, which EC2 refuses as a duplicate."
  type        = string
  default     = null

  validation {
    condition     = var.security_group_id == null || var.security_group_id != ""
    error_message = "security_group_id is a security group's id."
  }
}

variable "name" {
  description = "Name of the new security group, and the Name tag of the rules."
  type        = string
  default     = "postern-allowlist"

  validation {
    condition     = can(regex("^[a-zA-Z0-9 ._:/()#,@+=&;{}!$*-]{1,200}$", var.name)) && !startswith(var.name, "sg-")
    error_message = "name is what EC2 takes for a security group's name, up to 200 characters, not beginning with sg-."
  }
}

variable "tls" {
  description = "Names, patterns and @lists that may be reached with TLS on port 443. Add new ones at the end: earlier rules stay as they are then."
  type        = list(string)
  default     = []

  # ? is not in the set of characters EC2 takes in a description; what needs it goes into an external list.
  # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_IpRange.html
  validation {
    condition     = alltrue([for name in var.tls : can(regex("^(@[A-Za-z0-9_./:-]+|[A-Za-z0-9_*.-]+)$", name))])
    error_message = "tls: letters, digits, and _ - . * only, or @list; ? cannot stand in an AWS description: put such a pattern into an external list."
  }
}

variable "ssh" {
  description = "Names that may be reached with SSH on port 22, each with a pinned host key if you like: git.example=SHA256:...; or @lists."
  type        = list(string)
  default     = []

  # RFC 4648's base64 has + and /, and = at the end is left out, as ssh-keygen -l does; EC2 takes all of them.
  validation {
    condition     = alltrue([for name in var.ssh : can(regex("^(@[A-Za-z0-9_./:-]+|[A-Za-z0-9_*.-]+(=SHA256:[A-Za-z0-9+/]{43})?)$", name))])
    error_message = "ssh: a name, a name=SHA256:<43 characters of base64>, or @list."
  }
}

variable "http" {
  description = "Names that may be reached with plain HTTP on port 80; in force only while the preference plaintext_http is allow_listed."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.http : can(regex("^(@[A-Za-z0-9_./:-]+|[A-Za-z0-9_*.-]+)$", name))])
    error_message = "http: letters, digits, and _ - . * only, or @list."
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
    error_message = "other_ports: each port range once, and 443, 22 and 80 belong to tls, ssh and http (EC2 refuses a second rule for the same ports and CIDR)."
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
  description = "Region put into the names of bundles. Null: the provider's."
  type        = string
  default     = null

  validation {
    condition     = var.region == null || can(regex("^[a-z0-9-]+$", var.region))
    error_message = "region is such as eu-west-1."
  }
}

variable "plain_http" {
  description = "Whether bundles add their plain HTTP names too (Ubuntu's and Debian's package sources); needs the preference plaintext_http = allow_listed."
  type        = bool
  default     = false
}

variable "see_thru_until" {
  description = "Last day, YYYY-MM-DD, UTC, on which workloads with this group pass everything and are logged: one rule for all protocols. Null: none."
  type        = string
  default     = null

  validation {
    condition     = var.see_thru_until == null || can(formatdate("YYYY-MM-DD", "${var.see_thru_until}T00:00:00Z"))
    error_message = "see_thru_until is a day such as 2027-01-31."
  }
}

variable "ipv6" {
  description = "Whether the workloads reach these names over IPv6 too."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags for the group and its rules."
  type        = map(string)
  default     = {}

  validation {
    condition     = !anytrue([for key in keys(var.tags) : startswith(lower(key), "aws:")])
    error_message = "tags: keys that begin with aws: are AWS's own."
  }
}
