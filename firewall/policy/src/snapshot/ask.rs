//! Which names a client may have resolved: what the DNS front asks.

use crate::{Date, Name, Reason};

use super::client::ClientRef;
use super::{DEPLOYMENT, Snapshot};

/// What a policy says to a client's question about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking<'s> {
    /// Some rule of the client lists the name, on whatever port; the smallest such gid.
    Named(&'s str),
    /// No rule does, and see-thru is in force for the client on some port; the gid that carries it.
    SeeThru(&'s str),
    /// The client cannot reach the name.
    Refused(Reason),
}

impl Snapshot {
    /// Whether a client may have a name resolved.
    pub fn asks(&self, client: ClientRef, name: &Name, date: Date) -> Asking<'_> {
        let groups = self.groups_of(client);
        let mut first: Option<u32> = None;
        self.names.ranks_of(name, &mut |rank| {
            let group = self.rules.rule(rank).map(|rule| rule.group);
            let own = group.filter(|group| groups.binary_search(group).is_ok());
            if let Some(group) = own {
                first = Some(first.map_or(group, |least| least.min(group)));
            }
        });
        let gid = |group: u32| {
            let group = self.draft.groups.get(usize::try_from(group).ok()?)?;
            Some(group.gid.as_str())
        };
        if let Some(gid) = first.and_then(gid) {
            return Asking::Named(gid);
        }
        let in_force = |group: &&u32| {
            let entries = self.rules.see_thru(**group);
            entries
                .iter()
                .any(|(_, until)| date.days_until(*until).is_some())
        };
        let see_thru = self.clients.see_thru_groups(client).iter().find(in_force);
        if let Some(gid) = see_thru.copied().and_then(gid) {
            return Asking::SeeThru(gid);
        }
        if self.deployment_see_thru(date).is_some() {
            return Asking::SeeThru(DEPLOYMENT);
        }
        Asking::Refused(if self.clients.ports(client).is_empty() {
            Reason::NoRule
        } else {
            Reason::NameNotAllowed
        })
    }
}
