//! What an appliance does as an instance: takes a public address, and tells its autoscaling group
//! when it is ready.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::address;
use super::call::Caller;
use super::metadata::Own;
use super::service::AUTOSCALING;
use crate::config::Aws;
use crate::link::LinkState;
use crate::schedule::Backoff;

/// How long the launch waits for a policy in force before it goes on without (DESIGN, section 4.5).
const READY_TIME: Duration = Duration::from_secs(120);

/// The longest pause between two tries to tell the group.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Does all of it; returns when nothing is left to do. Nothing when this is no instance.
pub(super) async fn serve(caller: Caller, config: Aws, link: watch::Receiver<LinkState>) {
    let Some(own) = Own::read().await else {
        return;
    };
    let address = async {
        if config.elastic_ip {
            address::take(&caller, &own).await;
        }
    };
    let hook = async {
        if let (Some(group), Some(hook)) = (&config.autoscaling_group, &config.launch_hook) {
            complete(&caller, group, hook, &own.instance, link).await;
        }
    };
    tokio::join!(address, hook);
}

/// Lets the launch go on once a policy is adopted and primed.
async fn complete(
    caller: &Caller,
    group: &str,
    hook: &str,
    instance: &str,
    mut link: watch::Receiver<LinkState>,
) {
    let ready = link.wait_for(|state| state.adopted.is_some() && state.primed);
    let why = match timeout(READY_TIME, ready).await {
        Ok(Ok(_)) => "adopted and primed",
        Ok(Err(_)) => return,
        Err(_) => {
            tracing::warn!(
                after = ?READY_TIME,
                "no policy is adopted and primed yet; the launch goes on, and nothing new leaves until one is"
            );
            "waited long enough"
        }
    };
    let arguments = [
        ("AutoScalingGroupName", group),
        ("LifecycleHookName", hook),
        ("InstanceId", instance),
        ("LifecycleActionResult", "CONTINUE"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut backoff = Backoff::new(BACKOFF_MAX);
    loop {
        let told = caller.query(AUTOSCALING, "CompleteLifecycleAction", &arguments);
        match told.await {
            Ok(_) => {
                tracing::info!(group, hook, why, "the launch goes on");
                return;
            }
            // The appliance was started anew and had said so before.
            Err(error) if error.detail.contains("No active Lifecycle Action") => {
                tracing::debug!(group, hook, "no launch is waiting");
                return;
            }
            Err(error) => tracing::warn!(%error, "telling the autoscaling group"),
        }
        tokio::time::sleep(backoff.after_failure()).await;
    }
}
