//! The immutable policy of one moment, indexed so that deciding costs the same for ten names and
//! for a hundred thousand.

use std::net::IpAddr;

use crate::{Date, Draft, Kind, Name, Preferences, Reason, SeeThru, SynGate, Transport};

mod address;
mod ask;
mod canonical;
mod client;
mod decide;
mod name;
mod opening;
mod port;
mod rule;
mod trie;

pub use ask::Asking;
pub(crate) use canonical::address_text;
pub use canonical::{CLIENTS_MAX, CONTENT_BYTES_MAX, NAMES_MAX, RULES_MAX, RejectedDraft};
pub use client::ClientRef;
pub use opening::{GroupRef, Opening};

use address::AddressIndex;
use client::{ClientTable, PrefixTable};
use name::NameIndex;
use rule::RuleTable;

/// The gid under which the deployment's own see-thru is logged.
const DEPLOYMENT: &str = crate::preferences::SCOPE;

/// A whole policy, compiled. Cheap to share, never changed.
#[derive(Debug)]
pub struct Snapshot {
    generation: u64,
    policy_id: String,
    draft: Draft,
    rules: RuleTable,
    names: NameIndex,
    addresses: AddressIndex,
    clients: ClientTable,
    served: PrefixTable,
}

/// A draft within every limit, in the one order its content has: groups with one gid, and clients with one
/// prefix, have been added up.
#[derive(Debug)]
pub struct CanonicalDraft {
    draft: Draft,
    policy_id: String,
}

/// What makes deciding quick: built from a [`CanonicalDraft`], and of use with that one only.
#[derive(Debug)]
pub struct Index {
    rules: RuleTable,
    names: NameIndex,
    addresses: AddressIndex,
    clients: ClientTable,
    served: PrefixTable,
}

impl CanonicalDraft {
    /// Puts a draft in canonical order and identifies its content.
    ///
    /// # Errors
    ///
    /// When the draft is past a limit. It is refused whole.
    pub fn new(draft: Draft) -> Result<Self, RejectedDraft> {
        let draft = canonical::canonicalise(draft)?;
        let policy_id = canonical::policy_id(&draft)?;
        Ok(Self { draft, policy_id })
    }

    /// The same with its index, which is built while the content is identified.
    ///
    /// # Errors
    ///
    /// As [`CanonicalDraft::new`].
    pub fn with_index(draft: Draft) -> Result<(Self, Index), RejectedDraft> {
        let draft = canonical::canonicalise(draft)?;
        let identify = || canonical::policy_id(&draft);
        let (policy_id, index) = both(&draft, identify, || Index::of(&draft));
        let policy_id = policy_id?;
        Ok((Self { draft, policy_id }, index))
    }

    /// The content.
    pub const fn draft(&self) -> &Draft {
        &self.draft
    }

    /// The identity of the content, as [`Snapshot::policy_id`].
    pub fn policy_id(&self) -> &str {
        &self.policy_id
    }

    /// The longer part of compiling, apart so that the content can be put elsewhere meanwhile.
    pub fn index(&self) -> Index {
        Index::of(&self.draft)
    }
}

impl Index {
    /// Indexes a draft in canonical order, its names and its clients at the same time.
    fn of(draft: &Draft) -> Self {
        let rules = RuleTable::build(draft);
        let index_names = || NameIndex::build(draft);
        let (names, clients) = both(draft, index_names, || ClientTable::build(draft, &rules));
        Self {
            names,
            addresses: AddressIndex::build(draft),
            clients,
            served: PrefixTable::build(draft.served.iter().copied()),
            rules,
        }
    }
}

/// Does two things with a draft, at the same time where it is large enough to be worth a thread.
fn both<A: Send, B>(
    draft: &Draft,
    one: impl Fn() -> A + Sync,
    other: impl FnOnce() -> B,
) -> (A, B) {
    if draft.clients.len().saturating_add(draft.groups.len()) < WORTH_A_THREAD {
        return (one(), other());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("compile".to_owned());
        let thread = thread.spawn_scoped(scope, &one);
        let other = other();
        // Without a thread it is done here.
        let done = thread.ok().and_then(|thread| thread.join().ok());
        (done.unwrap_or_else(&one), other)
    })
}

/// Clients and groups from which on a policy is compiled by several threads.
const WORTH_A_THREAD: usize = 2_000;

impl Snapshot {
    /// Compiles a draft.
    ///
    /// # Errors
    ///
    /// When the draft is past a limit. It is refused whole.
    pub fn compile(draft: Draft, generation: u64) -> Result<Self, RejectedDraft> {
        let (content, index) = CanonicalDraft::with_index(draft)?;
        Ok(Self::new(content, index, generation))
    }

    /// The policy of a draft and of the index built from it.
    pub fn new(content: CanonicalDraft, index: Index, generation: u64) -> Self {
        Self {
            generation,
            policy_id: content.policy_id,
            draft: content.draft,
            rules: index.rules,
            names: index.names,
            addresses: index.addresses,
            clients: index.clients,
            served: index.served,
        }
    }

    /// The number the daemon gave this policy.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The first 16 hexadecimal digits of SHA-256 over the content: equal wherever the policy is.
    pub fn policy_id(&self) -> &str {
        &self.policy_id
    }

    /// What this was compiled from, in canonical order.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// Settings of the whole deployment.
    pub fn preferences(&self) -> &Preferences {
        &self.draft.preferences
    }

    /// Whether an address lies in the served prefixes, and so may be a client.
    pub fn is_served(&self, addr: IpAddr) -> bool {
        self.served.longest_match(addr).is_some()
    }

    /// The client with the longest prefix that holds an address.
    pub fn client(&self, addr: IpAddr) -> Option<ClientRef> {
        self.clients.find(addr)
    }

    /// The instance behind a client; empty for a handle of another snapshot.
    pub fn instance(&self, client: ClientRef) -> &str {
        let client = self.draft.clients.get(client.index());
        client.map_or("", |client| client.instance.as_str())
    }

    /// The gids a client belongs to, in byte order; groups that do not exist included.
    pub fn groups(&self, client: ClientRef) -> &[String] {
        let client = self.draft.clients.get(client.index());
        client.map_or(&[], |client| client.groups.as_slice())
    }

    /// The deployment's own see-thru, if it is in force; also for unknown clients.
    ///
    /// `exerted` is false: that is for the caller to say.
    pub fn deployment_see_thru(&self, date: Date) -> Option<SeeThru<'_>> {
        let days_remaining = date.days_until(self.draft.preferences.see_thru?)?;
        Some(SeeThru {
            gid: DEPLOYMENT,
            days_remaining,
            exerted: false,
        })
    }

    /// Whether a pattern opens this port over TCP for a client.
    pub fn has_pattern(&self, client: ClientRef, port: u16) -> bool {
        self.clients.ports(client).at(port).has_pattern()
    }

    /// What a bare TCP SYN of this client to this port may do.
    pub fn syn_gate(&self, client: ClientRef, port: u16, dst: IpAddr, date: Date) -> SynGate {
        use crate::preferences::{AddressMismatch, DnsFront};
        let class = self.clients.class_of(client);
        let lanes = self.clients.ports(client).at(port);
        let preferences = self.preferences();
        let strict = preferences.address_mismatch == AddressMismatch::Refuse;
        // A DNS front that hands out every address makes a pattern as strict as a name.
        let fronted = preferences.dns_front == DnsFront::Enforce;
        let open = (lanes.has_pattern() && !fronted)
            || (lanes.has_names() && !strict)
            || self.see_thru(client, Transport::Tcp, port, date).is_some()
            || self
                .addresses
                .find(&self.rules, class, Transport::Tcp, port, dst)
                .is_some();
        if open {
            SynGate::Open
        } else if lanes.has_names() {
            SynGate::Exact
        } else if self.clients.ports(client).is_empty() {
            SynGate::Closed(Reason::NoRule)
        } else {
            SynGate::Closed(Reason::PortNotAllowed)
        }
    }

    /// Every exact name that some rule allows, each once, for the DNS witness.
    ///
    /// Names that preferences keep from working (`http` entries while `plaintext_http` refuses
    /// them) are not among them.
    pub fn exact_names(&self) -> impl Iterator<Item = &Name> {
        self.names.exact_names()
    }

    /// Exact names that this client may reach over TCP on a port, at most `max`, each once.
    pub fn reachable_names(
        &self,
        client: ClientRef,
        kind: Option<Kind>,
        port: u16,
        max: usize,
    ) -> Vec<&Name> {
        let class = self.clients.class_of(client);
        name::reachable(&self.draft, &self.rules, class, kind, port, max)
    }

    /// Whether some rule's exact name or pattern covers a name, whoever the client.
    ///
    /// A name for which this is false is never resolved.
    pub fn mentions(&self, name: &Name) -> bool {
        self.names.mentions(name)
    }

    /// Whether some rule's exact name, or the literal end of a pattern, lies below a name, whoever the client. The name
    /// is in lower case, and may be any: `com` is above most.
    ///
    /// That such a name does not exist must be said to no resolver: it may take it to be so of all that lies below
    /// (RFC 8020, section 2).
    pub fn is_above_a_name(&self, name: &str) -> bool {
        self.names.is_above_some(name)
    }

    /// The host keys accepted for an SSH server of this name on this port; any key when empty.
    ///
    /// The same as [`crate::Decision::pins`] of a flow that is allowed by name.
    pub fn host_key_pin(
        &self,
        client: ClientRef,
        name: &Name,
        port: u16,
    ) -> std::borrow::Cow<'_, [crate::HostKeyPin]> {
        let class = self.clients.class_of(client);
        let found = self
            .names
            .find(&self.rules, class, Kind::Ssh, name, Transport::Tcp, port);
        found.by.map_or_else(Default::default, |by| {
            self.names
                .pins(&self.rules, class, by, Transport::Tcp, port)
        })
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
