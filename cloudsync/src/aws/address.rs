//! A public address of its own: an appliance without one takes an Elastic IP that is free.
//!
//! Several appliances may start at once and want the same address. The service decides
//! (`AllowReassociation` is false, so nobody loses one), each reads back what it got, and who got
//! nothing looks for another after a pause of its own.

use std::time::Duration;

use aws_sdk_ec2::types::{self, Filter};

use super::call::Caller;
use super::error::incomplete;
use super::metadata::Own;
use super::pages::filter;
use crate::cloud::CloudError;

/// Tags that say an address may be taken, whatever their value.
const TAGS: [&str; 2] = ["postern", "discriminat"];

/// Between two looks while no address is free.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// Before the next try after somebody else was faster, at most.
const STEP_ASIDE: Duration = Duration::from_secs(1);

/// An Elastic IP.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    allocation: String,
    public: String,
    /// The interface it is on; empty when it is free.
    interface: String,
    is_free: bool,
}

/// Where an attempt ended.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    Ours(String),
    NoneFree,
    TakenByAnother,
}

/// Takes an address, however long it takes until one is free; at once when the instance has one.
pub(super) async fn take(caller: &Caller, own: &Own) {
    if own.is_public {
        return;
    }
    let mut complained = None;
    loop {
        let attempt = attempt(caller, &own.interface).await;
        let pause = match &attempt {
            Ok(Attempt::Ours(public)) => {
                tracing::info!(
                    address = public,
                    interface = own.interface,
                    "this appliance's public address"
                );
                return;
            }
            Ok(Attempt::TakenByAnother) => STEP_ASIDE.mul_f64(fastrand::f64()),
            Ok(Attempt::NoneFree) | Err(_) => LOOK_AGAIN.mul_f64(0.75 + 0.5 * fastrand::f64()),
        };
        let trouble = match attempt {
            Ok(Attempt::NoneFree) => Some(
                "no Elastic IP tagged postern or discriminat is free: allocate one for each appliance"
                    .to_owned(),
            ),
            Ok(_) => None,
            Err(error) => Some(format!("{}: {}: {}", error.call, error.kind, error.detail)),
        };
        if trouble.is_some() && trouble != complained {
            let why = trouble.as_deref().unwrap_or_default();
            tracing::warn!(why, "this appliance has no public address");
            complained = trouble;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Looks for a free address and takes it.
async fn attempt(caller: &Caller, interface: &str) -> Result<Attempt, CloudError> {
    let tagged = addresses(caller, filter("tag-key", TAGS)).await?;
    if let Some(ours) = tagged.iter().find(|address| address.interface == interface) {
        return Ok(Attempt::Ours(ours.public.clone()));
    }
    let free: Vec<&Address> = tagged.iter().filter(|address| address.is_free).collect();
    // Any of them, so that appliances that start together rarely want the same one.
    let Some(chosen) = fastrand::choice(&free) else {
        return Ok(Attempt::NoneFree);
    };
    let associated = caller.ec2("AssociateAddress", async |ec2| {
        ec2.associate_address()
            .allocation_id(&chosen.allocation)
            .network_interface_id(interface)
            .allow_reassociation(false)
            .send()
            .await
    });
    match associated.await {
        Ok(_) => {}
        Err(error) if error.detail.starts_with("Resource.AlreadyAssociated") => {
            return Ok(Attempt::TakenByAnother);
        }
        Err(error) => return Err(error),
    }
    let one = filter("allocation-id", [chosen.allocation.as_str()]);
    let found = addresses(caller, one).await?;
    let is_ours = found.iter().any(|address| address.interface == interface);
    Ok(if is_ours {
        Attempt::Ours(chosen.public.clone())
    } else {
        Attempt::TakenByAnother
    })
}

/// What an appliance without a public address can hope for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Prospect {
    /// This address is on its interface already.
    Ours(String),
    /// So many are tagged and free.
    Free(usize),
    /// None is.
    NoneFree,
}

/// Looks, and takes nothing.
pub(super) async fn prospect(caller: &Caller, interface: &str) -> Result<Prospect, CloudError> {
    let tagged = addresses(caller, filter("tag-key", TAGS)).await?;
    if let Some(ours) = tagged.iter().find(|address| address.interface == interface) {
        return Ok(Prospect::Ours(ours.public.clone()));
    }
    Ok(
        match tagged.iter().filter(|address| address.is_free).count() {
            0 => Prospect::NoneFree,
            count => Prospect::Free(count),
        },
    )
}

/// The addresses that pass this filter.
async fn addresses(caller: &Caller, filter: Filter) -> Result<Vec<Address>, CloudError> {
    const CALL: &str = "DescribeAddresses";
    let answer = caller.ec2(CALL, async |ec2| {
        ec2.describe_addresses()
            .filters(filter.clone())
            .send()
            .await
    });
    let found = answer.await?.addresses;
    let found = found.ok_or_else(|| incomplete(CALL, 1, "addressesSet"))?;
    found
        .into_iter()
        .map(|raw| address(raw).ok_or_else(|| incomplete(CALL, 1, "allocation id")))
        .collect()
}

fn address(raw: types::Address) -> Option<Address> {
    let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    Some(Address {
        is_free: is_empty(&raw.association_id) && is_empty(&raw.instance_id),
        allocation: raw.allocation_id?,
        public: raw.public_ip.unwrap_or_default(),
        interface: raw.network_interface_id.unwrap_or_default(),
    })
}
