# What the logs say, watched: a bucket that keeps them, metrics, alerts, a dashboard, saved queries, and the way on to a SIEM.
#
# Lines come to Cloud Logging from the sidecar, so "no line" is an alert of its own: it means that the sidecar, its credentials
# or the appliance is gone. Traffic goes on meanwhile, under the last good policy.

locals {
  project = data.google_project.this.project_id
  logs    = { for log in ["flow", "end", "dns", "config"] : log => "projects/${local.project}/logs/postern-${log}" }
  ours    = join(" OR ", [for log in values(local.logs) : "logName=\"${log}\""])

  counts = {
    refused          = { filter = "logName=\"${local.logs.flow}\" AND jsonPayload.cat=\"client\" AND jsonPayload.outcome=\"disallowed\"", labels = { reason = "EXTRACT(jsonPayload.reason)" }, about = "Connections refused" }
    allowed          = { filter = "logName=\"${local.logs.flow}\" AND jsonPayload.cat=\"client\" AND jsonPayload.outcome=\"allowed\"", labels = {}, about = "Connections allowed" }
    would_refuse     = { filter = "logName=\"${local.logs.flow}\" AND jsonPayload.cat=\"client\" AND jsonPayload.would_reason:*", labels = { reason = "EXTRACT(jsonPayload.would_reason)" }, about = "Connections that enforcement would refuse" }
    faults           = { filter = "logName=\"${local.logs.config}\" AND jsonPayload.cat=\"fault\"", labels = {}, about = "Faults in policy and surroundings" }
    source_faults    = { filter = "logName=\"${local.logs.config}\" AND jsonPayload.cat=\"fault\" AND jsonPayload.object=\"source\"", labels = {}, about = "The cloud's rules could not be read" }
    status           = { filter = "logName=\"${local.logs.config}\" AND jsonPayload.cat=\"status\" AND jsonPayload.clients:*", labels = {}, about = "Status lines, at least one an hour and appliance" }
    lockdown         = { filter = "logName=\"${local.logs.config}\" AND jsonPayload.cat=\"status\" AND jsonPayload.mode=\"lockdown\"", labels = {}, about = "Status lines of appliances without any policy" }
    lines_lost       = { filter = "logName=\"${local.logs.config}\" AND jsonPayload.cat=\"status\" AND jsonPayload.outcome=\"lost\"", labels = {}, about = "Log lines lost" }
    queue_drops      = { filter = "logName=\"${local.logs.config}\" AND jsonPayload.cat=\"status\" AND jsonPayload.packets_queue_full>0", labels = {}, about = "Status lines of appliances whose queues were full" }
    policy_old       = { filter = "logName=\"${local.logs.config}\" AND jsonPayload.cat=\"status\" AND jsonPayload.source_age_s>900", labels = {}, about = "Status lines of appliances whose policy has not been known to be current for a quarter of an hour" }
    table_full       = { filter = "logName=\"${local.logs.flow}\" AND jsonPayload.reason=\"table_full\"", labels = {}, about = "Refusals because a table was full" }
    address_mismatch = { filter = "logName=\"${local.logs.flow}\" AND jsonPayload.reason=\"address_not_of_name\"", labels = {}, about = "Allowed names claimed at addresses that are not theirs" }
  }

  metric = { for key, metric in google_logging_metric.this : key => "logging.googleapis.com/user/${metric.name}" }

  alerts = {
    lockdown      = { metric = "lockdown", over = 0, seconds = 300, about = "An appliance has no policy at all: nothing new leaves through it." }
    policy-source = { metric = "source_faults", over = 2, seconds = 900, about = "The cloud's rules could not be read three times in a quarter of an hour: the last good policy is in force and grows old." }
    policy-age    = { metric = "policy_old", over = 0, seconds = 3600, about = "A policy in force has not been known to be current for a quarter of an hour." }
    queue-drops   = { metric = "queue_drops", over = 0, seconds = 300, about = "Packets of new flows found a queue full and were dropped: too few or too small appliances for the rate of new connections." }
    lines-lost    = { metric = "lines_lost", over = 0, seconds = 300, about = "Log lines were lost: the spool was full or the disk failed." }
    table-full    = { metric = "table_full", over = 0, seconds = 300, about = "New flows were refused because a table was full." }
  }
}

data "google_project" "this" {
  project_id = var.project
}

resource "google_logging_project_bucket_config" "this" {
  project          = local.project
  location         = var.location
  bucket_id        = var.name
  description      = "Postern's flow, end, dns and config logs"
  retention_days   = var.log_retention_days
  enable_analytics = true # So that the saved queries can be SQL.

  dynamic "cmek_settings" {
    for_each = var.log_kms_key == null ? [] : [var.log_kms_key]
    content {
      kms_key_name = cmek_settings.value
    }
  }
}

resource "google_logging_project_sink" "bucket" {
  project                = local.project
  name                   = "${var.name}-bucket"
  description            = "Postern's logs into their own bucket"
  destination            = "logging.googleapis.com/${google_logging_project_bucket_config.this.id}"
  filter                 = local.ours
  unique_writer_identity = true
}

resource "google_logging_metric" "this" {
  for_each = local.counts

  project     = local.project
  name        = "${var.name}-${replace(each.key, "_", "-")}"
  description = each.value.about
  filter      = each.value.filter

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"

    dynamic "labels" {
      for_each = each.value.labels
      content {
        key        = labels.key
        value_type = "STRING"
      }
    }
  }

  label_extractors = each.value.labels
}

resource "google_monitoring_alert_policy" "count" {
  for_each = local.alerts

  project               = local.project
  display_name          = "${var.name}: ${each.key}"
  combiner              = "OR"
  notification_channels = var.notification_channels

  documentation {
    content   = each.value.about
    mime_type = "text/markdown"
  }

  conditions {
    display_name = each.key
    condition_threshold {
      filter          = "metric.type=\"${local.metric[each.value.metric]}\" AND resource.type=\"gce_instance\""
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.over
      duration        = "0s"

      aggregations {
        alignment_period     = "${each.value.seconds}s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
}

# Silence: https://cloud.google.com/monitoring/alerts/types-of-conditions#metric-absence (at most a day of absence).
resource "google_monitoring_alert_policy" "silence" {
  project               = local.project
  display_name          = "${var.name}: no status"
  combiner              = "OR"
  notification_channels = var.notification_channels

  documentation {
    content   = "No appliance has said how it is for two hours: the sidecar, its credentials or the appliance is gone. Flows already allowed and the last good policy stay in force."
    mime_type = "text/markdown"
  }

  conditions {
    display_name = "no status line for two hours"
    condition_absent {
      filter   = "metric.type=\"${local.metric["status"]}\" AND resource.type=\"gce_instance\""
      duration = "7200s"

      aggregations {
        alignment_period     = "3600s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
}

# Refusals above the usual: those of this hour against those of the same hour a week ago.
# https://cloud.google.com/monitoring/promql/promql-mapping (names of log-based metrics in PromQL)
resource "google_monitoring_alert_policy" "refusals" {
  project               = local.project
  display_name          = "${var.name}: refusals"
  combiner              = "OR"
  notification_channels = var.notification_channels

  documentation {
    content   = "More refusals than ${var.refusals_factor} times those of this hour a week ago: a deployment that needs a new name, or a workload that tries what it should not."
    mime_type = "text/markdown"
  }

  conditions {
    display_name = "refusals above the usual"
    condition_prometheus_query_language {
      query               = "sum(increase({\"${local.metric["refused"]}\"}[1h])) > ${var.refusals_factor} * (sum(increase({\"${local.metric["refused"]}\"}[1h] offset 1w)) or vector(0)) + 20"
      duration            = "0s"
      evaluation_interval = "300s"
    }
  }
}

resource "google_monitoring_dashboard" "this" {
  project = local.project
  dashboard_json = jsonencode({
    displayName = var.name
    mosaicLayout = {
      columns = 12
      tiles = concat(
        [for index, tile in [
          { title = "Connections", keys = ["allowed", "refused", "would_refuse"] },
          { title = "Trouble", keys = ["faults", "queue_drops", "lines_lost", "table_full", "address_mismatch"] },
          ] : { xPos = 6 * index, yPos = 0, width = 6, height = 4, widget = { title = tile.title, xyChart = { dataSets = [for key in tile.keys : {
            plotType       = "LINE"
            legendTemplate = key
            timeSeriesQuery = { timeSeriesFilter = {
              filter      = "metric.type=\"${local.metric[key]}\" AND resource.type=\"gce_instance\""
              aggregation = { alignmentPeriod = "300s", perSeriesAligner = "ALIGN_SUM", crossSeriesReducer = "REDUCE_SUM" }
            } }
        }] } } }],
        # The provider has no resource for saved queries; a panel is one that opens in the Logs Explorer by a click.
        [for index, title in sort(keys(local.queries)) : {
          xPos   = 6 * (index % 2), yPos = 4 + 4 * floor(index / 2), width = 6, height = 4
          widget = { title = title, logsPanel = { filter = local.queries[title], resourceNames = ["projects/${local.project}"] } }
        }],
      )
    }
  })
}

locals {
  queries = {
    "refused"            = "${local.counts.refused.filter}"
    "would be refused"   = "${local.counts.would_refuse.filter}"
    "seen by see-thru"   = "logName=\"${local.logs.flow}\" AND jsonPayload.see_thru_exerted=true"
    "changes of policy"  = "logName=\"${local.logs.config}\" AND jsonPayload.cat=(\"addr\" OR \"client\" OR \"see-thru\" OR \"preference\" OR \"list\")"
    "faults"             = "${local.counts.faults.filter}"
    "ends of flows"      = "logName=\"${local.logs.end}\""
    "not post-quantum"   = "logName=\"${local.logs.flow}\" AND jsonPayload.cat=\"server\" AND jsonPayload.outcome=\"allowed\" AND jsonPayload.pqc=false"
    "address of no name" = "${local.counts.address_mismatch.filter}"
  }
}

resource "google_logging_project_sink" "forward" {
  count = var.forward_destination == null ? 0 : 1

  project                = local.project
  name                   = "${var.name}-forward"
  description            = "Postern's logs on to the SIEM"
  destination            = var.forward_destination
  filter                 = join(" OR ", [for log in sort(tolist(var.forward_logs)) : "logName=\"${local.logs[log]}\""])
  unique_writer_identity = true
}
