//! Asks the policy, and keeps its answer for as long as a flow is undecided.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use policy::{AppProto, Ask, ClientRef, Decision, HostKeyPin, Name, Reason, Transport};

use crate::env::Env;
use crate::record::{Outcome, SeeThruRecord};

/// What is asked about one flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) client: IpAddr,
    pub(crate) server: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) proto: AppProto,
    pub(crate) name: Option<&'a Name>,
    pub(crate) bound: bool,
}

/// A decision, owned.
#[derive(Clone, Debug)]
pub(crate) struct Ruling {
    pub(crate) outcome: Outcome,
    pub(crate) would_reason: Option<Reason>,
    pub(crate) instance: Option<Arc<str>>,
    pub(crate) gid: Option<Arc<str>>,
    pub(crate) rule: Option<Arc<str>>,
    pub(crate) see_thru: Option<SeeThruRecord>,
    /// A look-up that binds the name to the address would change the outcome, or who allows.
    pub(crate) wants_binding: bool,
    /// The host keys the rule accepts; empty when it accepts any.
    pub(crate) pins: Vec<HostKeyPin>,
}

impl Ruling {
    /// A refusal that no rule was asked about.
    pub(crate) fn refusal(env: &Env<'_>, client: IpAddr, reason: Reason) -> Self {
        let instance = env
            .policy
            .client(client)
            .map(|known| env.policy.instance(known).into());
        Self {
            outcome: Outcome::Disallowed(reason),
            would_reason: None,
            instance,
            gid: None,
            rule: None,
            see_thru: None,
            wants_binding: false,
            pins: Vec::new(),
        }
    }

    pub(crate) fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allowed
    }

    /// Why the flow is refused, or would be without see-thru.
    pub(crate) const fn reason(&self) -> Option<Reason> {
        match self.outcome {
            Outcome::Disallowed(reason) => Some(reason),
            Outcome::Allowed => self.would_reason,
        }
    }

    /// Whether nothing but see-thru lets the flow pass.
    pub(crate) fn is_exerted(&self) -> bool {
        self.see_thru
            .as_ref()
            .is_some_and(|see_thru| see_thru.exerted)
    }

    /// The same ruling with another reason, wherever it states one.
    pub(crate) fn because(mut self, reason: Reason) -> Self {
        match self.outcome {
            Outcome::Disallowed(_) => self.outcome = Outcome::Disallowed(reason),
            Outcome::Allowed if self.would_reason.is_some() || self.is_exerted() => {
                self.would_reason = Some(reason);
            }
            Outcome::Allowed => {}
        }
        self
    }
}

/// Puts one question to the policy and keeps nothing but yes or no.
pub(crate) fn allows(env: &Env<'_>, question: &Question<'_>) -> bool {
    env.policy
        .client(question.client)
        .is_some_and(|client| decide(env, client, question).is_allowed())
}

/// As [`allows`], of a client that has been looked up.
pub(crate) fn allows_client(env: &Env<'_>, client: ClientRef, question: &Question<'_>) -> bool {
    decide(env, client, question).is_allowed()
}

fn decide<'p>(env: &Env<'p>, client: ClientRef, question: &Question<'_>) -> Decision<'p> {
    env.policy.decide(&Ask {
        client,
        transport: question.transport,
        proto: question.proto,
        name: question.name,
        bound: question.bound,
        dst: question.server.ip(),
        port: question.server.port(),
        date: env.now.date(),
    })
}

/// Puts one question to the policy.
pub(crate) fn rule(env: &Env<'_>, question: &Question<'_>) -> Ruling {
    let Some(client) = env.policy.client(question.client) else {
        return rule_unknown(env, question.client);
    };
    let decision = decide(env, client, question);
    let see_thru = decision.see_thru.map(|see_thru| SeeThruRecord {
        exerted: see_thru.exerted,
        gid: see_thru.gid.into(),
        days_remaining: see_thru.days_remaining,
    });
    Ruling {
        outcome: match decision.outcome {
            policy::Outcome::Allow => Outcome::Allowed,
            policy::Outcome::Refuse(reason) => Outcome::Disallowed(reason),
        },
        would_reason: decision.would_reason,
        instance: Some(env.policy.instance(client).into()),
        gid: decision.by.map(|(gid, _)| gid.into()),
        rule: decision.by.map(|(_, rule)| rule.into()),
        see_thru,
        wants_binding: decision.binding_would_help,
        pins: decision.pins.to_vec(),
    }
}

/// An address inside the served ranges that no inventory lists passes under deployment-wide
/// see-thru and under nothing else.
fn rule_unknown(env: &Env<'_>, client: IpAddr) -> Ruling {
    let refusal = Ruling::refusal(env, client, Reason::ClientUnknown);
    let in_force = env.policy.deployment_see_thru(env.now.date());
    let Some(in_force) = in_force.filter(|_| env.policy.is_served(client)) else {
        return refusal;
    };
    let gid: Arc<str> = in_force.gid.into();
    let see_thru = SeeThruRecord {
        exerted: true,
        gid: Arc::clone(&gid),
        days_remaining: in_force.days_remaining,
    };
    Ruling {
        outcome: Outcome::Allowed,
        would_reason: Some(Reason::ClientUnknown),
        gid: Some(gid),
        see_thru: Some(see_thru),
        ..refusal
    }
}

/// Destinations no rule and no see-thru opens: ourselves, our link, the metadata services.
/// The appliance's other addresses never come by here: the kernel delivers them locally.
pub(crate) fn is_off_limits(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            a == 0
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                // Azure's, kept by other clouds' images; DESIGN.md, section 3.
                || (a, b, v4.octets()) == (168, 63, [168, 63, 129, 16])
        }
        IpAddr::V6(v6) => {
            const METADATA_AWS: [u16; 8] = [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
            const METADATA_GCP: [u16; 8] = [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254];
            let segments = v6.segments();
            v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || segments == METADATA_AWS
                || segments == METADATA_GCP
                || embedded_v4(segments).is_some_and(|v4| is_off_limits(IpAddr::V4(v4)))
        }
    }
}

/// The IPv4 address inside a mapped (RFC 4291), NAT64 (RFC 6052, RFC 8215) or 6to4 (RFC 3056)
/// address.
fn embedded_v4(segments: [u16; 8]) -> Option<std::net::Ipv4Addr> {
    let join = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        std::net::Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(join(high, low)),
        [0x64, 0xff9b, 0 | 1, _, _, _, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_the_link_are_off_limits_in_every_spelling() {
        for text in [
            "169.254.169.254",
            "127.0.0.1",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(is_off_limits(text.parse().unwrap()), "{text}");
        }
        for text in [
            "10.0.0.1",
            "192.0.2.1",
            "168.63.129.17",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(!is_off_limits(text.parse().unwrap()), "{text}");
        }
    }
}
