//! The kernel's half of the data plane: taken over at the start, watched from then on.
//!
//! The ruleset comes before the sysctls that let packets be forwarded, so that there is no
//! moment at which the kernel forwards and nobody judges.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipc::control;
use ipnet::IpNet;
use nix::unistd::{User, geteuid};
use thiserror::Error;

use crate::config::{Config, Ipv6Egress};
use crate::familiar::Familiarity;
use crate::latch::Latch;
use crate::netfilter::{self, NetfilterError};
use crate::netlink::NetlinkError;
use crate::probe::{self, Incapable};
use crate::ruleset::{self, Layout, QueueForm, Ruleset, Services, Users};
use crate::sysctl::{Finding, Outcome, SysctlOptions, Sysctls};

mod counters;
mod watch;

pub use watch::{Editor, Guard};

/// The ruleset in force, and the parameters it rests on.
#[derive(Debug)]
pub struct Kernel {
    ruleset: Ruleset,
    form: QueueForm,
    sysctls: SysctlOptions,
    served: Mutex<Vec<IpNet>>,
    /// Who may ask the DNS front; nobody while it is off.
    askers: Mutex<Vec<IpNet>>,
    /// Closes what a ruleset that is gone would leave open; kept for its life only.
    latch: Option<Latch>,
    familiarity: Arc<Familiarity>,
    ours: AtomicBool,
    verified: AtomicU64,
    repaired: AtomicU64,
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
    /// Changes of the ruleset cannot be heard of.
    #[error("watching the ruleset")]
    Watch(#[source] NetlinkError),
    /// There is no thread or descriptor to be had.
    #[error("starting the ruleset's guard")]
    Thread(#[source] std::io::Error),
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
        let latch = Latch::engage().inspect_err(|error| {
            let error = crate::cli::chain(error);
            tracing::warn!(
                error,
                "no latch: a foreign flush of the ruleset opens until it is repaired"
            );
        });
        let sysctls = SysctlOptions {
            ipv6: config.ipv6_egress != Ipv6Egress::Off,
            ..SysctlOptions::default()
        };
        let this = Self {
            ruleset,
            form,
            sysctls,
            served: Mutex::new(Vec::new()),
            askers: Mutex::new(Vec::new()),
            latch: latch.ok(),
            familiarity: Arc::default(),
            ours: AtomicBool::new(true),
            verified: AtomicU64::new(1),
            repaired: AtomicU64::new(0),
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

    /// Whether the ruleset was ours when it was last looked at.
    pub fn is_ours(&self) -> bool {
        self.ours.load(Ordering::Relaxed)
    }

    /// Whether a foreign flush of the ruleset leaves nothing open.
    pub const fn is_latched(&self) -> bool {
        self.latch.is_some()
    }

    /// Whether pairs may become familiar.
    pub const fn familiarity(&self) -> &Arc<Familiarity> {
        &self.familiarity
    }

    /// Makes every familiar pair a stranger again: the next SYN of each is queued.
    pub fn forget_familiar(&self) {
        let Some(latch) = &self.latch else { return };
        if let Err(error) = latch.forget_familiar() {
            // They end by themselves, and what they let through is judged at its SYN/ACK.
            tracing::error!(
                error = crate::cli::chain(&error),
                "familiar pairs stay familiar for as long as they would have been"
            );
        }
    }

    /// Packets the ruleset counted under each name; empty when it cannot be read.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        counters::read().unwrap_or_else(|error| {
            tracing::debug!(error = crate::cli::chain(&error), "reading the counters");
            BTreeMap::new()
        })
    }

    /// How often the ruleset was read back, and how often it was not as it had been put there.
    pub fn checks(&self) -> (u64, u64) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (of(&self.verified), of(&self.repaired))
    }

    /// Compares the ruleset with what was put there and puts right what differs. `editor` is who is
    /// known to have changed something.
    ///
    /// # Errors
    /// When it cannot be put right: then the daemon must end.
    pub fn hold_ruleset(&self, editor: Option<&Editor>) -> Result<(), KernelError> {
        self.verified.fetch_add(1, Ordering::Relaxed);
        let Err(difference) = netfilter::verify(&self.ruleset) else {
            return Ok(());
        };
        self.ours.store(false, Ordering::Relaxed);
        let by = editor.map_or_else(|| "somebody".to_owned(), ToString::to_string);
        tracing::warn!(by, error = %difference, "repairing the ruleset");
        self.repair()?;
        self.repaired.fetch_add(1, Ordering::Relaxed);
        self.ours.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Sets the kernel parameters that differ.
    ///
    /// # Errors
    /// When one that is needed cannot be set: then the daemon must end.
    pub fn hold_parameters(&self) -> Result<(), KernelError> {
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
            match self.repair_once() {
                Ok(()) => return Ok(()),
                Err(error) => tracing::info!(error = crate::cli::chain(&error), "once more"),
            }
            // Whoever edits may not have finished; the latch is closed meanwhile.
            std::thread::sleep(REPAIR_PAUSE);
        }
        self.repair_once()
    }

    /// A table that is gone, or lacks what its rules speak of, is put back whole; the packets that
    /// waited went with it.
    fn repair_once(&self) -> Result<(), KernelError> {
        let there = netfilter::table_exists()?;
        let kept = there.then(|| netfilter::repair(&self.ruleset));
        match kept {
            Some(Ok(())) => {}
            None | Some(Err(NetfilterError::Unsupported(_))) => netfilter::install(&self.ruleset)?,
            Some(Err(error)) => return Err(error.into()),
        }
        self.put_served(&held(&self.served))?;
        self.put_askers(&held(&self.askers))
    }

    /// Tells the kernel which prefixes clients live in.
    ///
    /// # Errors
    /// When the set cannot be changed.
    pub fn set_served(&self, served: &[IpNet]) -> Result<(), KernelError> {
        if *held(&self.served) == *served {
            return Ok(());
        }
        self.put_served(served)?;
        hold(&self.served, served);
        Ok(())
    }

    /// Tells the kernel which prefixes may ask the DNS front; none while it is off.
    ///
    /// # Errors
    /// When the set cannot be changed.
    pub fn set_askers(&self, askers: &[IpNet]) -> Result<(), KernelError> {
        if *held(&self.askers) == *askers {
            return Ok(());
        }
        self.put_askers(askers)?;
        hold(&self.askers, askers);
        Ok(())
    }

    fn put_served(&self, served: &[IpNet]) -> Result<(), KernelError> {
        // Overlapping prefixes are one interval to nftables.
        let batch = ruleset::replace_served(&IpNet::aggregate(&served.to_vec()));
        let operation = "telling the kernel the served prefixes";
        Ok(netfilter::apply(operation, &batch)?)
    }

    fn put_askers(&self, askers: &[IpNet]) -> Result<(), KernelError> {
        let batch = ruleset::replace_askers(&IpNet::aggregate(&askers.to_vec()));
        let operation = "telling the kernel who may ask the DNS front";
        Ok(netfilter::apply(operation, &batch)?)
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

fn held(prefixes: &Mutex<Vec<IpNet>>) -> Vec<IpNet> {
    prefixes.lock().map(|held| held.clone()).unwrap_or_default()
}

fn hold(prefixes: &Mutex<Vec<IpNet>>, new: &[IpNet]) {
    if let Ok(mut held) = prefixes.lock() {
        *held = new.to_vec();
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
    let uids_of =
        |names: &[String]| -> Vec<u32> { names.iter().filter_map(|name| uid_of(name)).collect() };
    let publishers = uids_of(&config.users.publishers);
    let mut resolving = vec![uid_of(&config.users.witness).unwrap_or(own)];
    resolving.extend(uids_of(&config.users.resolvers));
    let mut connecting = publishers.clone();
    connecting.extend(uids_of(&config.users.services));
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
            resolving,
            connecting,
            metadata: publishers,
        },
        ..Layout::default()
    }
}

/// An edit may fall into a repair, and the next one into the next; one that is there every time is not
/// repairable.
const REPAIR_ATTEMPTS: u32 = 10;
const REPAIR_PAUSE: Duration = Duration::from_millis(50);
