# A new network: appliances behind a load balancer, an allowlist for a workload, alerts.

terraform {
  required_version = ">= 1.5"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0, < 8"
    }
  }
}

variable "project" {
  description = "Project of everything."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project is a project's id."
  }
}

variable "region" {
  description = "Region of everything."
  type        = string
  default     = "europe-west1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region is such as europe-west1."
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

resource "google_compute_network" "this" {
  name                    = "postern-example"
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "this" {
  name                     = "postern-example"
  network                  = google_compute_network.this.id
  region                   = var.region
  ip_cidr_range            = "10.20.0.0/20"
  private_ip_google_access = true
}

module "postern" {
  source = "../../gcp/ilb"

  project    = var.project
  region     = var.region
  subnetwork = google_compute_subnetwork.this.name
}

# For machines tagged web.
module "web" {
  source = "../../gcp/allowlist"

  network     = google_compute_network.this.id
  name        = "web"
  target_tags = ["web"]
  tls         = ["api.github.com", "*.example.org"]
  bundles     = ["gcp-ops-agent", "debian"]
}

module "observability" {
  source = "../../gcp/observability"

  project = var.project
}

output "see_thru_until" {
  description = "Last day on which everything passes and is logged."
  value       = module.postern.see_thru_until
}

output "opt_out_network_tag" {
  description = "Tag of machines that are not to go through the appliances."
  value       = module.postern.opt_out_network_tag
}
