//! The instance's external address: one of the reserved ones, when it has none.
//!
//! Several appliances may start at once and want the same address. The service gives it to one of
//! them and says no to the others, who take the next; nobody takes an address from anybody.

use std::time::Duration;

use google_cloud_compute_v1::client::{Addresses, Instances, ZoneOperations};
use google_cloud_compute_v1::model::access_config::Type;
use google_cloud_compute_v1::model::address::{AddressType, Status};
use google_cloud_compute_v1::model::operation::Status as OperationStatus;
use google_cloud_compute_v1::model::{AccessConfig, Address, Operation};
use tokio::time::sleep;

use super::error::{call, incomplete};
use super::firewalls::{PAGE, PAGES_MAX};
use super::metadata::{Metadata, Own};
use super::unusable;
use crate::cloud::{CloudError, CloudErrorKind};
use crate::config::Config;
use crate::schedule::Backoff;

/// Labels that say an address is for appliances.
const LABELS: [&str; 2] = ["postern", "discriminat"];

/// How often an instance that has an address makes sure it still has.
const LOOK: Duration = Duration::from_secs(60);

/// The longest pause after failures.
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// How long an operation may take.
const OPERATION_TIME: Duration = Duration::from_secs(60);

/// Between two looks at an operation.
const OPERATION_LOOK: Duration = Duration::from_millis(500);

/// Keeps one instance at an external address.
#[derive(Debug)]
pub(crate) struct ExternalAddress {
    addresses: Addresses,
    instances: Instances,
    operations: ZoneOperations,
    metadata: Metadata,
    own: Own,
    deployment: Option<String>,
}

impl ExternalAddress {
    /// For the instance this runs on; nothing when it runs on none.
    pub(crate) async fn new(config: &Config) -> Result<Option<Self>, CloudError> {
        let metadata = Metadata::new();
        let Some(own) = metadata.own().await else {
            return Ok(None);
        };
        let endpoint = config.gcp.endpoint_url.as_deref();
        macro_rules! client {
            ($service:ident) => {{
                let mut builder = $service::builder();
                if let Some(url) = endpoint {
                    builder = builder.with_endpoint(url);
                }
                builder.build().await.map_err(unusable)?
            }};
        }
        Ok(Some(Self {
            addresses: client!(Addresses),
            instances: client!(Instances),
            operations: client!(ZoneOperations),
            metadata,
            own,
            deployment: config.deployment.clone(),
        }))
    }

    /// How many addresses the instance could take.
    pub(super) async fn count_free(&self) -> Result<usize, CloudError> {
        self.free().await.map(|free| free.len())
    }

    /// Looks for ever.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(BACKOFF_MAX);
        let mut said = None;
        loop {
            let pause = match self.look().await {
                Ok(_) => {
                    backoff.reset();
                    said = None;
                    LOOK
                }
                Err(error) => {
                    let trouble = format!("{}: {}", error.call, error.kind);
                    if said.as_ref() != Some(&trouble) {
                        tracing::warn!(%error, "the instance has no external address and takes none");
                        said = Some(trouble);
                    }
                    backoff.after_failure()
                }
            };
            sleep(pause).await;
        }
    }

    /// The address the instance has, having taken one if it had none and one is free.
    async fn look(&self) -> Result<Option<String>, CloudError> {
        if let Some(address) = self.metadata.external_address().await {
            return Ok(Some(address));
        }
        let mut free = self.free().await?;
        // So that those who start together do not all want the same one.
        fastrand::shuffle(&mut free);
        for candidate in &free {
            match self.take(candidate).await {
                Ok(address) => {
                    tracing::info!(address, "took a reserved external address");
                    return Ok(Some(address));
                }
                // Somebody was quicker, or it is not for this instance.
                Err(error) if error.kind == CloudErrorKind::Refused => {
                    tracing::info!(%error, "not this address");
                }
                Err(error) => return Err(error),
            }
        }
        if free.is_empty() {
            return Ok(None);
        }
        Err(CloudError {
            call: "taking an external address".to_owned(),
            kind: CloudErrorKind::Missing,
            detail: format!("none of {} could be taken", free.len()),
        })
    }

    /// Reserved addresses of the region that are for appliances of this deployment.
    async fn free(&self) -> Result<Vec<Address>, CloudError> {
        const CALL: &str = "addresses.list";
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        for page in 1..=PAGES_MAX {
            let request = self
                .addresses
                .list()
                .set_project(&self.own.project)
                .set_region(self.own.region())
                .set_max_results(PAGE)
                .set_or_clear_page_token(token);
            let answer = call(CALL, page, request.send()).await?;
            let is_ours = |address: &Address| is_free(address, self.deployment.as_deref());
            found.extend(answer.items.into_iter().filter(is_ours));
            token = answer.next_page_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(found);
            }
        }
        Err(incomplete(CALL, PAGES_MAX, "end"))
    }

    /// Takes one address, and says it once the instance has it.
    async fn take(&self, address: &Address) -> Result<String, CloudError> {
        const CALL: &str = "instances.addAccessConfig";
        let wanted = address.address.clone();
        let wanted = wanted.ok_or_else(|| incomplete("addresses.list", 1, "address"))?;
        let access = AccessConfig::new()
            .set_name("external-nat")
            .set_type(Type::OneToOneNat)
            .set_nat_ip(&wanted);
        // An address of the standard tier is refused to an access configuration of the premium one.
        let tier = address.network_tier.as_ref().and_then(|tier| tier.name());
        let access = match tier {
            Some(tier) => access.set_network_tier(tier),
            None => access,
        };
        let request = self
            .instances
            .add_access_config()
            .set_project(&self.own.project)
            .set_zone(&self.own.zone)
            .set_instance(&self.own.name)
            .set_network_interface("nic0")
            .set_body(access);
        let operation = call(CALL, 1, request.send()).await?;
        self.wait(operation).await.map(|()| wanted)
    }

    /// Waits until an operation has done what it was for.
    async fn wait(&self, mut operation: Operation) -> Result<(), CloudError> {
        const CALL: &str = "zoneOperations.get";
        let deadline = tokio::time::Instant::now() + OPERATION_TIME;
        while operation.status != Some(OperationStatus::Done) {
            if tokio::time::Instant::now() > deadline {
                return Err(CloudError {
                    call: CALL.to_owned(),
                    kind: CloudErrorKind::Unavailable,
                    detail: "the operation does not end".to_owned(),
                });
            }
            sleep(OPERATION_LOOK).await;
            let name = operation.name.clone();
            let name = name.ok_or_else(|| incomplete(CALL, 1, "name"))?;
            let request = self
                .operations
                .get()
                .set_project(&self.own.project)
                .set_zone(&self.own.zone)
                .set_operation(name);
            operation = call(CALL, 1, request.send()).await?;
        }
        let errors = operation
            .error
            .map(|error| error.errors)
            .unwrap_or_default();
        match errors.first() {
            None => Ok(()),
            Some(error) => Err(CloudError {
                call: CALL.to_owned(),
                kind: CloudErrorKind::Refused,
                detail: error.message.clone().unwrap_or_default(),
            }),
        }
    }
}

/// Whether an address is nobody's and has one of the labels: with the deployment's name where the
/// deployment has one, else with anything.
fn is_free(address: &Address, deployment: Option<&str>) -> bool {
    let is_external = address
        .address_type
        .as_ref()
        .is_none_or(|kind| *kind == AddressType::External);
    let is_ours = LABELS.iter().any(|label| {
        address
            .labels
            .get(*label)
            .is_some_and(|value| match deployment {
                Some(deployment) => value == deployment,
                None => !value.is_empty(),
            })
    });
    is_external && is_ours && address.status == Some(Status::Reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_free_address_with_the_deployments_label_is_taken() {
        let address = |label: &str, value: &str| {
            Address::new()
                .set_address_type(AddressType::External)
                .set_status(Status::Reserved)
                .set_labels([(label, value)])
        };
        assert!(is_free(&address("postern", "blue"), None));
        assert!(is_free(&address("discriminat", "blue"), Some("blue")));
        assert!(!is_free(&address("postern", "green"), Some("blue")));
        assert!(!is_free(&address("postern", ""), None));
        assert!(!is_free(&address("name", "postern"), None));
        let taken = address("postern", "blue").set_status(Status::InUse);
        assert!(!is_free(&taken, None));
        let internal = address("postern", "blue").set_address_type(AddressType::Internal);
        assert!(!is_free(&internal, None));
    }
}
