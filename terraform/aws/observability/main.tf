# What the two logs say, watched: metrics out of log lines, alarms, a dashboard, saved queries, and the way on to a SIEM.
#
# Lines come to CloudWatch from the sidecar, so "no line" is an alarm of its own: it means that the sidecar, its credentials or
# the appliance is gone. Traffic goes on meanwhile, under the last good policy.

locals {
  namespace = var.name

  # JSON patterns: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
  counts = {
    refused          = { pattern = "{ $.cat = \"client\" && $.outcome = \"disallowed\" }", value = "1" }
    allowed          = { pattern = "{ $.cat = \"client\" && $.outcome = \"allowed\" }", value = "1" }
    would_refuse     = { pattern = "{ $.cat = \"client\" && $.would_reason = * }", value = "1" }
    address_mismatch = { pattern = "{ $.reason = \"address_not_of_name\" }", value = "1" }
    faults           = { pattern = "{ $.cat = \"fault\" }", value = "1" }
    source_faults    = { pattern = "{ $.cat = \"fault\" && $.object = \"source\" }", value = "1" }
    status           = { pattern = "{ $.cat = \"status\" && $.clients = * }", value = "1" }
    lockdown         = { pattern = "{ $.cat = \"status\" && $.mode = \"lockdown\" }", value = "1" }
    lines_lost       = { pattern = "{ $.cat = \"status\" && $.outcome = \"lost\" }", value = "$.losses" }
    queue_drops      = { pattern = "{ $.cat = \"status\" && $.packets_queue_full > 0 }", value = "$.packets_queue_full" }
    policy_age       = { pattern = "{ $.cat = \"status\" && $.source_age_s = * }", value = "$.source_age_s" }
    table_full       = { pattern = "{ $.reason = \"table_full\" }", value = "1" }
  }

  alarms = {
    no-status = {
      metric = "status", statistic = "Sum", threshold = 1, comparison = "LessThanThreshold", period = 7200, missing = "breaching"
      about  = "No appliance has said how it is for two hours: the sidecar, its credentials or the appliance is gone. Flows already allowed and the last good policy stay in force."
    }
    lockdown = {
      metric = "lockdown", statistic = "Sum", threshold = 1, comparison = "GreaterThanOrEqualToThreshold", period = 300, missing = "notBreaching"
      about  = "An appliance has no policy at all: nothing new leaves its zone."
    }
    policy-unreadable = {
      metric = "source_faults", statistic = "Sum", threshold = 3, comparison = "GreaterThanOrEqualToThreshold", period = 900, missing = "notBreaching"
      about  = "The cloud's rules could not be read three times in a quarter of an hour: the last good policy is in force and grows old."
    }
    policy-age = {
      metric = "policy_age", statistic = "Maximum", threshold = 900, comparison = "GreaterThanThreshold", period = 3600, missing = "notBreaching"
      about  = "The policy in force has not been known to be current for a quarter of an hour."
    }
    queue-drops = {
      metric = "queue_drops", statistic = "Maximum", threshold = 0, comparison = "GreaterThanThreshold", period = 300, missing = "notBreaching"
      about  = "Packets of new flows found a queue full and were dropped: the appliance is too small for the rate of new connections."
    }
    lines-lost = {
      metric = "lines_lost", statistic = "Sum", threshold = 0, comparison = "GreaterThanThreshold", period = 300, missing = "notBreaching"
      about  = "Log lines were lost: the spool was full or the disk failed."
    }
    table-full = {
      metric = "table_full", statistic = "Sum", threshold = 0, comparison = "GreaterThanThreshold", period = 300, missing = "notBreaching"
      about  = "New flows were refused because a table was full."
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "this" {
  for_each = local.counts

  name           = "${var.name}-${each.key}"
  log_group_name = var.log_group_name
  pattern        = each.value.pattern

  metric_transformation {
    name      = each.key
    namespace = local.namespace
    value     = each.value.value
    # Without a default a quiet period is no data, and so for gauges; a count of nothing is 0.
    default_value = each.value.value == "1" ? "0" : null
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.about
  namespace           = local.namespace
  metric_name         = aws_cloudwatch_log_metric_filter.this[each.value.metric].metric_transformation[0].name
  statistic           = each.value.statistic
  period              = each.value.period
  evaluation_periods  = 1
  threshold           = each.value.threshold
  comparison_operator = each.value.comparison
  treat_missing_data  = each.value.missing
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.tags
}

# Refusals above the usual: what is usual is learnt from two weeks, day and hour included.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Anomaly_Detection.html
resource "aws_cloudwatch_metric_alarm" "refusals" {
  alarm_name          = "${var.name}-refusals"
  alarm_description   = "More refusals than this hour of the week usually has: a deployment that needs a new name, or a workload that tries what it should not."
  comparison_operator = "GreaterThanUpperThreshold"
  evaluation_periods  = 3
  datapoints_to_alarm = 2
  threshold_metric_id = "usual"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.tags

  metric_query {
    id          = "refused"
    return_data = true
    metric {
      namespace   = local.namespace
      metric_name = aws_cloudwatch_log_metric_filter.this["refused"].metric_transformation[0].name
      period      = 300
      stat        = "Sum"
    }
  }

  metric_query {
    id          = "usual"
    expression  = "ANOMALY_DETECTION_BAND(refused, ${var.refusals_sensitivity})"
    label       = "the usual number of refusals"
    return_data = true
  }
}

# One instance in service a zone, or the zone has no way out for new flows.
resource "aws_cloudwatch_metric_alarm" "instances" {
  for_each = var.autoscaling_group_names

  alarm_name          = "${var.name}-instance-${each.key}"
  alarm_description   = "No appliance is in service in ${each.key}: the Auto Scaling group is replacing it, or cannot."
  namespace           = "AWS/AutoScaling"
  metric_name         = "GroupInServiceInstances"
  dimensions          = { AutoScalingGroupName = each.value }
  statistic           = "Minimum"
  period              = 60
  evaluation_periods  = 5
  threshold           = 1
  comparison_operator = "LessThanThreshold"
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "reachable" {
  for_each = var.autoscaling_group_names

  alarm_name          = "${var.name}-status-check-${each.key}"
  alarm_description   = "EC2's own checks of the appliance in ${each.key} fail."
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed"
  dimensions          = { AutoScalingGroupName = each.value }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 2
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.tags
}

# The eni module's security group keeps EC2 from tracking TCP and UDP, so the allowance should never be touched; where the
# CloudWatch agent ships the interface's counters, this says when it is all the same.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-network-performance-ena.html
resource "aws_cloudwatch_metric_alarm" "tracking" {
  for_each = var.autoscaling_group_names

  alarm_name          = "${var.name}-conntrack-allowance-${each.key}"
  alarm_description   = "EC2 drops packets of the appliance in ${each.key} because its connection tracking allowance is used up: is its security group still open both ways?"
  namespace           = "CWAgent"
  metric_name         = "ethtool_conntrack_allowance_exceeded"
  dimensions          = { AutoScalingGroupName = each.value }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.tags
}
