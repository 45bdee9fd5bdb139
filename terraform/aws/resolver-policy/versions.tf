# Terraform 1.5: plantimestamp(). Provider 5.50: firewall_domain_redirection_action.
terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.50, < 7"
    }
  }
}
