//! What an appliance does as an instance: takes a public address, says what is wrong with its
//! network, and tells its autoscaling group when it is ready.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::address;
use super::call::Caller;
use super::health::{self, Subject};
use super::metadata::Own;
use super::preflight;
use super::service::AUTOSCALING;
use crate::config::Config;
use crate::link::LinkState;
use crate::schedule::Backoff;

/// The longest pause between two tries to tell the group.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Does all of it; returns when nothing is left to do. Nothing when this is no instance.
pub(super) async fn serve(caller: Caller, config: &Config, link: watch::Receiver<LinkState>) {
    let Some(own) = Own::read().await else {
        return;
    };
    let aws = &config.aws;
    let address = async {
        if aws.elastic_ip {
            address::take(&caller, &own).await;
        }
    };
    let network = async {
        for finding in preflight::troubles(&caller, config, &own).await {
            tracing::warn!(
                check = finding.check,
                why = finding.detail,
                fix = finding.fix,
                "this appliance's network is not as it must be"
            );
        }
    };
    let hook = async {
        if let (Some(group), Some(name)) = (&aws.autoscaling_group, &aws.launch_hook) {
            let hook = Hook {
                group,
                name,
                patience: aws.launch_wait(),
            };
            complete(&caller, &hook, &own.instance, link).await;
        }
    };
    let health = async {
        if let Some(group) = aws.autoscaling_group.clone().filter(|_| aws.health.report) {
            let subject = Subject {
                group,
                instance: own.instance.clone(),
                deployment: config.deployment.clone().unwrap_or_default(),
            };
            health::watch(&caller, &subject, &aws.health).await;
        }
    };
    tokio::join!(address, network, hook, health);
}

/// What a launch waits for.
#[derive(Debug, Clone, Copy)]
struct Hook<'a> {
    group: &'a str,
    name: &'a str,
    /// How long the launch waits for a policy in force before it goes on without.
    patience: Duration,
}

/// Lets the launch go on once a policy is adopted and primed.
async fn complete(
    caller: &Caller,
    hook: &Hook<'_>,
    instance: &str,
    mut link: watch::Receiver<LinkState>,
) {
    let ready = link.wait_for(|state| state.adopted.is_some() && state.primed);
    let why = match timeout(hook.patience, ready).await {
        Ok(Ok(_)) => "adopted and primed",
        Ok(Err(_)) => return,
        Err(_) => {
            tracing::warn!(
                after = ?hook.patience,
                "no policy is adopted and primed yet; the launch goes on, and nothing new leaves until one is"
            );
            "waited long enough"
        }
    };
    let arguments = [
        ("AutoScalingGroupName", hook.group),
        ("LifecycleHookName", hook.name),
        ("InstanceId", instance),
        ("LifecycleActionResult", "CONTINUE"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut backoff = Backoff::new(BACKOFF_MAX);
    loop {
        let told = caller.query(AUTOSCALING, "CompleteLifecycleAction", &arguments);
        match told.await {
            Ok(_) => {
                tracing::info!(hook.group, hook.name, why, "the launch goes on");
                return;
            }
            // The appliance was started anew and had said so before.
            Err(error) if error.detail.contains("No active Lifecycle Action") => {
                tracing::debug!(hook.group, hook.name, "no launch is waiting");
                return;
            }
            Err(error) => tracing::warn!(%error, "telling the autoscaling group"),
        }
        tokio::time::sleep(backoff.after_failure()).await;
    }
}
