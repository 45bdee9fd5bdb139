# Who the appliances are, and what that account may: exactly the permissions that cloudsync's tests see it use. The file is
# read from where those tests enforce it; a module source with a double slash fetches the whole repository, so it is there.

locals {
  permissions = jsondecode(file("${path.module}/../../../cloudsync/packaging/gcp/permissions.json"))

  own_account     = var.service_account_email == null
  service_account = local.own_account ? google_service_account.appliance[0].email : var.service_account_email

  # Custom role ids have letters, digits, _ and . only.
  role_id = replace(local.name, "-", "_")

  own_permissions = distinct(concat(
    local.permissions.policy.permissions,
    local.permissions.preflight.permissions,
    local.permissions.logs.permissions,
    var.static_addresses > 0 ? local.permissions.address.permissions : [],
  ))
}

resource "google_service_account" "appliance" {
  count = local.own_account ? 1 : 0

  project      = local.project
  account_id   = local.name
  display_name = "Postern appliances (${local.name})"
}

resource "google_project_iam_custom_role" "appliance" {
  count = local.own_account ? 1 : 0

  project     = local.project
  role_id     = "${local.role_id}_appliance"
  title       = "Postern appliance (${local.name})"
  description = "Reads firewall rules and machines, writes logs${var.static_addresses > 0 ? ", takes a reserved address" : ""}"
  permissions = local.own_permissions
}

resource "google_project_iam_member" "appliance" {
  count = local.own_account ? 1 : 0

  project = local.project
  role    = google_project_iam_custom_role.appliance[0].id
  member  = "serviceAccount:${local.service_account}"
}

# In service projects only the reading part.
resource "google_project_iam_custom_role" "reader" {
  for_each = toset(local.own_account ? coalesce(var.service_projects, []) : [])

  project     = each.value
  role_id     = "${local.role_id}_reader"
  title       = "Postern policy reader (${local.name})"
  description = "Reads firewall rules and machines"
  permissions = local.permissions.policy.permissions
}

resource "google_project_iam_member" "reader" {
  for_each = google_project_iam_custom_role.reader

  project = each.key
  role    = each.value.id
  member  = "serviceAccount:${local.service_account}"
}

resource "google_project_iam_custom_role" "secrets" {
  count = local.own_account ? 1 : 0

  project     = local.project
  role_id     = "${local.role_id}_secrets"
  title       = "Postern documents reader (${local.name})"
  description = "Reads preferences and external lists"
  permissions = local.permissions.secrets.permissions
}

# Only secrets whose names begin as the product's do. The resource names of conditions have the project's number.
# https://cloud.google.com/iam/docs/conditions-resource-attributes#resource-name
resource "google_project_iam_member" "secrets" {
  count = local.own_account ? 1 : 0

  project = local.project
  role    = google_project_iam_custom_role.secrets[0].id
  member  = "serviceAccount:${local.service_account}"

  condition {
    title       = "postern-documents"
    description = "Preferences and external lists"
    expression = join(" || ", concat(
      [for prefix in local.permissions.secrets.secret_prefixes : "resource.name.startsWith(\"projects/${data.google_project.this.number}/secrets/${prefix}\")"],
      [for secret in var.extra_secrets : "resource.name.startsWith(\"projects/${data.google_project.this.number}/secrets/${secret}/\")"],
    ))
  }
}
