# What the appliances do at first, and where they are told.

locals {
  preferences_name = var.deployment == null ? "postern" : "postern_${var.deployment}"
  see_thru         = var.enforce_now ? null : coalesce(var.see_thru_until, terraform_data.see_thru.output)
}

# The first apply's day plus see_thru_days, kept: a clock that Terraform reads once.
resource "terraform_data" "see_thru" {
  input = formatdate("YYYY-MM-DD", timeadd(plantimestamp(), "${var.see_thru_days * 24}h"))

  lifecycle {
    ignore_changes = [input]
  }
}

# Not a secret: which words the firewall lives by. `insecure_value` so that a plan shows what changes.
resource "aws_ssm_parameter" "preferences" {
  name           = local.preferences_name
  description    = "Postern preferences of ${local.name}; read again every 30 s"
  type           = "String"
  insecure_value = jsonencode({ "%default" = merge(var.preferences, { see_thru = local.see_thru }) })
  tags           = local.tags
}

resource "aws_cloudwatch_log_group" "postern" {
  count = var.create_log_group ? 1 : 0

  name              = var.log_group_name
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = local.tags
}
