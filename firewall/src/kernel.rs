//! The kernel's half of the data plane: taken over at the start, watched from then on.
//!
//! The ruleset comes before the sysctls that let packets be forwarded, so that there is no
//! moment at which the kernel forwards and nobody judges.

use std::sync::Mutex;

use ipc::control;
use ipnet::IpNet;
use nix::unistd::{User, geteuid};
use thiserror::Error;

use crate::config::{Config, Ipv6Egress};
use crate::netfilter::{self, NetfilterError};
use crate::probe::{self, Incapable};
use crate::ruleset::{self, Layout, QueueForm, Ruleset, Services, Users};
use crate::sysctl::{Finding, Outcome, SysctlOptions, Sysctls};

/// The ruleset in force, and the parameters it rests on.
#[derive(Debug)]
pub struct Kernel {
    ruleset: Ruleset,
    form: QueueForm,
    sysctls: SysctlOptions,
    served: Mutex<Vec<IpNet>>,
}

/// What the kernel cannot do, or will not let us.
#[derive(Debug, Error)]
pub enum KernelError {
    /// Features, privileges or programs are missing; each is named.
    #[error(transparent)]
    Incapable(#[from] Incapable),
    /// The ruleset is not in force.
    #[error(transparent)]
    Netfilter(#[from] NetfilterError),
    /// Parameters do not have their values.
    #[error("kernel parameters: {0}")]
    Sysctl(String),
}

impl Kernel {
    /// Puts the ruleset and the parameters in force and verifies both.
    ///
    /// # Errors
    /// Naming the missing feature or privilege. Whatever was there before stays.
    pub fn take_over(config: &Config) -> Result<Self, KernelError> {
        let form = probe::probe()?.queue_form;
        let ruleset = Ruleset::render(&Layout {
            queue_form: form,
            ..layout(config)
        });
        netfilter::install(&ruleset)?;
        let sysctls = SysctlOptions {
            ipv6: config.ipv6_egress != Ipv6Egress::Off,
            ..SysctlOptions::default()
        };
        let this = Self {
            ruleset,
            form,
            sysctls,
            served: Mutex::new(Vec::new()),
        };
        for finding in this.assert_sysctls()? {
            tracing::info!("{finding}");
        }
        tracing::info!(form = ?form, queues = config.queues, "the ruleset is in force");
        Ok(this)
    }

    /// Which form the queue statement has, for status.
    pub fn queue_form(&self) -> control::QueueForm {
        match self.form {
            QueueForm::Native => control::QueueForm::Native,
            QueueForm::IptablesShim => control::QueueForm::Compat,
        }
    }

    /// Compares the kernel with what was put there and repairs what differs.
    ///
    /// # Errors
    /// When it cannot be repaired: then the daemon must end.
    pub fn hold(&self) -> Result<(), KernelError> {
        if let Err(error) = netfilter::verify(&self.ruleset) {
            tracing::warn!(%error, "repairing the ruleset");
            self.repair()?;
            self.put_served(&self.served())?;
        }
        for finding in self.assert_sysctls()? {
            if matches!(finding.outcome, Outcome::Repaired(_)) {
                tracing::warn!("{finding}");
            }
        }
        Ok(())
    }

    /// Repairs the ruleset, again when someone changed it meanwhile.
    fn repair(&self) -> Result<(), KernelError> {
        for _ in 1..REPAIR_ATTEMPTS {
            match netfilter::repair(&self.ruleset) {
                Err(NetfilterError::NotOurs(_)) => {}
                result => return Ok(result?),
            }
        }
        Ok(netfilter::repair(&self.ruleset)?)
    }

    /// Tells the kernel which prefixes clients live in.
    ///
    /// # Errors
    /// When the set cannot be changed.
    pub fn set_served(&self, served: &[IpNet]) -> Result<(), KernelError> {
        if *self.served() == *served {
            return Ok(());
        }
        self.put_served(served)?;
        if let Ok(mut held) = self.served.lock() {
            *held = served.to_vec();
        }
        Ok(())
    }

    fn put_served(&self, served: &[IpNet]) -> Result<(), KernelError> {
        // Overlapping prefixes are one interval to nftables.
        let merged = IpNet::aggregate(&served.to_vec());
        let batch = ruleset::replace_served(&merged);
        Ok(netfilter::apply(
            "telling the kernel the served prefixes",
            &batch,
        )?)
    }

    fn served(&self) -> Vec<IpNet> {
        self.served
            .lock()
            .map(|held| held.clone())
            .unwrap_or_default()
    }

    /// Sets what differs; returns what was not as it should be and is no reason to stop.
    fn assert_sysctls(&self) -> Result<Vec<Finding>, KernelError> {
        let sysctls = Sysctls::default();
        let findings = sysctls.assert(sysctls.plan(&self.sysctls));
        let (fatal, rest): (Vec<Finding>, Vec<Finding>) =
            findings.into_iter().partition(Finding::is_fatal);
        if !fatal.is_empty() {
            let said: Vec<String> = fatal.iter().map(ToString::to_string).collect();
            return Err(KernelError::Sysctl(said.join("; ")));
        }
        let held = |finding: &Finding| matches!(finding.outcome, Outcome::Held);
        Ok(rest.into_iter().filter(|finding| !held(finding)).collect())
    }
}

fn layout(config: &Config) -> Layout {
    let own = geteuid().as_raw();
    let uid_of = |name: &str| {
        User::from_name(name)
            .ok()
            .flatten()
            .map(|user| user.uid.as_raw())
    };
    let publishers: Vec<u32> = config
        .users
        .publishers
        .iter()
        .filter_map(|name| uid_of(name))
        .collect();
    Layout {
        queues: config.queues,
        ipv6_egress: match config.ipv6_egress {
            Ipv6Egress::Masquerade => ruleset::Ipv6Egress::Masquerade,
            Ipv6Egress::Route => ruleset::Ipv6Egress::Route,
            Ipv6Egress::Off => ruleset::Ipv6Egress::Off,
        },
        uplink: config.wan.clone(),
        services: Services {
            tcp_ports: config
                .health
                .0
                .iter()
                .map(|address| address.port())
                .chain(config.open_ports.iter().copied())
                .collect(),
            udp_ports: Vec::new(),
        },
        users: Users {
            daemon: own,
            resolving: vec![uid_of(&config.users.witness).unwrap_or(own)],
            connecting: publishers.clone(),
            metadata: publishers,
        },
        ..Layout::default()
    }
}

/// An edit may fall between a repair and the look at its outcome; one that is there every time is not
/// repairable.
const REPAIR_ATTEMPTS: u32 = 3;
