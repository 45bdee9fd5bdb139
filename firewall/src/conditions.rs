//! What is looked at every second: whether packets are served, and what is wrong around us.
//!
//! A condition that begins is one fault line in the config log and a sentence in `status`; while it lasts it says no
//! more. Only the data plane turns health red and silences the watchdog.

use std::time::{Duration, Instant};

use ipc::control::WitnessState;

use crate::appliance::Appliance;
use crate::clock;
use crate::familiar::PortWatch;
use crate::witness::read_anchors;

/// What was found last time.
#[derive(Debug)]
pub struct Conditions {
    ports: PortWatch,
    clock: bool,
    resolver: bool,
    source: bool,
    front: Option<String>,
    anchors: Option<String>,
    /// Seconds until the file of certificate authorities is looked at again.
    anchors_in: u32,
}

impl Conditions {
    /// Nothing is known to be wrong.
    pub fn begin() -> Self {
        Self {
            ports: PortWatch::begin(),
            clock: false,
            resolver: false,
            source: false,
            front: None,
            anchors: None,
            anchors_in: 0,
        }
    }

    /// Looks at everything beside the data plane.
    pub fn look(&mut self, appliance: &mut Appliance) {
        let unsynchronised = clock::is_synchronised() != Some(true);
        appliance.set_clock_synchronised(!unsynchronised);
        let why = "clock_unsynchronised: certificates cannot be dated by it";
        note(appliance, &mut self.clock, unsynchronised, "clock", why);
        let unanswered = appliance.parts().witness.state() == WitnessState::Unanswered;
        let why = "resolver_down: bound names keep working, new ones are refused";
        note(appliance, &mut self.resolver, unanswered, "resolver", why);
        let silent = is_silent(appliance);
        let why = "publisher_silent: the last good policy stays in force";
        note(appliance, &mut self.source, silent, "publisher", why);
        self.look_at_front(appliance);
        self.look_at_anchors(appliance);
        self.ports.look(&appliance.parts().kernel, Instant::now());
    }

    /// The witness goes on with the authorities it can read: what they do not vouch for is found bad, not good.
    fn look_at_anchors(&mut self, appliance: &mut Appliance) {
        if let Some(left) = self.anchors_in.checked_sub(1) {
            self.anchors_in = left;
            return;
        }
        self.anchors_in = ANCHORS_EVERY_S;
        let path = appliance.config().certificates.anchors.clone();
        let fault = path.and_then(|path| read_anchors(&path).err());
        let fault = fault.map(|error| error.to_string());
        if fault == self.anchors {
            return;
        }
        if let Some(why) = &fault {
            appliance.fault("certificates.anchors", why);
        }
        appliance.set_degraded("certificates.anchors", fault.clone());
        self.anchors = fault;
    }

    fn look_at_front(&mut self, appliance: &mut Appliance) {
        let fault = appliance.front_fault();
        if fault == self.front {
            return;
        }
        if let Some(why) = &fault {
            appliance.fault("dns_front", why);
        }
        appliance.set_degraded("dns_front", fault.clone());
        self.front = fault;
    }
}

fn note(appliance: &mut Appliance, was: &mut bool, is: bool, object: &'static str, why: &str) {
    if is && !*was {
        appliance.fault(object, why);
    }
    if is != *was {
        appliance.set_degraded(object, is.then(|| why.to_owned()));
        *was = is;
    }
}

/// Whether whoever publishes has not been heard of for long; an inventory file has nobody to hear of.
fn is_silent(appliance: &Appliance) -> bool {
    let from_file = appliance.config().inventory.is_some();
    !from_file && appliance.publisher_silence() > Some(SILENCE_MAX)
}

/// How often the file of certificate authorities is looked at, in seconds.
const ANCHORS_EVERY_S: u32 = 60;
/// Cloudsync reports its source at least every 30 s.
const SILENCE_MAX: Duration = Duration::from_secs(120);
