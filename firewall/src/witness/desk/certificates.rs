//! Which servers the witness shakes hands with, and what follows from what it sees.
//!
//! A flow is never delayed by it: the first one to a server goes on while its certificate is looked at, and ends if that
//! turns out not to be of its name. Handshakes are few by design, so that nobody can have them made at somebody else's
//! door: twenty a second, four addresses of a name within the hour.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use inspect::{Bindings, Certificate, Time};
use ipc::witness::{CertificateVerdict, CertifiedV1, CertifyV1, DETAIL_BYTES_MAX, ToWitness};
use policy::Name;
use policy::preferences::CertificateCheck;

use super::{Action, Desk};

/// What the policy does not say of handshakes of our own.
#[derive(Clone, Debug, Default)]
pub struct CertificateSettings {
    /// Handshakes a second at most; 0 for none at all.
    pub per_second: u32,
    /// A PEM file with authorities to trust beside the system's.
    pub anchors: Option<PathBuf>,
    /// More of them, PEM itself.
    pub authorities: String,
    /// Whether to date certificates by a clock that the kernel calls unsynchronised.
    pub trust_clock: bool,
}

/// The daemon's half of the certificate witness.
#[derive(Debug, Default)]
pub(super) struct CertificateDesk {
    settings: CertificateSettings,
    /// Handshakes under way, and since when.
    asked: HashMap<(Name, SocketAddr), u64>,
    /// Addresses of each name that were looked at within the hour that began then.
    looked_at: HashMap<Name, (u64, Vec<IpAddr>)>,
    /// Servers whose bad certificate was said, and when.
    said: HashMap<(Name, SocketAddr), u64>,
    second: u64,
    spent: u32,
    enforced: bool,
    counts: CertificateCounts,
}

/// What was done since somebody last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::witness) struct CertificateCounts {
    /// Certificates found good.
    pub(in crate::witness) valid: u64,
    /// Certificates found bad.
    pub(in crate::witness) invalid: u64,
    /// Handshakes that showed none.
    pub(in crate::witness) unseen: u64,
    /// Servers that were not asked: beyond what may be.
    pub(in crate::witness) not_asked: u64,
}

impl Desk {
    /// The same desk with these settings.
    pub(in crate::witness) fn with_certificates(mut self, settings: CertificateSettings) -> Self {
        self.settings.anchors.clone_from(&settings.anchors);
        self.settings.authorities.clone_from(&settings.authorities);
        self.certificates.settings = settings;
        self
    }

    /// What was done since the last call.
    pub(in crate::witness) fn take_certificate_counts(&mut self) -> CertificateCounts {
        std::mem::take(&mut self.certificates.counts)
    }

    fn check(&self) -> CertificateCheck {
        self.policy
            .as_ref()
            .map_or(CertificateCheck::Off, |policy| {
                policy.preferences().certificate_check
            })
    }

    /// A policy has come into force: flows that were only watched until now end where it enforces.
    pub(super) fn adopt_certificates(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let enforced = self.check() == CertificateCheck::Enforce;
        let was = std::mem::replace(&mut self.certificates.enforced, enforced);
        if enforced && !was {
            let bad = self.store.invalid_certificates(now_ms).into_iter();
            actions.extend(bad.map(|(name, server)| Action::Distrust { name, server }));
        }
    }

    /// A flow was allowed under a name to a server that nothing is known of.
    pub(in crate::witness) fn certify(
        &mut self,
        (name, server): (&Name, SocketAddr),
        now: Time,
        synchronised: bool,
        actions: &mut Vec<Action>,
    ) {
        let check = self.check();
        let known = self.store.certificate(name, server, now) != Certificate::Unasked;
        if check == CertificateCheck::Off || known {
            return;
        }
        let later = |ms| now.mono_ms.saturating_add(ms);
        if self.certificates.settings.per_second == 0 {
            self.keep(name, server, Certificate::Asked, later(DATELESS_MS));
            return;
        }
        if !synchronised && !self.certificates.settings.trust_clock {
            // Whether a certificate is in time cannot be told: cached verdicts stand, new ones refuse (DESIGN, section 7).
            let certificate = if check == CertificateCheck::Enforce {
                self.distrust(name, server, actions);
                Certificate::Invalid
            } else {
                Certificate::Asked
            };
            self.keep(name, server, certificate, later(DATELESS_MS));
            return;
        }
        if !self
            .certificates
            .may_look_at(name, server.ip(), now.mono_ms)
        {
            self.certificates.counts.not_asked =
                self.certificates.counts.not_asked.saturating_add(1);
            self.keep(name, server, Certificate::Unseen, later(UNSEEN_MS));
            self.weigh_unseen(name, server, now, actions);
            return;
        }
        if !self.certificates.may_spend(now.mono_ms) {
            self.certificates.counts.not_asked =
                self.certificates.counts.not_asked.saturating_add(1);
            self.keep(name, server, Certificate::Asked, later(SECOND_MS));
            return;
        }
        if self.keep(name, server, Certificate::Asked, later(ANSWER_MS)) {
            self.certificates
                .asked
                .insert((name.clone(), server), now.mono_ms);
            actions.push(Action::Tell(ToWitness::Certify(CertifyV1 {
                name: name.to_string(),
                server,
            })));
        }
    }

    /// The witness has looked. What it was not asked about counts for nothing.
    pub(in crate::witness) fn certified(
        &mut self,
        certified: &CertifiedV1,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let Ok(name) = Name::parse(certified.name.as_bytes()) else {
            return;
        };
        let (key, server) = ((name.clone(), certified.server), certified.server);
        if self.certificates.asked.remove(&key).is_none() {
            return;
        }
        let counts = &mut self.certificates.counts;
        let (count, certificate, lasts_ms) = match certified.verdict {
            CertificateVerdict::Valid => {
                let lasts_ms = u64::from(certified.lasts_s).saturating_mul(SECOND_MS);
                let lasts_ms = lasts_ms.clamp(DATELESS_MS, VALID_MS);
                (&mut counts.valid, Certificate::Valid, lasts_ms)
            }
            CertificateVerdict::Invalid => (&mut counts.invalid, Certificate::Invalid, INVALID_MS),
            CertificateVerdict::Inconclusive => {
                (&mut counts.unseen, Certificate::Unseen, UNSEEN_MS)
            }
        };
        *count = count.saturating_add(1);
        self.keep(
            &name,
            server,
            certificate,
            now.mono_ms.saturating_add(lasts_ms),
        );
        match certified.verdict {
            CertificateVerdict::Valid => {}
            CertificateVerdict::Invalid => {
                if self.certificates.may_say((&name, server), now.mono_ms) {
                    let detail = certified.detail.chars().take(DETAIL_BYTES_MAX).collect();
                    actions.push(Action::BadCertificate {
                        name: name.clone(),
                        server,
                        detail,
                    });
                }
                if self.check() == CertificateCheck::Enforce {
                    self.distrust(&name, server, actions);
                }
            }
            CertificateVerdict::Inconclusive => self.weigh_unseen(&name, server, now, actions),
        }
    }

    /// Gives up what the witness has not answered: the process may be another one by now.
    pub(super) fn sweep_certificates(&mut self, now_ms: u64) {
        self.store.sweep_certificates(now_ms);
        let late = |since_ms: &u64| now_ms.saturating_sub(*since_ms) >= ANSWER_MS;
        let desk = &mut self.certificates;
        let before = desk.asked.len();
        desk.asked.retain(|_, since_ms| !late(since_ms));
        let lost = u64::try_from(before.saturating_sub(desk.asked.len())).unwrap_or(u64::MAX);
        desk.counts.unseen = desk.counts.unseen.saturating_add(lost);
        let recent = |since_ms: u64| now_ms.saturating_sub(since_ms) < HOUR_MS;
        desk.looked_at.retain(|_, (since_ms, _)| recent(*since_ms));
        desk.said.retain(|_, at_ms| recent(*at_ms));
    }

    fn keep(
        &self,
        name: &Name,
        server: SocketAddr,
        certificate: Certificate,
        until_ms: u64,
    ) -> bool {
        self.store
            .set_certificate(name, server, certificate, until_ms)
    }

    /// Nothing was seen: that is no failure for an address of the current answer, and is one for an address that is known
    /// from history only.
    fn weigh_unseen(&self, name: &Name, server: SocketAddr, now: Time, actions: &mut Vec<Action>) {
        let is_enforced = self.check() == CertificateCheck::Enforce;
        if is_enforced && !self.store.is_current(name, server.ip(), now) {
            self.distrust(name, server, actions);
        }
    }

    fn distrust(&self, name: &Name, server: SocketAddr, actions: &mut Vec<Action>) {
        actions.push(Action::Distrust {
            name: name.clone(),
            server,
        });
    }
}

impl CertificateDesk {
    /// Whether an address of a name may be looked at: it was already within this hour, or is among the first few.
    fn may_look_at(&mut self, name: &Name, addr: IpAddr, now_ms: u64) -> bool {
        let full = self.looked_at.len() >= NAMES_MAX && !self.looked_at.contains_key(name);
        if full {
            return false;
        }
        let fresh = || (now_ms, Vec::new());
        let (since_ms, addresses) = self.looked_at.entry(name.clone()).or_insert_with(fresh);
        if now_ms.saturating_sub(*since_ms) >= HOUR_MS {
            (*since_ms, *addresses) = fresh();
        }
        let known = addresses.contains(&addr);
        if !known && addresses.len() < ADDRESSES_PER_NAME_AND_HOUR {
            addresses.push(addr);
            return true;
        }
        known
    }

    /// Whether a bad certificate has a line of its own: once an hour, however often it is seen.
    fn may_say(&mut self, (name, server): (&Name, SocketAddr), now_ms: u64) -> bool {
        let key = (name.clone(), server);
        let recent = |at: &u64| now_ms.saturating_sub(*at) < HOUR_MS;
        if self.said.get(&key).is_some_and(recent) || self.said.len() >= NAMES_MAX {
            return false;
        }
        self.said.insert(key, now_ms);
        true
    }

    fn may_spend(&mut self, now_ms: u64) -> bool {
        let second = now_ms / SECOND_MS;
        if second != self.second {
            (self.second, self.spent) = (second, 0);
        }
        let may = self.spent < self.settings.per_second && self.asked.len() < UNDER_WAY_MAX;
        self.spent = self.spent.saturating_add(u32::from(may));
        may
    }
}

const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600_000;
/// How long a good certificate counts at most, a bad one, and that none was seen.
const VALID_MS: u64 = HOUR_MS;
const INVALID_MS: u64 = 300_000;
const UNSEEN_MS: u64 = 300_000;
/// How long it counts that no certificate can be dated.
const DATELESS_MS: u64 = 60_000;
/// Longer than the witness tries.
const ANSWER_MS: u64 = 15_000;
const ADDRESSES_PER_NAME_AND_HOUR: usize = 4;
const UNDER_WAY_MAX: usize = 256;
const NAMES_MAX: usize = 65_536;

#[cfg(test)]
mod tests;
