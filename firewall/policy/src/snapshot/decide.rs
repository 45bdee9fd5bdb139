//! The order in which the parts of a policy decide one flow.

use std::borrow::Cow;

use crate::preferences::{AddressMismatch, PlaintextHttp, Quic};
use crate::{AppProto, Ask, ClientRef, Date, Decision, Kind, Outcome, Reason, SeeThru, Transport};

use super::name::Found;
use super::rule::{Class, Rank};
use super::{DEPLOYMENT, Snapshot};

/// A see-thru in force and who is logged for it.
type InForce<'a> = (SeeThru<'a>, (&'a str, &'a str));

impl Snapshot {
    /// Decides one flow.
    ///
    /// An exact name, then a pattern, then an `address` rule, then see-thru of a group, then see-thru of
    /// the deployment; else the refusal names the most advanced check that failed: binding, then
    /// port, then name, then rule. The cost depends on the labels of the name and the groups of the client,
    /// not on how many names, patterns, clients or groups there are.
    pub fn decide(&self, ask: &Ask<'_>) -> Decision<'_> {
        let class = self.clients.class_of(ask.client);
        let found = self.find_named(class, ask);
        let in_force = self.see_thru(ask.client, ask.transport, ask.port, ask.date);
        let mut decision = Decision {
            outcome: Outcome::Allow,
            by: None,
            see_thru: in_force.map(|(see_thru, _)| see_thru),
            would_reason: None,
            binding_would_help: found.by.is_some() && !ask.bound,
            pins: Cow::Borrowed(&[]),
        };
        let address = || {
            self.addresses
                .find(&self.rules, class, ask.transport, ask.port, ask.dst)
        };
        let observe = self.preferences().address_mismatch == AddressMismatch::Observe;
        let refusal = self.refusal(ask, &found);
        match (found.by, in_force) {
            (Some(by), _) if ask.bound => self.allow_by_name(&mut decision, class, ask, by),
            (by, in_force) => match (address(), by, in_force) {
                (Some(rank), ..) => decision.by = self.origin(rank),
                (None, Some(by), _) if observe => {
                    self.allow_by_name(&mut decision, class, ask, by);
                    decision.would_reason = Some(refusal);
                }
                (None, _, Some((see_thru, origin))) => {
                    decision.by = Some(origin);
                    decision.see_thru = Some(SeeThru {
                        exerted: true,
                        ..see_thru
                    });
                    decision.would_reason = Some(refusal);
                }
                (None, _, None) => decision.outcome = Outcome::Refuse(refusal),
            },
        }
        decision
    }

    /// Fills in who allows a flow by its name, and under which host keys.
    fn allow_by_name<'a>(
        &'a self,
        decision: &mut Decision<'a>,
        class: &Class,
        ask: &Ask<'_>,
        by: super::name::NamedBy,
    ) {
        decision.by = self.origin(by.rank);
        if ask.proto == AppProto::Ssh {
            decision.pins = self
                .names
                .pins(&self.rules, class, by, ask.transport, ask.port);
        }
    }

    /// What the client's rules say about the claimed name, as far as preferences let names count.
    fn find_named(&self, class: &Class, ask: &Ask<'_>) -> Found {
        match (self.named_kind(ask), ask.name) {
            (Ok(kind), Some(name)) => {
                self.names
                    .find(&self.rules, class, kind, name, ask.transport, ask.port)
            }
            _ => Found::default(),
        }
    }

    /// The kind of entry that judges this flow, or the refusal of flows that no name can allow.
    fn named_kind(&self, ask: &Ask<'_>) -> Result<Kind, Reason> {
        let preferences = self.preferences();
        match (ask.transport, ask.proto) {
            (Transport::Tcp, AppProto::Tls) => Ok(Kind::Tls),
            (Transport::Tcp, AppProto::Ssh) => Ok(Kind::Ssh),
            (Transport::Tcp, AppProto::Http) => match preferences.plaintext_http {
                PlaintextHttp::AllowListed => Ok(Kind::Http),
                PlaintextHttp::Refuse => Err(Reason::PlaintextHttp),
            },
            (Transport::Tcp, _) => Err(Reason::ProtocolUnknown),
            (Transport::Udp, AppProto::Quic) => match preferences.quic {
                Quic::Inspect => Ok(Kind::Tls),
                Quic::Refuse => Err(Reason::Quic),
            },
            (Transport::Udp, _) => Err(Reason::Udp),
            (Transport::Icmp, _) => Err(Reason::Icmp),
            (Transport::Other(_), _) => Err(Reason::IpProtocol),
        }
    }

    /// The most advanced check that fails when nothing allows the flow.
    fn refusal(&self, ask: &Ask<'_>, found: &Found) -> Reason {
        let kind = match self.named_kind(ask) {
            Ok(kind) => kind,
            Err(reason) => return reason,
        };
        let ports = self.clients.ports(ask.client);
        if found.by.is_some() {
            return Reason::AddressNotOfName;
        }
        if found.on_other_port {
            return Reason::PortNotAllowed;
        }
        if !ports.has_proto(ask.proto) {
            return match kind {
                Kind::Http => Reason::PlaintextHttp,
                Kind::Tls if ask.proto == AppProto::Quic => Reason::Quic,
                Kind::Tls | Kind::Ssh => Reason::NoRule,
            };
        }
        match (ask.name, kind) {
            (Some(_), _) => Reason::NameNotAllowed,
            // An SSH client claims no name: the destination is bound to none that it may reach.
            (None, Kind::Ssh) if ports.at(ask.port).has_kind(kind) => Reason::AddressNotOfName,
            (None, Kind::Ssh) => Reason::PortNotAllowed,
            (None, Kind::Tls | Kind::Http) => Reason::NameNotAllowed,
        }
    }

    /// The see-thru in force for a flow: a group's before the deployment's.
    pub(super) fn see_thru(
        &self,
        client: ClientRef,
        transport: Transport,
        port: u16,
        date: Date,
    ) -> Option<InForce<'_>> {
        let of_group = |group: &u32| {
            let in_force = self
                .rules
                .see_thru(*group)
                .iter()
                .filter_map(|(rank, until)| {
                    let rule = self
                        .rules
                        .rule(*rank)
                        .filter(|rule| rule.fits(transport, port));
                    rule.and_then(|_| date.days_until(*until))
                        .map(|days| (*rank, days))
                });
            // In order of rank: the first is the rule that is logged, for as long as any lasts.
            let (rank, days_remaining) =
                in_force.reduce(|(rank, most), (_, days)| (rank, most.max(days)))?;
            let origin = self.origin(rank)?;
            Some((
                SeeThru {
                    gid: origin.0,
                    days_remaining,
                    exerted: false,
                },
                origin,
            ))
        };
        let of_deployment = || {
            let see_thru = self.deployment_see_thru(date)?;
            Some((see_thru, (DEPLOYMENT, "")))
        };
        self.clients
            .see_thru_groups(client)
            .iter()
            .find_map(of_group)
            .or_else(of_deployment)
    }

    /// The gid and rule id behind a rank.
    fn origin(&self, rank: Rank) -> Option<(&str, &str)> {
        let compiled = self.rules.rule(rank)?;
        let group = self
            .draft
            .groups
            .get(usize::try_from(compiled.group).ok()?)?;
        let first = self.rules.ranks(compiled.group).start;
        let rule = group
            .rules
            .get(usize::try_from(rank.checked_sub(first)?).ok()?)?;
        Some((&group.gid, &rule.rule))
    }
}
