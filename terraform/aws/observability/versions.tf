# Terraform 1.5 and provider 5.30, as the other modules.
terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.30, < 7"
    }
  }
}
