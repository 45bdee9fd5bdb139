output "forward_writer" {
  description = "Identity that writes to forward_destination: grant it there, roles/pubsub.publisher for a topic. Null without a destination."
  value       = var.forward_destination == null ? null : google_logging_project_sink.forward[0].writer_identity
}

output "bucket" {
  description = "Id of the log bucket."
  value       = google_logging_project_bucket_config.this.id
}

output "metric_types" {
  description = "Log-based metrics by what they count."
  value       = local.metric
}

output "queries" {
  description = "Filters for the Logs Explorer by title, as the dashboard's panels have them."
  value       = local.queries
}
