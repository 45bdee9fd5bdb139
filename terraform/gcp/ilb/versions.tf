# Terraform 1.5: check blocks and plantimestamp(). Provider 5: the first with every argument used here; 8 is not out yet.
terraform {
  required_version = ">= 1.5"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0, < 8"
    }
  }
}
