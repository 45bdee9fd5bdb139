# Packs names into as few descriptions as hold them, in the order given: what the allowlist modules of both clouds share.
# A description is filled until the next name does not fit, so a name added at the end changes the last one only.
#
# Terraform has no loop that carries a state. `next` says for each name where the description that begins with it ends;
# following it from 0 gives the beginnings. Following is done by doubling: six rounds reach 64 beginnings.

terraform {
  required_version = ">= 1.5"
}

variable "prefix" {
  description = "What every description begins with, such as postern:tls: with its last colon."
  type        = string

  validation {
    condition     = can(regex("^(postern|discriminat):(tls|ssh|http):$", var.prefix))
    error_message = "prefix is postern:KIND: or discriminat:KIND:, where KIND is tls, ssh or http."
  }
}

variable "names" {
  description = "Names, patterns, pinned names and @lists, in the order they are to appear; a second occurrence is left out."
  type        = list(string)

  validation {
    condition     = alltrue([for name in var.names : can(regex("^[^\\s,]+$", name))])
    error_message = "names have neither white space nor commas."
  }
}

variable "limit" {
  description = "Characters a description may have: 255 on AWS, 1,900 on GCP."
  type        = number

  validation {
    condition     = var.limit >= 64
    error_message = "limit is at least 64."
  }
}

locals {
  names = distinct([for name in var.names : startswith(name, "@") || strcontains(name, "=") ? name : lower(name)])
  count = length(local.names)
  room  = var.limit - length(var.prefix)

  # Ends of names when all are written with commas between them; the comma before a description's first name is not written.
  ends = [for index in range(local.count) : sum([for name in slice(local.names, 0, index + 1) : length(name) + 1])]

  # For the name at each place, the place of the first that no longer fits beside it; `count` leads to itself.
  next1 = concat([for index in range(local.count) :
    max(index + 1, length([for end in local.ends : end if end - (index == 0 ? 0 : local.ends[index - 1]) - 1 <= local.room]))
  ], [local.count])
  next2  = [for place in local.next1 : local.next1[place]]
  next4  = [for place in local.next2 : local.next2[place]]
  next8  = [for place in local.next4 : local.next4[place]]
  next16 = [for place in local.next8 : local.next8[place]]
  next32 = [for place in local.next16 : local.next16[place]]

  from2  = [0, local.next1[0]]
  from4  = concat(local.from2, [for place in local.from2 : local.next2[place]])
  from8  = concat(local.from4, [for place in local.from4 : local.next4[place]])
  from16 = concat(local.from8, [for place in local.from8 : local.next8[place]])
  from32 = concat(local.from16, [for place in local.from16 : local.next16[place]])
  from64 = concat(local.from32, [for place in local.from32 : local.next32[place]])

  starts = [for place in distinct(local.from64) : place if place < local.count]
}

output "descriptions" {
  description = "The descriptions, each within the limit."
  value       = tolist([for start in local.starts : "${var.prefix}${join(",", slice(local.names, start, local.next1[start]))}"])

  precondition {
    condition     = alltrue([for name in local.names : length(name) <= local.room])
    error_message = "A name is too long for one description: ${join(", ", [for name in local.names : name if length(name) > local.room])}."
  }
  precondition {
    condition     = local.count == 0 || try(local.next1[local.starts[length(local.starts) - 1]], 0) == local.count
    error_message = "The names need more than 64 descriptions. Use an external list (@name), or a second group."
  }
}
