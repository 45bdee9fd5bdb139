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

resource "google_secret_manager_secret" "preferences" {
  project   = local.project
  secret_id = local.preferences_name
  labels    = local.labels

  replication {
    user_managed {
      replicas {
        location = var.region

        dynamic "customer_managed_encryption" {
          for_each = var.kms_key == null ? [] : [var.kms_key]
          content {
            kms_key_name = customer_managed_encryption.value
          }
        }
      }
    }
  }
}

# Not a secret, but Secret Manager is where GCP keeps such a document; read again every 30 s.
resource "google_secret_manager_secret_version" "preferences" {
  secret      = google_secret_manager_secret.preferences.id
  secret_data = jsonencode({ "%default" = merge(var.preferences, { see_thru = local.see_thru }) })
}
