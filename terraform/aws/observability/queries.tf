# Saved queries (CloudWatch Logs Insights, folder named as the module), and a dashboard of the same.

locals {
  queries = {
    "refused by name"     = <<-Q
      filter cat = "client" and outcome = "disallowed"
      | stats count(*) as refusals by dhost, reason, proto, dpt
      | sort refusals desc
    Q
    "refused by workload" = <<-Q
      filter cat = "client" and outcome = "disallowed"
      | stats count(*) as refusals, count_distinct(dhost) as names by instance, src, reason
      | sort refusals desc
    Q
    # What enforcement would refuse: the list to work off before see-thru ends.
    "would be refused" = <<-Q
      filter cat = "client" and ispresent(would_reason)
      | stats count(*) as flows by dhost, proto, dpt, would_reason, instance
      | sort flows desc
    Q
    # The incumbent's discovery query works as it is; this adds who it was.
    "names seen by see-thru"         = <<-Q
      filter see_thru_exerted = 1
      | stats count(*) as flows by see_thru_gid, dhost, proto, dpt
      | sort flows desc
    Q
    "bytes out by name"              = <<-Q
      filter cat = "end"
      | stats sum(bytes_out) as out, sum(bytes_in) as back, count(*) as flows by dhost, gid
      | sort out desc
    Q
    "changes of policy"              = <<-Q
      filter cat in ["addr", "client", "see-thru", "preference", "list"] and not ispresent(dpt)
      | sort @timestamp desc
      | display @timestamp, cat, outcome, gid, rule, addr, proto, client, instance, list, preference, value, policy_id
    Q
    "faults"                         = <<-Q
      filter cat = "fault"
      | stats count(*) as times, max(@timestamp) as last by kind, gid, rule, object, message
      | sort last desc
    Q
    "allowed names not post-quantum" = <<-Q
      filter cat = "server" and outcome = "allowed" and proto = "tls" and pqc = 0
      | stats count(*) as flows by dhost, proto_v
      | sort flows desc
    Q
  }

  metric = { for key, filter in aws_cloudwatch_log_metric_filter.this : key => [local.namespace, key] }

  widgets = concat(
    [
      { type = "metric", x = 0, y = 0, width = 12, height = 6, properties = {
        title   = "Connections", region = data.aws_region.current.id, view = "timeSeries", stat = "Sum", period = 300
        metrics = [local.metric["allowed"], local.metric["refused"], local.metric["would_refuse"]]
      } },
      { type = "metric", x = 12, y = 0, width = 6, height = 6, properties = {
        title   = "Trouble", region = data.aws_region.current.id, view = "timeSeries", stat = "Sum", period = 300
        metrics = [local.metric["faults"], local.metric["queue_drops"], local.metric["lines_lost"], local.metric["table_full"], local.metric["address_mismatch"]]
      } },
      { type = "metric", x = 18, y = 0, width = 6, height = 6, properties = {
        title   = "Policy age (s)", region = data.aws_region.current.id, view = "timeSeries", stat = "Maximum", period = 3600
        metrics = [local.metric["policy_age"]]
      } },
    ],
    [for index, title in ["refused by name", "would be refused", "bytes out by name", "changes of policy"] : {
      type = "log", x = 12 * (index % 2), y = 6 + 8 * floor(index / 2), width = 12, height = 8, properties = {
        title = title, region = data.aws_region.current.id, view = "table", query = "SOURCE '${var.log_group_name}' | ${local.queries[title]}"
      }
    }],
  )
}

data "aws_region" "current" {}

resource "aws_cloudwatch_query_definition" "this" {
  for_each = local.queries

  name            = "${var.name}/${each.key}"
  log_group_names = [var.log_group_name]
  query_string    = each.value
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({ widgets = local.widgets })
}

# The platform's own way on: a subscription. A log group has at most two.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html
resource "aws_cloudwatch_log_subscription_filter" "forward" {
  count = var.forward_destination_arn == null ? 0 : 1

  name            = "${var.name}-forward"
  log_group_name  = var.log_group_name
  destination_arn = var.forward_destination_arn
  role_arn        = var.forward_role_arn
  distribution    = "Random" # A firewall's one stream would fill one shard.

  # Both logs have lines with `cat` client: the flow log's have a port.
  filter_pattern = "{ ${join(" || ", flatten([for log in sort(tolist(var.forward_logs)) : {
    flow   = ["($.cat = \"client\" && $.dpt = *)", "($.cat = \"server\")"]
    config = concat(["($.cat = \"client\" && $.dpt NOT EXISTS)"], [for cat in ["addr", "see-thru", "preference", "list", "fault", "status"] : "($.cat = \"${cat}\")"])
    dns    = ["($.cat = \"dns\")"]
    end    = ["($.cat = \"end\")"]
  }[log]]))} }"
}
