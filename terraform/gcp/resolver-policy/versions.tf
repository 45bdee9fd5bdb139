# Terraform 1.5: plantimestamp(). The rules' `behavior` is in the beta provider only.
terraform {
  required_version = ">= 1.5"

  required_providers {
    google-beta = {
      source  = "hashicorp/google-beta"
      version = ">= 5.0, < 8"
    }
  }
}
