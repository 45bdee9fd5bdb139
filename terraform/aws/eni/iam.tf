# Who the appliances are, and what that role may: exactly the file that cloudsync's tests hold its calls to. It is read from
# where those tests enforce it; a module source with a double slash fetches the whole repository, so it is there.

locals {
  policy_file = jsondecode(file("${path.module}/../../../cloudsync/packaging/aws/iam-policy.json"))

  # What this deployment was told beyond the file's names: a log group, lists and accounts of its own.
  own_log_group = startswith(var.log_group_name, "postern") || startswith(var.log_group_name, "DiscrimiNAT") ? [] : [var.log_group_name]

  policy_extra = [for statement in [
    {
      Sid       = "OwnLogGroup", Effect = "Allow"
      Action    = try([for statement in local.policy_file.Statement : statement.Action if statement.Sid == "Logs"][0], [])
      Resource  = [for group in local.own_log_group : "arn:*:logs:*:*:log-group:${group}*"]
      Condition = {}
    },
    {
      Sid       = "OwnParameters", Effect = "Allow", Action = ["ssm:GetParameter"]
      Resource  = [for arn in var.extra_lists : arn if strcontains(arn, ":ssm:")]
      Condition = {}
    },
    {
      # The service adds six random characters to a secret's name in its ARN.
      # https://docs.aws.amazon.com/secretsmanager/latest/userguide/troubleshoot.html#ARN_secretnamehyphen
      Sid       = "OwnSecrets", Effect = "Allow", Action = ["secretsmanager:GetSecretValue"]
      Resource  = [for arn in var.extra_lists : can(regex("-[A-Za-z0-9]{6}$", arn)) ? arn : "${arn}-??????" if strcontains(arn, ":secretsmanager:")]
      Condition = {}
    },
    {
      Sid       = "OtherAccounts", Effect = "Allow", Action = ["sts:AssumeRole"]
      Resource  = distinct(var.accounts[*].role)
      Condition = {}
    },
  ] : { for key, value in statement : key => value if key != "Condition" } if length(statement.Resource) > 0]

  policy = merge(local.policy_file, { Statement = concat(local.policy_file.Statement, local.policy_extra) })
}

resource "aws_iam_role" "appliance" {
  name_prefix          = "${local.name}-"
  description          = "Postern appliances (${local.name})"
  permissions_boundary = var.permissions_boundary_arn
  tags                 = local.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "appliance" {
  name   = "postern-cloudsync"
  role   = aws_iam_role.appliance.id
  policy = jsonencode(local.policy)
}

resource "aws_iam_role_policy_attachment" "extra" {
  for_each = var.extra_policy_arns

  role       = aws_iam_role.appliance.name
  policy_arn = each.value
}

resource "aws_iam_instance_profile" "appliance" {
  name_prefix = "${local.name}-"
  role        = aws_iam_role.appliance.name
  tags        = local.tags
}
