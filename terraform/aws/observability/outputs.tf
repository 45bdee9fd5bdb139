output "alarm_names" {
  description = "Every alarm, for composite alarms of your own."
  value = concat(
    values(aws_cloudwatch_metric_alarm.this)[*].alarm_name,
    [aws_cloudwatch_metric_alarm.refusals.alarm_name],
    values(aws_cloudwatch_metric_alarm.instances)[*].alarm_name,
    values(aws_cloudwatch_metric_alarm.reachable)[*].alarm_name,
    values(aws_cloudwatch_metric_alarm.tracking)[*].alarm_name,
  )
}

output "metric_namespace" {
  description = "CloudWatch namespace of the metrics."
  value       = local.namespace
}

output "queries" {
  description = "The saved queries' texts, by title."
  value       = local.queries
}
