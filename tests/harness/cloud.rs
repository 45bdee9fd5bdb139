//! The AWS double: moto, behind a proxy of ours that pages, throttles, takes its time, keeps the service's limits and
//! breaks answers on request. A double kinder than the service is a bug.

mod api;
mod daemon_double;
mod double;
mod fault;
mod gcp;
mod healthz;
mod http;
pub mod large;
mod limits;
mod metadata;
pub mod moto;
mod pages;
mod roles;
mod scaling;
mod sidecar;

pub use api::{Api, ApiError, Event, Rule};
pub use daemon_double::{DaemonDouble, Published};
pub use double::{Double, Pace};
pub use fault::{Break, Fault};
pub use gcp::{
    Counted, Firewall, Google, GoogleBreak, GoogleFault, Machine, Policy, Route,
    large as large_project,
};
pub use healthz::Healthz;
pub use metadata::Metadata;
pub use moto::Moto;
pub use sidecar::{Sidecar, binary};

use anyhow::Result;

/// A cloud of one's own: moto, and the double in front of it.
#[derive(Debug)]
pub struct Cloud {
    /// What the product talks to.
    pub double: Double,
    /// Straight to moto, past every limit: to set the scene, and to read back.
    pub api: Api,
    moto: Moto,
}

impl Cloud {
    /// Starts both at the service's own pace.
    pub fn start() -> Result<Self> {
        Self::with_pace(Pace::default())
    }

    /// Starts both at another pace.
    pub fn with_pace(pace: Pace) -> Result<Self> {
        let moto = Moto::start()?;
        let double = Double::start(moto.address(), pace)?;
        let api = Api::new(moto.address());
        Ok(Self { double, api, moto })
    }

    /// As [`Cloud::api`], but through the double and so within every limit of the service.
    pub fn polite_api(&self) -> Api {
        Api::new(self.double.address())
    }

    /// Where moto listens.
    pub fn moto(&self) -> &Moto {
        &self.moto
    }
}
