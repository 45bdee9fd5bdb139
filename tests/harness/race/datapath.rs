//! What stands in the middle: plain NAT, Postern, or one of the peers.

use std::time::Duration;

use anyhow::{Result, bail};

use super::generator::{self, Hello};
use super::postern::{Postern, Setup};
use super::proxy::Proxy;
use super::stage::{BEFORE, Layout, NAMES, Stage, pin};
use crate::wait;

/// The contestants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Kernel forwarding and masquerading.
    Nat,
    /// Postern, in its default configuration.
    Postern,
    /// HAProxy in TCP mode, by server name, to the original destination.
    Haproxy,
    /// nginx `stream` with `ssl_preread`.
    Nginx,
    /// Squid, peek and splice.
    Squid,
    /// Another build of Postern, of the commit before a change say: the one `POSTERN_BEFORE` names.
    Before,
}

impl Kind {
    /// Those that are published, in the order they run.
    pub const ALL: [Self; 5] = [
        Self::Nat,
        Self::Postern,
        Self::Haproxy,
        Self::Nginx,
        Self::Squid,
    ];

    /// Whether it is somebody else's program.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Haproxy | Self::Nginx | Self::Squid)
    }

    /// As results call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Postern => "postern",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Squid => "squid",
            Self::Before => "before",
        }
    }
}

/// One of them, running.
#[derive(Debug)]
pub struct Datapath<'s> {
    stage: &'s Stage,
    /// Which.
    pub kind: Kind,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Nat,
    Postern(Postern),
    Proxy(Proxy),
}

impl<'s> Datapath<'s> {
    /// Starts it; with `one_core` it gets one thread, on the second processor.
    pub fn start(stage: &'s Stage, kind: Kind, one_core: bool) -> Result<Self> {
        stage.clear()?;
        stage.arrange(if one_core {
            Layout::Split
        } else {
            Layout::Shared
        })?;
        let running = match kind {
            Kind::Nat => {
                stage.masquerade()?;
                Running::Nat
            }
            Kind::Postern | Kind::Before => Running::Postern(Postern::start(
                stage,
                &Stage::inventory(NAMES, 0),
                &Setup {
                    program: if kind == Kind::Before {
                        BEFORE
                    } else {
                        "postern"
                    },
                    one_core,
                    ..Setup::default()
                },
            )?),
            Kind::Haproxy | Kind::Nginx | Kind::Squid => {
                stage.masquerade()?;
                Running::Proxy(Proxy::start(stage, kind, one_core)?)
            }
        };
        let this = Self {
            stage,
            kind,
            running,
        };
        if one_core {
            for pid in this.pids() {
                pin(pid, "1")?;
            }
        }
        Ok(this)
    }

    /// Waits until an allowed connection goes through and nothing fails any more.
    pub fn warm_up(&self) -> Result<()> {
        let mut last = generator::Report::default();
        let through = wait::holds(Duration::from_secs(30), || {
            let run = generator::run(
                self.stage,
                Layout::Shared,
                Hello::Usual,
                0.4,
                &["paced", "--per-second", "250"],
            );
            run.is_ok_and(|report| {
                last = report;
                report.errors == 0 && report.connections > 0
            })
        });
        if !through {
            bail!("{}: connections still fail: {last:?}", self.kind.name());
        }
        Ok(())
    }

    /// Its processes.
    pub fn pids(&self) -> Vec<u32> {
        match &self.running {
            Running::Nat => Vec::new(),
            Running::Postern(postern) => postern.pids(),
            Running::Proxy(proxy) => proxy.pids(),
        }
    }
}

impl Drop for Datapath<'_> {
    fn drop(&mut self) {
        self.running = Running::Nat;
        // The next datapath clears what is left, and fails loudly if it cannot.
        drop(self.stage.clear());
    }
}
