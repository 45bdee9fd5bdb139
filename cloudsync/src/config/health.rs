//! When an autoscaling group is told to replace an appliance.

use std::time::Duration;

use serde::Deserialize;

use super::seconds;

/// The limits of DESIGN, section 4.5.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Health {
    /// Whether it is told at all.
    pub(crate) report: bool,
    /// The daemon's own word on how it is.
    pub(crate) url: String,
    /// Seconds over which three self-checks must fail.
    window_s: f64,
    /// Seconds the machine must be up.
    uptime_s: f64,
    /// Seconds between two reports of one deployment.
    pause_s: f64,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            report: true,
            url: "http://127.0.0.1:1042/healthz".to_owned(),
            window_s: 60.0,
            uptime_s: 300.0,
            pause_s: 1_800.0,
        }
    }
}

impl Health {
    /// Over which three self-checks must fail.
    pub(crate) fn window(&self) -> Duration {
        seconds(self.window_s, 0.2, 86_400.0)
    }

    /// How long the machine must be up.
    pub(crate) fn uptime(&self) -> Duration {
        seconds(self.uptime_s, 0.0, 1e9)
    }

    /// Between two reports of one deployment.
    pub(crate) fn pause(&self) -> Duration {
        seconds(self.pause_s, 10.0, 86_400.0)
    }
}
