//! What `preflight` looks at in AWS.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_cloudwatchlogs::types::InputLogEvent;
use aws_sdk_ec2::types::Route;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::call::Caller;
use super::metadata::Own;
use super::pages::filter;
use super::service::SSM;
use super::{Aws, address};
use crate::cloud::{CloudError, CloudErrorKind};
use crate::config::Config;
use crate::preflight::{Finding, Outcome};

/// A clock that is off by more than this makes signatures and certificates fail before long.
const CLOCK_SECONDS_MAX: i64 = 60;

/// Objects to ask for where nothing but the permission matters: the least the service takes.
const FEW: i32 = 5;

/// Every check but those of the policy itself.
pub(super) async fn checks(caller: &Caller, config: &Config, cloud: &Aws) -> Vec<Finding> {
    let own = Own::read().await;
    let mut findings = readings(caller).await;
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

/// What is read of EC2, and the clock of its answers.
async fn readings(caller: &Caller) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut note = |action: &str, answer: Result<(), CloudError>| {
        findings.push(permission("ec2", action, answer));
    };
    let action = "DescribeNetworkInterfaces";
    let answer = caller.ec2(action, async |ec2| {
        let call = ec2.describe_network_interfaces();
        call.max_results(FEW).send().await
    });
    note(action, answer.await.map(drop));
    let action = "DescribeSecurityGroups";
    let answer = caller.ec2(action, async |ec2| {
        let call = ec2.describe_security_groups();
        call.max_results(FEW).send().await
    });
    note(action, answer.await.map(drop));
    let action = "DescribeSecurityGroupRules";
    let answer = caller.ec2(action, async |ec2| {
        let call = ec2.describe_security_group_rules();
        call.max_results(FEW).send().await
    });
    note(action, answer.await.map(drop));
    let action = "DescribeVpcs";
    let date = Date::default();
    let answer = caller.ec2(action, async |ec2| {
        let call = ec2.describe_vpcs().max_results(FEW).customize();
        call.interceptor(date.clone()).send().await
    });
    note(action, answer.await.map(drop));
    // DescribeAddresses alone does not page.
    let action = "DescribeAddresses";
    let answer = caller.ec2(action, async |ec2| ec2.describe_addresses().send().await);
    note(action, answer.await.map(drop));
    let action = "DescribeRouteTables";
    let answer = caller.ec2(action, async |ec2| {
        let call = ec2.describe_route_tables();
        call.max_results(FEW).send().await
    });
    note(action, answer.await.map(drop));
    findings.extend(date.said().and_then(|date| clock(&date)));
    findings
}

/// Takes note of when an answer was sent, by the service's own clock.
#[derive(Debug, Clone, Default)]
struct Date(Arc<Mutex<Option<String>>>);

impl Date {
    fn said(&self) -> Option<String> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.take()
    }
}

#[dyn_dispatch_hint]
impl Intercept for Date {
    fn name(&self) -> &'static str {
        "Date"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *said = date.map(ToOwned::to_owned);
        Ok(())
    }
}

/// What must be so of the network around an appliance in a route table, and is not.
pub(super) async fn troubles(caller: &Caller, config: &Config, own: &Own) -> Vec<Finding> {
    let mut findings = Vec::new();
    // One that takes an address says itself when it finds none.
    if !config.aws.elastic_ip {
        findings.push(public_address(caller, config, own).await);
    }
    findings.extend(source_check(caller, own).await);
    findings.retain(|finding| finding.outcome == Outcome::Bad);
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
fn clock(date: &str) -> Option<Finding> {
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
    const CALL: &str = "PutLogEvents";
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let event = InputLogEvent::builder()
        .timestamp(now.saturating_mul(1_000))
        .message("preflight")
        .build();
    let answer = caller.logs(CALL, async |logs| {
        logs.put_log_events()
            .log_group_name(group)
            .log_stream_name("preflight/no-such-stream")
            .set_log_events(event.as_ref().ok().map(|event| vec![event.clone()]))
            .send()
            .await
    });
    permission("logs", CALL, missing_is_good(answer.await.map(drop)))
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
    let answer = caller.ec2("DescribeNetworkInterfaces", async |ec2| {
        let call = ec2.describe_network_interfaces();
        call.filters(filter("network-interface-id", [own.interface.as_str()]))
            .send()
            .await
    });
    let answer = answer.await.ok()?;
    let is_on = answer.network_interfaces().first()?.source_dest_check()?;
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
    let answer = caller.ec2("DescribeRouteTables", async |ec2| {
        let call = ec2.describe_route_tables();
        call.filters(filter("vpc-id", [own.vpc.as_str()]))
            .send()
            .await
    });
    let answer = answer.await.ok()?;
    let mut here = Vec::new();
    let mut elsewhere = Vec::new();
    for table in answer.route_tables() {
        let id = table.route_table_id().unwrap_or_default();
        let mut routes = table.routes().iter();
        let route = routes.find(|route| route.destination_cidr_block() == Some("0.0.0.0/0"));
        let Some(route) = route else { continue };
        let target = route.nat_gateway_id();
        let target = target.or_else(|| route.network_interface_id());
        if comes_here(route, own) {
            here.push(id);
        } else if let Some(other) = target {
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

/// Whether a route ends at this instance, or at the end point of a load balancer.
fn comes_here(route: &Route, own: &Own) -> bool {
    route.network_interface_id() == Some(own.interface.as_str())
        || route.instance_id() == Some(own.instance.as_str())
        || route
            .gateway_id()
            .is_some_and(|gateway| gateway.starts_with("vpce-"))
}
