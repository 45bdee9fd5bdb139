//! Familiar pairs: connections whose SYN the kernel lets through by itself.
//!
//! The kernel may say of a SYN what was said of one moments ago, as long as it would be said again. So the promise is
//! given with a flow's last verdict and is about the time it is good for, and the connection is met at its SYN/ACK: by the
//! same gates, under the policy of that moment, before its client knows of it.

use policy::SynGate;

use crate::env::{Env, Time};
use crate::flow::{FlowKey, Side};
use crate::gate::{Door, is_bound_for_certain};
use crate::inspector::Inspector;
use crate::output::{Output, Verdict};
use crate::packet::Segment;
use crate::stage::Stage;

/// How long a pair is familiar, in milliseconds.
pub const FAMILIAR_MS: u64 = 10_000;

/// Whether both gates are open to a pair, and will be for as long as it would be familiar. A new policy is the caller's
/// business.
pub(crate) fn stays_open(env: &Env<'_>, key: &FlowKey) -> bool {
    let (server, port) = (key.server.ip(), key.server.port());
    let Some(client) = env.policy.client(key.client.ip()) else {
        return false;
    };
    let then = Time {
        mono_ms: env.now.mono_ms.saturating_add(FAMILIAR_MS),
        unix_ms: env.now.unix_ms.saturating_add(FAMILIAR_MS),
    };
    match env.policy.syn_gate(client, port, server, then.date()) {
        SynGate::Closed(_) => false,
        SynGate::Open => true,
        SynGate::Exact => {
            let then = Env { now: then, ..*env };
            env.bindings.is_global(server) && is_bound_for_certain(&then, client, key)
        }
    }
}

impl Inspector {
    /// The server's answer to a SYN that only the kernel has seen: from here on it is a connection like any other.
    /// Whether it is.
    pub(crate) fn admit(
        &mut self,
        env: &Env<'_>,
        token: u32,
        key: FlowKey,
        segment: &Segment<'_>,
    ) -> bool {
        let isn = segment.ack.minus(1);
        if let Some(flow) = self.table.take(&key) {
            // The SYN was sent again and came here when the pair was familiar no longer, or its answer was.
            let is_http = matches!(flow.stage, Stage::Http(_));
            if !segment.syn || is_http || isn.plus(1) == flow.client.stream.at_start() {
                self.table.put(flow);
                return true;
            }
            // The kernel has forgotten the connection we were following.
            self.abandon(flow);
        }
        let begins = segment.has_ack && segment.payload.is_empty() && (segment.syn || segment.rst);
        if !begins {
            return true;
        }
        self.decided.forget(&key);
        let door = match self.no_room_for(key.client.ip()) {
            Some(reason) => Door::Shut(reason),
            None => self.door(env, &key),
        };
        let shut = match door {
            Door::Open => None,
            Door::Shut(reason) => Some(reason),
            // A look-up may open it yet, and a SYN can be held while a connection cannot: the
            // client sends it again.
            Door::Miss | Door::Wait => {
                self.answer(token, Verdict::Drop);
                self.outputs.push_back(Output::Forget(key));
                return false;
            }
        };
        let deadline = env.now.mono_ms.saturating_add(self.limits.syn_ms).max(1);
        self.open(env, key, isn, Stage::AwaitingSynAck, deadline);
        let Some(reason) = shut else {
            self.counters.familiar = self.counters.familiar.wrapping_add(1);
            return true;
        };
        self.answer(token, Verdict::Drop);
        if let Some(flow) = self.table.take(&key) {
            self.refuse_for(env, flow, Side::Client, reason);
        }
        false
    }
}
