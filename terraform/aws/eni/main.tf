# One appliance per zone behind an interface that outlives it: route tables point at the interface, the Elastic IP stays on
# it, and an Auto Scaling group of exactly one puts an instance under it again when one dies.

locals {
  name = var.deployment == null ? "postern" : "postern-${var.deployment}"
  tags = merge({ Name = local.name, postern = coalesce(var.deployment, "default") }, var.tags)

  # The family's generation is followed by a g where the processor is AWS's own Arm (c7g, t4g, m7gd, x2gd).
  # https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html
  architecture = can(regex("^[a-z]+[0-9]+[a-z]*g[a-z]*\\.", var.instance_type)) ? "arm64" : "x86_64"
}

data "aws_subnet" "public" {
  for_each = var.public_subnets
  id       = each.value
}

# Looked up also where an id is given: for its owner, and for the name of its root device.
data "aws_ami" "postern" {
  owners      = var.ami_owners
  most_recent = true

  dynamic "filter" {
    for_each = var.ami_id == null ? { name = var.ami_name, architecture = local.architecture } : { image-id = var.ami_id }
    content {
      name   = filter.key
      values = [filter.value]
    }
  }

  lifecycle {
    postcondition {
      condition     = self.architecture == local.architecture
      error_message = "The image ${self.id} is for ${self.architecture}, the instance type is not."
    }
  }
}

resource "aws_network_interface" "appliance" {
  for_each = var.public_subnets

  description        = "${local.name} ${each.key}: egress firewall, outlives its instance"
  subnet_id          = each.value
  security_groups    = [aws_security_group.appliance.id]
  source_dest_check  = false # It forwards what is neither from nor to itself.
  ipv6_address_count = var.ipv6 ? 1 : null
  tags               = merge(local.tags, { Name = "${local.name}-${each.key}" })

  # DESIGN.md: the interface is the fixed point. Replacing it moves every route, so it is never made anew by accident.
  lifecycle {
    create_before_destroy = false
  }
}

resource "aws_eip" "appliance" {
  for_each = toset([for zone in keys(var.public_subnets) : zone if !contains(keys(var.static_addresses), zone)])

  domain = "vpc"
  tags   = merge(local.tags, { Name = "${local.name}-${each.key}" })
}

resource "aws_eip_association" "appliance" {
  for_each = var.public_subnets

  allocation_id        = contains(keys(var.static_addresses), each.key) ? var.static_addresses[each.key] : aws_eip.appliance[each.key].id
  network_interface_id = aws_network_interface.appliance[each.key].id
  allow_reassociation  = false # An address that is in use elsewhere is an error, not a theft.
}

# Everything, both ways, on purpose: EC2 does not track a TCP or UDP flow that an all-ports 0.0.0.0/0 (or ::/0) rule lets in
# and out, so the appliance never runs into the interface's tracking allowance, whose overflow drops packets silently. The
# guard is the appliance's own ruleset, which drops strangers' packets first of all (SECURITY.md, "Self-defence").
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html ("Untracked connections")
resource "aws_security_group" "appliance" {
  name_prefix = "${local.name}-"
  description = "Postern appliances: all traffic, so that EC2 does not track it; nftables on the appliance is the guard"
  vpc_id      = values(data.aws_subnet.public)[0].vpc_id
  tags        = local.tags

  ingress {
    description      = "all, untracked; nftables is the guard"
    protocol         = "-1"
    from_port        = 0
    to_port          = 0
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }

  egress {
    description      = "all, untracked; nftables is the guard"
    protocol         = "-1"
    from_port        = 0
    to_port          = 0
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }
}

resource "aws_launch_template" "appliance" {
  for_each = var.public_subnets

  name_prefix            = "${local.name}-${each.key}-"
  image_id               = data.aws_ami.postern.id
  instance_type          = var.instance_type
  user_data              = base64encode(local.user_data[each.key])
  update_default_version = true
  ebs_optimized          = true
  tags                   = local.tags

  iam_instance_profile {
    arn = aws_iam_instance_profile.appliance.arn
  }

  # Device 0: the instance has no other interface, so nothing can go round the ruleset.
  network_interfaces {
    device_index          = 0
    network_interface_id  = aws_network_interface.appliance[each.key].id
    delete_on_termination = false
  }

  # IMDSv2 only, one hop: a forwarded packet cannot reach it, the sidecar can.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = data.aws_ami.postern.root_device_name
    ebs {
      volume_size           = var.root_volume_gb
      volume_type           = "gp3"
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }

  monitoring {
    enabled = true
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume"])
    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = "${local.name}-${each.key}" })
    }
  }
}

# Exactly one. An interface is on one instance at a time, so the old instance always ends before the new one starts: the
# group is never made beside its successor, and an instance refresh may go down to zero.
resource "aws_autoscaling_group" "appliance" {
  for_each = var.public_subnets

  name                      = "${local.name}-${each.key}"
  availability_zones        = [data.aws_subnet.public[each.key].availability_zone]
  min_size                  = 1
  max_size                  = 1
  desired_capacity          = 1
  default_cooldown          = 1
  health_check_type         = "EC2"
  health_check_grace_period = 300
  wait_for_capacity_timeout = "15m"

  launch_template {
    id      = aws_launch_template.appliance[each.key].id
    version = aws_launch_template.appliance[each.key].latest_version
  }

  # The appliance ends this wait itself when a policy is in force; one that has not spoken in ten minutes never will.
  initial_lifecycle_hook {
    name                 = local.launch_hook
    lifecycle_transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
    heartbeat_timeout    = 600
    default_result       = "ABANDON"
  }

  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 0
      instance_warmup        = 0
    }
  }

  dynamic "tag" {
    for_each = merge(local.tags, { Name = "${local.name}-${each.key}" })
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false # The launch template tags instance and volume.
    }
  }

  lifecycle {
    create_before_destroy = false
  }

  depends_on = [aws_eip_association.appliance, aws_iam_role_policy.appliance, aws_ssm_parameter.preferences]
}

locals {
  launch_hook = "postern-launch"
}
