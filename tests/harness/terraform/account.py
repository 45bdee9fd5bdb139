"""Lists what an AWS account holds of everything the modules make, one a line; moto's answers stand for the account's.

usage: account.py ENDPOINT
"""

import sys

import boto3


def client(service):
    return boto3.client(service, region_name="eu-west-1", endpoint_url=sys.argv[1], aws_access_key_id="test", aws_secret_access_key="test")


ec2, iam, logs, watch = client("ec2"), client("iam"), client("logs"), client("cloudwatch")
found = []


def add(kind, items, *names):
    found.extend(f"{kind} {' '.join(str(item.get(name, '')) for name in names)}" for item in items)


instances = [it for reservation in ec2.describe_instances()["Reservations"] for it in reservation["Instances"]]
# EC2 removes a NAT gateway's interface, and an instance's primary one and root volume, with them; moto forgets to.
ended = {it["InstanceId"] for it in instances if it["State"]["Name"] == "terminated"}
gateways = [it for it in ec2.describe_nat_gateways()["NatGateways"] if it["State"] == "deleted"]
orphans = {address["NetworkInterfaceId"] for it in gateways for address in it["NatGatewayAddresses"]}


def gone(item):
    attachments = item.get("Attachments", [item.get("Attachment") or {}])
    return item.get("NetworkInterfaceId") in orphans or any(it.get("InstanceId") in ended for it in attachments)


def present(items):
    return [it for it in items if not gone(it)]


add("interface", present(ec2.describe_network_interfaces()["NetworkInterfaces"]), "NetworkInterfaceId")
add("address", ec2.describe_addresses()["Addresses"], "AllocationId")
add("group", ec2.describe_security_groups()["SecurityGroups"], "GroupId", "IpPermissions", "IpPermissionsEgress")
add("template", ec2.describe_launch_templates()["LaunchTemplates"], "LaunchTemplateId")
add("volume", present(ec2.describe_volumes()["Volumes"]), "VolumeId")
add("vpc", ec2.describe_vpcs()["Vpcs"], "VpcId")
add("subnet", ec2.describe_subnets()["Subnets"], "SubnetId")
add("table", ec2.describe_route_tables()["RouteTables"], "RouteTableId", "Routes")
add("instance", (it for it in instances if it["InstanceId"] not in ended), "InstanceId")
add("gateway", ec2.describe_nat_gateways(Filter=[{"Name": "state", "Values": ["available"]}])["NatGateways"], "NatGatewayId")
add("scaling", client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"], "AutoScalingGroupName", "MinSize", "MaxSize")
add("role", iam.list_roles()["Roles"], "RoleName")
add("profile", iam.list_instance_profiles()["InstanceProfiles"], "InstanceProfileName")
add("policy", iam.list_policies(Scope="Local")["Policies"], "PolicyName")
add("parameter", client("ssm").describe_parameters()["Parameters"], "Name")
add("logs", logs.describe_log_groups()["logGroups"], "logGroupName", "retentionInDays")
add("filter", logs.describe_metric_filters()["metricFilters"], "filterName")
add("alarm", watch.describe_alarms()["MetricAlarms"], "AlarmName")
add("dashboard", watch.list_dashboards()["DashboardEntries"], "DashboardName")
print("\n".join(sorted(found)))
