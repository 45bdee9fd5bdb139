//! The bindings as one policy lets them count.

use std::net::{IpAddr, SocketAddr};

use inspect::{Bindings, Certificate, Known, Time};
use policy::{ClientRef, Name, Snapshot};

use super::BindingStore;

/// Which names belong to which addresses, where what may be bound at all is asked of the policy
/// that judges, not of the one that came into force a moment ago: a verdict is of one generation
/// in every part.
#[derive(Clone, Copy, Debug)]
pub struct Under<'a> {
    /// The bindings.
    pub store: &'a BindingStore,
    /// The policy that judges.
    pub policy: &'a Snapshot,
}

impl Bindings for Under<'_> {
    fn is_bound(&self, name: &Name, addr: IpAddr, now: Time) -> bool {
        self.store.is_bound(name, addr, now)
    }

    fn names_of(&self, addr: IpAddr, now: Time, each: &mut dyn FnMut(&Name)) {
        self.store.names_of(addr, now, each);
    }

    fn is_global(&self, addr: IpAddr) -> bool {
        let scope = self.store.scope.load();
        scope.may_be_bound_under(self.policy, addr)
    }

    fn is_known(&self, name: &Name) -> Known {
        self.store.is_known(name)
    }

    fn opens(
        &self,
        policy: &Snapshot,
        client: ClientRef,
        to: (IpAddr, u16),
        now: Time,
    ) -> Option<bool> {
        self.store.opens(policy, client, to, now)
    }

    fn is_stale(&self, name: &Name, now: Time) -> bool {
        self.store.is_stale(name, now)
    }

    fn varies(&self, name: &Name) -> bool {
        self.store.varies(name)
    }

    fn is_current(&self, name: &Name, addr: IpAddr, now: Time) -> bool {
        self.store.is_current(name, addr, now)
    }

    fn certificate(&self, name: &Name, server: SocketAddr, now: Time) -> Certificate {
        self.store.certificate(name, server, now)
    }
}
