//! AWS: a security group is a group, its egress rules are rules, interfaces are clients.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use ipnet::IpNet;

use crate::cloud::{Answer, Cloud, CloudError, CloudErrorKind, Interface, Reading};
use crate::config::Config;

mod cloudwatch;
mod error;
mod inventory;
mod metadata;
mod security_groups;
mod whole;

pub(crate) use cloudwatch::CloudWatch;

/// How often one reading starts over when its pages contradict each other.
const READINGS_MAX: u32 = 3;

/// How long the networks of the VPCs are taken for granted.
const NETWORKS_AGE_MAX: Duration = Duration::from_secs(300);

/// Loads region, credentials and endpoints from where every AWS program finds them.
pub(crate) async fn load(config: &Config) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(Duration::from_secs(20))
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(timeouts)
        // One more try after a hiccup; anything longer is a matter for the next reading.
        .retry_config(RetryConfig::standard().with_max_attempts(2));
    if let Some(region) = &config.aws.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(url) = &config.aws.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    loader.load().await
}

/// The security groups and interfaces of the served VPCs.
#[derive(Debug)]
pub(crate) struct Aws {
    ec2: aws_sdk_ec2::Client,
    /// VPCs to look at; every one the credentials can see when empty.
    vpcs: Vec<String>,
    /// Networks served beside those of the VPCs.
    served: Vec<IpNet>,
    networks: Option<(Instant, Vec<IpNet>)>,
    /// Groups in use that were not there the last time either.
    absent: Vec<String>,
    last: Option<Reading>,
    calls: u32,
}

impl Aws {
    /// Finds out which VPCs are served: those configured, else the instance's own, else all.
    pub(crate) async fn new(sdk: &SdkConfig, config: &Config) -> Self {
        let ec2 = aws_sdk_ec2::config::Builder::from(sdk)
            .interceptor(whole::Whole)
            .build();
        let mut vpcs = config.aws.vpcs.clone();
        if vpcs.is_empty() {
            vpcs.extend(metadata::own_vpc().await);
        }
        if vpcs.is_empty() {
            tracing::info!(
                "serving every VPC these credentials can see: none is configured and there is no instance metadata"
            );
        } else {
            tracing::info!(vpcs = vpcs.join(","), "serving");
        }
        Self {
            ec2: aws_sdk_ec2::Client::from_conf(ec2),
            vpcs,
            served: config.served.clone(),
            networks: None,
            absent: Vec::new(),
            last: None,
            calls: 1,
        }
    }

    /// One reading, from the first page of interfaces to the last page of rules.
    async fn read_once(&mut self, is_last_try: bool) -> Result<Reading, CloudError> {
        let (interfaces, interface_pages) = inventory::interfaces(&self.ec2, &self.vpcs).await?;
        let groups = interfaces
            .iter()
            .flat_map(|found| found.groups.iter().cloned())
            .collect();
        let (rules, rule_pages) = security_groups::rules(&self.ec2, &groups).await?;
        let missing = security_groups::missing(&self.ec2, &groups, &rules).await?;
        // A group of another account is missing every time; only a new one is worth another look.
        let news = missing.iter().find(|gid| !self.absent.contains(gid));
        if let Some(gid) = news.filter(|_| !is_last_try) {
            return Err(CloudError {
                call: "DescribeSecurityGroups".to_owned(),
                kind: CloudErrorKind::Inconsistent,
                detail: format!("{gid} is in use by an interface and does not exist"),
            });
        }
        self.absent.clone_from(&missing);
        self.calls = interface_pages.max(rule_pages);
        Ok(Reading {
            served: self.served(&interfaces).await?,
            unreadable: security_groups::unreadable(missing, &interfaces),
            interfaces,
            rules,
            groups,
            lists: BTreeMap::new(),
        })
    }

    /// The networks that are served, asked for anew when they are old or an interface is outside
    /// them.
    async fn served(&mut self, interfaces: &[Interface]) -> Result<Vec<IpNet>, CloudError> {
        let known = self.networks.as_ref().filter(|(asked, networks)| {
            asked.elapsed() < NETWORKS_AGE_MAX
                && interfaces
                    .iter()
                    .flat_map(|interface| &interface.nets)
                    .all(|net| networks.iter().any(|network| network.contains(net)))
        });
        let mut served = match known {
            Some((_, networks)) => networks.clone(),
            None => {
                let networks = inventory::networks(&self.ec2, &self.vpcs).await?;
                self.networks = Some((Instant::now(), networks.clone()));
                networks
            }
        };
        served.extend(&self.served);
        Ok(served)
    }
}

impl Cloud for Aws {
    async fn read(&mut self) -> Result<Answer, CloudError> {
        let mut tries = 1;
        loop {
            match self.read_once(tries == READINGS_MAX).await {
                // Something moved from one page to the next while we were reading.
                Err(error)
                    if error.kind == CloudErrorKind::Inconsistent && tries < READINGS_MAX =>
                {
                    tracing::info!(%error, "reading again");
                    tries += 1;
                }
                Err(error) => return Err(error),
                Ok(reading) => {
                    self.last = Some(reading.clone());
                    return Ok(Answer::Reading(Box::new(reading)));
                }
            }
        }
    }

    async fn look_up(&mut self, addresses: &[IpAddr]) -> Result<Option<Answer>, CloudError> {
        let Some(mut reading) = self.last.clone() else {
            return Ok(None);
        };
        let found = inventory::interfaces_with(&self.ec2, &self.vpcs, addresses).await?;
        if found.is_empty() {
            return Ok(None);
        }
        let new_groups = found
            .iter()
            .flat_map(|interface| &interface.groups)
            .filter(|gid| !reading.groups.contains(*gid))
            .cloned()
            .collect();
        let (rules, _) = security_groups::rules(&self.ec2, &new_groups).await?;
        inventory::merge(&mut reading.interfaces, found);
        reading.rules.extend(rules);
        reading.groups.extend(new_groups);
        reading.served = self.served(&reading.interfaces).await?;
        self.last = Some(reading.clone());
        Ok(Some(Answer::Reading(Box::new(reading))))
    }

    fn calls_per_reading(&self) -> u32 {
        self.calls
    }
}
