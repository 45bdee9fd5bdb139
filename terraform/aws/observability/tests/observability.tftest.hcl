mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { id = "eu-west-1" }
  }
}

variables {
  log_group_name = "postern"
}

run "alarms_watch_metrics_that_a_filter_makes" {
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.this : contains([for filter in aws_cloudwatch_log_metric_filter.this : filter.metric_transformation[0].name], alarm.metric_name)])
    error_message = "an alarm watches nothing"
  }
  assert {
    condition     = length(setsubtract(["postern-refusals", "postern-policy-age", "postern-no-status", "postern-queue-drops"], output.alarm_names)) == 0
    error_message = jsonencode(output.alarm_names)
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["no-status"].treat_missing_data == "breaching"
    error_message = "silence is an alarm"
  }
  assert {
    condition     = jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets[0].properties.region == "eu-west-1" && length(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets) == 7
    error_message = "the dashboard"
  }
  assert {
    condition     = length(aws_cloudwatch_log_subscription_filter.forward) == 0
    error_message = "nothing is forwarded unasked"
  }
}

run "each_zone_has_its_alarms" {
  command = plan
  variables {
    autoscaling_group_names = { eu-west-1a = "postern-eu-west-1a", eu-west-1b = "postern-eu-west-1b" }
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.instances) == 2 && length(aws_cloudwatch_metric_alarm.tracking) == 2
    error_message = "per zone"
  }
}

run "either_log_can_be_forwarded_alone" {
  command = plan
  variables {
    forward_destination_arn = "arn:aws:firehose:eu-west-1:123456789012:deliverystream/siem"
    forward_role_arn        = "arn:aws:iam::123456789012:role/siem"
    forward_logs            = ["flow"]
  }
  assert {
    condition     = aws_cloudwatch_log_subscription_filter.forward[0].filter_pattern == "{ ($.cat = \"client\" && $.dpt = *) || ($.cat = \"server\") }"
    error_message = aws_cloudwatch_log_subscription_filter.forward[0].filter_pattern
  }
}
