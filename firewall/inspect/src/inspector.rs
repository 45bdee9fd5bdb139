//! The surface of the engine.

use std::collections::VecDeque;
use std::net::IpAddr;

use policy::Name;

use crate::counters::Counters;
use crate::env::{Answer, Env};
use crate::limits::Limits;
use crate::output::{Class, Output, Verdict};

/// Judges the packets of one queue.
///
/// Both directions of a flow must come to the same inspector. Call [`handle_packet`] for each
/// packet, [`handle_answer`] when a look-up has ended, [`handle_timeout`] when
/// [`poll_timeout`] says so, [`handle_policy`] right after the policy was swapped, and after
/// each of them take [`poll_output`] until it is empty.
///
/// [`handle_packet`]: Self::handle_packet
/// [`handle_answer`]: Self::handle_answer
/// [`handle_timeout`]: Self::handle_timeout
/// [`poll_timeout`]: Self::poll_timeout
/// [`handle_policy`]: Self::handle_policy
/// [`poll_output`]: Self::poll_output
#[derive(Debug)]
pub struct Inspector {
    limits: Limits,
    counters: Counters,
    outputs: VecDeque<Output>,
}

impl Inspector {
    /// An inspector that knows no flow.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, counters: Counters::default(), outputs: VecDeque::new() }
    }

    /// Takes in one packet. `packet` starts at the IP header and is the whole of it, GSO
    /// super-packets of up to 64 KiB included. `token` must not be in use by a packet that is
    /// still unanswered.
    pub fn handle_packet(&mut self, env: &Env<'_>, token: u32, class: Class, packet: &[u8]) {
        let _ = (env, class, packet, &self.limits);
        self.counters.packets = self.counters.packets.wrapping_add(1);
        self.outputs.push_back(Output::Verdict { token, verdict: Verdict::Drop });
    }

    /// Learns that the look-up of `name` has ended; the bindings have been updated already.
    pub fn handle_answer(&mut self, env: &Env<'_>, name: &Name, answer: Answer) {
        let _ = (env, name, answer);
    }

    /// Learns that no inventory knows the address of an
    /// [`Output::UnknownClient`]: it is refused from now on, for a while.
    pub fn handle_no_such_client(&mut self, env: &Env<'_>, client: IpAddr) {
        let _ = (env, client);
    }

    /// Judges every undecided flow again, by the policy that has just come into force.
    pub fn handle_policy(&mut self, env: &Env<'_>) {
        let _ = env;
    }

    /// Ends whatever has waited too long.
    pub fn handle_timeout(&mut self, env: &Env<'_>) {
        let _ = env;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next wanted, on the clock of
    /// [`Time::mono_ms`](crate::Time::mono_ms), if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        None
    }

    /// Takes the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Running totals.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}
