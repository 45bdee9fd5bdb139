//! Writes the report, one line at a time, as things happen: a guest that hangs has told how far it came.

use std::fs::{self, File, OpenOptions};
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::boot::report::{Booted, Inheritance, Line, Stage, Transfer, write_line};

/// The result port.
#[derive(Debug)]
pub(crate) struct Reporter {
    port: File,
}

impl Reporter {
    /// Opens the serial port that the host reads.
    pub(crate) fn open(path: &str) -> Result<Self> {
        let port = OpenOptions::new().write(true).open(path);
        Ok(Self {
            port: port.with_context(|| format!("opening {path}"))?,
        })
    }

    /// Says one thing.
    pub(crate) fn say(&mut self, line: &Line) -> Result<()> {
        write_line(&mut self.port, line)
    }

    /// Says that the machine is up.
    pub(crate) fn booted(&mut self) -> Result<()> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned();
        self.say(&Line::Booted(Booted {
            kernel,
            uptime_ms: uptime_ms()?,
        }))
    }

    /// Says that a stage of the work has ended.
    pub(crate) fn stage(&mut self, name: &str) -> Result<()> {
        self.say(&Line::Stage(Stage {
            name: name.to_owned(),
            uptime_ms: uptime_ms()?,
        }))
    }

    /// Says that something could not be done.
    pub(crate) fn fault(&mut self, error: &anyhow::Error) -> Result<()> {
        self.say(&Line::Fault {
            what: format!("{error:#}"),
        })
    }

    /// Says how an attack went, or that it could not be made.
    pub(crate) fn inheritance(&mut self, outcome: Result<Inheritance>) -> Result<()> {
        match outcome {
            Ok(outcome) => self.say(&Line::Inheritance(outcome)),
            Err(error) => self.fault(&error),
        }
    }

    /// Says how a transfer went, or that it could not be made.
    pub(crate) fn transfer(&mut self, outcome: Result<Transfer>) -> Result<()> {
        match outcome {
            Ok(outcome) => self.say(&Line::Transfer(outcome)),
            Err(error) => self.fault(&error.context("a judged transfer")),
        }
    }

    /// Says that the list is done.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.say(&Line::Finished)
    }
}

/// Time since power-on, in milliseconds.
fn uptime_ms() -> Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds: f64 = text
        .split_whitespace()
        .next()
        .context("an empty /proc/uptime")?
        .parse()?;
    Ok(u64::try_from(Duration::from_secs_f64(seconds).as_millis())?)
}
