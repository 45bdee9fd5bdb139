# Terraform 1.5: check blocks. Provider 5.30: the rules are resources of their own.
terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.30, < 7"
    }
  }
}
