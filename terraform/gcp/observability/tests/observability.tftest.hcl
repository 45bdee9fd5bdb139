mock_provider "google" {
  mock_data "google_project" {
    defaults = { project_id = "p-12345", number = "123456789012" }
  }
}

run "alerts_watch_metrics_that_are_made" {
  assert {
    condition     = alltrue([for alert in values(local.alerts) : contains(keys(output.metric_types), alert.metric)])
    error_message = "an alert watches nothing"
  }
  assert {
    condition     = one(one(google_monitoring_alert_policy.silence.conditions).condition_absent).duration == "7200s"
    error_message = "silence is an alert"
  }
  assert {
    condition     = strcontains(google_logging_project_sink.bucket.filter, "projects/p-12345/logs/postern-flow") && length(google_logging_project_sink.forward) == 0
    error_message = "kept, and not forwarded unasked"
  }
  assert {
    condition     = length(jsondecode(google_monitoring_dashboard.this.dashboard_json).mosaicLayout.tiles) == 2 + length(output.queries)
    error_message = "the dashboard"
  }
}

run "either_log_can_be_forwarded_alone" {
  command = plan
  variables {
    forward_destination = "pubsub.googleapis.com/projects/siem-1234/topics/egress"
    forward_logs        = ["config"]
  }
  assert {
    condition     = google_logging_project_sink.forward[0].filter == "logName=\"projects/p-12345/logs/postern-config\""
    error_message = google_logging_project_sink.forward[0].filter
  }
}
