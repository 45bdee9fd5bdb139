//! What `preflight` looks at in AWS.

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::call::{Body, Caller};
use super::metadata::Own;
use super::pages::filter;
use super::service::{EC2, LOGS, SSM};
use super::{Aws, address, xml};
use crate::cloud::{CloudError, CloudErrorKind};
use crate::config::Config;
use crate::preflight::Finding;

/// A clock that is off by more than this makes signatures and certificates fail before long.
const CLOCK_SECONDS_MAX: i64 = 60;

/// Every check but those of the policy itself.
pub(super) async fn checks(caller: &Caller, config: &Config, cloud: &Aws) -> Vec<Finding> {
    let mut findings = Vec::new();
    let own = Own::read().await;
    for action in [
        "DescribeNetworkInterfaces",
        "DescribeSecurityGroups",
        "DescribeSecurityGroupRules",
        "DescribeVpcs",
        "DescribeAddresses",
        "DescribeRouteTables",
    ] {
        // DescribeAddresses alone does not page.
        let arguments = match action {
            "DescribeAddresses" => Vec::new(),
            _ => vec![("MaxResults".to_owned(), "5".to_owned())],
        };
        let answer = caller.query(EC2, action, &arguments).await;
        if let (true, Ok(answer)) = (action == "DescribeVpcs", &answer) {
            findings.extend(clock(answer));
        }
        findings.push(permission(EC2.name, action, answer.map(drop)));
    }
    findings.push(documents(caller, config).await);
    if config.logs.ship {
        findings.push(logs(caller, &config.logs.group).await);
    }
    for trouble in cloud.unreadable_accounts().await {
        findings.push(trouble);
    }
    match own {
        Some(own) => {
            findings.push(public_address(caller, config, &own).await);
            findings.extend(source_check(caller, &own).await);
            findings.extend(routes(caller, &own).await);
        }
        None => findings.push(Finding::bad(
            "metadata",
            "no instance metadata (IMDSv2): public address and routes are not looked at",
            "run this on the appliance, as user postern-sync",
        )),
    }
    findings
}

/// Whether an action may be called, or why not.
fn permission(service: &str, action: &str, answer: Result<(), CloudError>) -> Finding {
    let check = format!("permission {service}:{action}");
    let Err(error) = answer else {
        return Finding::good(check, "may be called");
    };
    let fix = match error.kind {
        CloudErrorKind::Denied => {
            "attach cloudsync/packaging/aws/iam-policy.json to the instance's role"
        }
        CloudErrorKind::Credentials => "give the instance a role, and check its clock",
        CloudErrorKind::Unavailable => {
            "give the appliance a public address, or an interface end point of this service with private DNS"
        }
        CloudErrorKind::Throttled => {
            "wait a minute; something else uses up this account's requests"
        }
        CloudErrorKind::Incomplete
        | CloudErrorKind::Refused
        | CloudErrorKind::Missing
        | CloudErrorKind::Inconsistent => "see the service's own words",
    };
    Finding::bad(check, error.to_string(), fix)
}

/// The service's clock is right; ours may not be.
fn clock(answer: &Body) -> Option<Finding> {
    let date = answer.date.as_deref()?;
    // HTTP writes GMT where RFC 2822 wants an offset.
    let date = date.replace("GMT", "+0000");
    let theirs = OffsetDateTime::parse(&date, &Rfc2822).ok()?;
    let off = (OffsetDateTime::now_utc() - theirs).whole_seconds();
    Some(if off.abs() <= CLOCK_SECONDS_MAX {
        Finding::good(
            "clock",
            format!("within {} s of the service's", off.abs().max(1)),
        )
    } else {
        Finding::bad(
            "clock",
            format!("{off} s away from the service's"),
            "let chrony or systemd-timesyncd follow 169.254.169.123",
        )
    })
}

/// A document that is not there is as good as one that is: the permission was looked at first.
async fn documents(caller: &Caller, config: &Config) -> Finding {
    let names = config.preference_names();
    let name = names.first().map_or("postern", String::as_str);
    let request = json!({ "Name": name });
    let answer = caller.json(SSM, "GetParameter", None, &request).await;
    permission(SSM.name, "GetParameter", missing_is_good(answer.map(drop)))
}

/// A batch for a stream that nobody has is refused for that reason, or for lack of permission.
async fn logs(caller: &Caller, group: &str) -> Finding {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let event = json!({ "timestamp": now.saturating_mul(1_000), "message": "preflight" });
    let request = json!({
        "logGroupName": group, "logStreamName": "preflight/no-such-stream", "logEvents": [event]
    });
    let answer = caller.json(LOGS, "PutLogEvents", None, &request).await;
    permission(LOGS.name, "PutLogEvents", missing_is_good(answer.map(drop)))
}

fn missing_is_good(answer: Result<(), CloudError>) -> Result<(), CloudError> {
    match answer {
        Err(error) if error.kind == CloudErrorKind::Missing => Ok(()),
        other => other,
    }
}

async fn public_address(caller: &Caller, config: &Config, own: &Own) -> Finding {
    const CHECK: &str = "public address";
    if own.is_public {
        return Finding::good(CHECK, "the first interface has one");
    }
    match address::prospect(caller, &own.interface).await {
        Ok(address::Prospect::Ours(public)) => Finding::good(CHECK, public),
        Ok(address::Prospect::Free(count)) if config.aws.elastic_ip => {
            Finding::good(CHECK, format!("none yet; {count} tagged and free to take"))
        }
        Ok(address::Prospect::Free(_)) => Finding::bad(
            CHECK,
            "none, and `elastic_ip` is off",
            "associate one, or let the appliance take one",
        ),
        Ok(address::Prospect::NoneFree) => Finding::bad(
            CHECK,
            "none, and no Elastic IP tagged postern or discriminat is free",
            "allocate an Elastic IP with the tag postern for each appliance",
        ),
        Err(error) => Finding::bad(CHECK, error.to_string(), "see the permissions above"),
    }
}

/// Forwarding needs the check off.
async fn source_check(caller: &Caller, own: &Own) -> Option<Finding> {
    const CALL: &str = "DescribeNetworkInterfaces";
    let arguments = filter(1, "network-interface-id", [own.interface.as_str()]);
    let body = caller.query(EC2, CALL, &arguments).await.ok()?;
    let document = xml::parse(CALL, 1, &body.bytes).ok()?;
    let item = xml::items(document.root_element(), "networkInterfaceSet").next()?;
    let is_on = xml::text(item, "sourceDestCheck")? == "true";
    let check = "source/destination check";
    Some(if is_on {
        let interface = &own.interface;
        Finding::bad(
            check,
            format!("it is on for {interface}: AWS drops what this appliance forwards"),
            format!(
                "aws ec2 modify-network-interface-attribute --network-interface-id {interface} --no-source-dest-check"
            ),
        )
    } else {
        Finding::good(check, "off, as forwarding needs")
    })
}

/// Some route table of the VPC must send its default route here.
async fn routes(caller: &Caller, own: &Own) -> Option<Finding> {
    const CALL: &str = "DescribeRouteTables";
    let arguments = filter(1, "vpc-id", [own.vpc.as_str()]);
    let body = caller.query(EC2, CALL, &arguments).await.ok()?;
    let document = xml::parse(CALL, 1, &body.bytes).ok()?;
    let mut here = Vec::new();
    let mut elsewhere = Vec::new();
    for table in xml::items(document.root_element(), "routeTableSet") {
        let id = xml::text(table, "routeTableId").unwrap_or_default();
        let route = xml::items(table, "routeSet")
            .find(|route| xml::text(*route, "destinationCidrBlock") == Some("0.0.0.0/0"));
        let Some(route) = route else { continue };
        let target = |name| xml::text(route, name).filter(|target| !target.is_empty());
        if target("networkInterfaceId") == Some(own.interface.as_str())
            || target("instanceId") == Some(own.instance.as_str())
            || target("gatewayId").is_some_and(|gateway| gateway.starts_with("vpce-"))
        {
            here.push(id.to_owned());
        } else if let Some(other) = target("natGatewayId").or_else(|| target("networkInterfaceId"))
        {
            elsewhere.push(format!("{id} to {other}"));
        }
    }
    let check = "routes";
    let vpc = &own.vpc;
    Some(if here.is_empty() {
        let fix = format!(
            "aws ec2 replace-route --route-table-id RTB --destination-cidr-block 0.0.0.0/0 --network-interface-id {}",
            own.interface
        );
        let detail = format!("no route table of {vpc} sends 0.0.0.0/0 to this appliance");
        Finding::bad(check, detail, fix)
    } else if elsewhere.is_empty() {
        Finding::good(check, format!("{} come here", here.join(", ")))
    } else {
        let others = elsewhere.join(", ");
        Finding::good(
            check,
            format!("{} come here; others: {others}", here.join(", ")),
        )
    })
}
