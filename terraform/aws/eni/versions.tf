# Terraform 1.5: plantimestamp() and check blocks. Provider 5.30: the first with every argument used here; 7 is not out yet.
terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.30, < 7"
    }
  }
}
