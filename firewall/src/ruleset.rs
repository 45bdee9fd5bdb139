//! The one ruleset: small, static, rendered from a [`Layout`] without touching anything.
//!
//! It holds no policy. It sorts out what may never pass, marks what has to be judged, keeps what
//! was not judged from leaving, and carries what was. The order of its chains on the way through:
//!
//! | chain | hook, priority | does |
//! |---|---|---|
//! | `front` | prerouting, −100 | leads questions to the DNS front |
//! | `early` | forward, −152 | hygiene, class marks |
//! | `familiar` of the [latch](crate::latch) | forward, −151 | lets plain SYNs of familiar pairs through |
//! | `ask` | forward, −150 | queues what has a class (in the shim form `iptables` does) |
//! | `decide` | forward, 0 | accepts positive evidence, drops everything else |
//! | `translate` | postrouting, 100 | masquerades what carries a verdict |
//! | `guard_in`, `guard_out` | input and output, 0 | the appliance's own traffic |
//!
//! Base chains are made once: deleting any base chain of a network namespace makes the kernel drop
//! every packet waiting in its queues.

mod counter;
mod forward;
mod front;
mod host;
mod limit;
mod normal;
mod options;
mod shim;
mod statement;

use ipnet::IpNet;
use serde_json::{Value, json};

pub use counter::Counter;
pub use front::PORT as FRONT_PORT;
pub use shim::{Shim, ShimCommand};

/// The table everything is in, of family `inet`.
pub const TABLE: &str = "postern";

/// How packets get from the ruleset to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueForm {
    /// The `queue` statement of nftables (`CONFIG_NFT_QUEUE`), in every distribution's kernel.
    Native,
    /// One `NFQUEUE` rule each of `iptables-nft` and `ip6tables-nft`, for kernels built without it.
    IptablesShim,
}

/// What happens to IPv6 on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ipv6Egress {
    /// Source-translated like IPv4.
    #[default]
    Masquerade,
    /// Forwarded with the client's address, for networks whose return path is proved.
    Route,
    /// Refused.
    Off,
}

/// Limits the kernel keeps per source address, in front of the queue and of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// New flows per second and source; more are dropped silently, so that the client retransmits.
    pub new_flows_per_second: u32,
    /// New flows a source may open at once on top.
    pub new_flows_burst: u32,
    /// Refusals per second and source that are answered; more are dropped silently.
    pub refusals_per_second: u32,
    /// Refusals answered at once on top.
    pub refusals_burst: u32,
    /// Sources a limit remembers. A source beyond that is not limited here, only in the daemon.
    pub sources: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            new_flows_per_second: 1_000,
            new_flows_burst: 2_000,
            refusals_per_second: 100,
            refusals_burst: 200,
            sources: 65_535,
        }
    }
}

/// What the appliance itself answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Services {
    /// TCP ports open to everyone: the health check's.
    pub tcp_ports: Vec<u16>,
    /// UDP ports open to everyone: 6081 with GENEVE.
    pub udp_ports: Vec<u16>,
}

/// Who on the appliance may send what. Numeric user ids; in a namespace without these users all may
/// be the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Users {
    /// The daemon: resets, and probes of flows that have an entry, from its raw sockets; nothing else.
    pub daemon: u32,
    /// May send DNS and open TCP connections: the witness, and whoever else must resolve.
    pub resolving: Vec<u32>,
    /// May open TCP and UDP connections: the sidecar, the clock.
    pub connecting: Vec<u32>,
    /// May reach the cloud's metadata service.
    pub metadata: Vec<u32>,
}

/// Everything the ruleset depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// How packets are queued.
    pub queue_form: QueueForm,
    /// Queues, numbered from zero; 1 to 64.
    pub queues: u16,
    /// IPv6 on its way out.
    pub ipv6_egress: Ipv6Egress,
    /// The interface towards the internet, when clients come by others only. `None` where one
    /// interface serves both sides.
    pub uplink: Option<String>,
    /// Interfaces between which the flowtable carries judged flows; empty: no flowtable.
    pub flowtable: Vec<String>,
    /// Prefixes clients live in: what is new from outside them towards them is a stranger.
    pub served: Vec<IpNet>,
    /// Limits per source.
    pub limits: Limits,
    /// What the appliance answers.
    pub services: Services,
    /// Who on the appliance may send.
    pub users: Users,
    /// Whether interfaces are configured by DHCP.
    pub dhcp: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            queue_form: QueueForm::Native,
            queues: 1,
            ipv6_egress: Ipv6Egress::Masquerade,
            uplink: None,
            flowtable: Vec::new(),
            served: Vec::new(),
            limits: Limits::default(),
            services: Services {
                tcp_ports: vec![1042],
                udp_ports: Vec::new(),
            },
            users: Users::default(),
            dhcp: true,
        }
    }
}

/// A rendered ruleset: nftables objects in the order they are made, without any command.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruleset {
    /// As text: the trees of all of them take two megabytes.
    objects: Vec<String>,
    shim: Option<Shim>,
}

impl Ruleset {
    /// Renders the ruleset of a layout.
    #[must_use]
    pub fn render(layout: &Layout) -> Self {
        let mut builder = Builder::default();
        builder.object("table", json!({"family": "inet", "name": TABLE}));
        for counter in Counter::ALL {
            builder.named("counter", counter.name(), json!({}));
        }
        limit::render(&mut builder, layout);
        front::render(&mut builder);
        forward::render(&mut builder, layout);
        host::render(&mut builder, layout);
        let shim = match layout.queue_form {
            QueueForm::Native => None,
            QueueForm::IptablesShim => Some(Shim::new(layout.queues)),
        };
        Self {
            objects: builder.finish(),
            shim,
        }
    }

    /// The objects, in nftables' JSON.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.objects.iter().map(String::as_str)
    }

    /// The `iptables` half, in the shim form.
    #[must_use]
    pub const fn shim(&self) -> Option<&Shim> {
        self.shim.as_ref()
    }

    /// One transaction that makes the table, in place of one of that name when `replacing`.
    ///
    /// Replacing empties every queue of the namespace: for a start only. Whether there is something
    /// to replace has to be known, because nftables' JSON reader takes no "delete" of a table that
    /// the same transaction made.
    #[must_use]
    pub fn install(&self, replacing: bool) -> String {
        let table = json!({"delete": {"table": {"family": "inet", "name": TABLE}}});
        let delete = replacing.then(|| table.to_string());
        batch(delete.into_iter().chain(self.objects().map(add)))
    }

    /// Compares with a terse listing of the table (`nft -j -t list table`). Handles, counts and set elements say
    /// nothing; rules have to be the same in the same order.
    ///
    /// # Errors
    /// When the listing is no JSON.
    pub fn differences(&self, listing: &str) -> Result<Vec<Difference>, serde_json::Error> {
        let wanted = normal::rendered(&self.objects)?;
        let found = normal::listing(listing)?;
        if wanted == found {
            return Ok(Vec::new());
        }
        let missing = wanted.iter().filter(|object| !found.contains(object));
        let foreign = found.iter().filter(|object| !wanted.contains(object));
        let mut differences: Vec<Difference> = missing
            .map(|object| Difference::Missing(object.clone()))
            .chain(foreign.map(|object| Difference::Foreign(object.clone())))
            .collect();
        if differences.is_empty() {
            // The same objects, in another order or another number.
            let displaced = wanted
                .iter()
                .zip(&found)
                .find(|(wanted, found)| wanted != found);
            let place = displaced.map_or("a rule", |(wanted, _)| wanted);
            differences.push(Difference::Missing(format!("in its place, {place}")));
        }
        Ok(differences)
    }

    /// One transaction that renews every rule and leaves base chains, and so the queues, alone.
    /// Does not repair a changed base chain: that takes [`Ruleset::install`].
    #[must_use]
    pub fn repair(&self) -> String {
        let of = |kind: &'static str| {
            let begins = format!("{{\"{kind}\":");
            self.objects().filter(move |o| o.starts_with(&begins))
        };
        let flush = of("chain").filter_map(|chain| {
            let chain: Value = serde_json::from_str(chain).ok()?;
            let name = chain.get("chain")?.get("name")?.clone();
            let chain = json!({"family": "inet", "table": TABLE, "name": name});
            Some(json!({"flush": {"chain": chain}}).to_string())
        });
        // Sets stay with what is in them: adding one that grew by a rule is refused.
        let kept = ["table", "counter", "chain"].into_iter().flat_map(of);
        batch(kept.map(add).chain(flush).chain(of("rule").map(add)))
    }
}

/// A difference between what was rendered and what the kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Rendered and not there, or not there in this place.
    Missing(String),
    /// There and not rendered.
    Foreign(String),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(object) => write!(f, "missing: {object}"),
            Self::Foreign(object) => write!(f, "foreign: {object}"),
        }
    }
}

/// One transaction that makes `served` the prefixes clients live in.
#[must_use]
pub fn replace_served(served: &[IpNet]) -> String {
    let sets = (limit::SERVED_V4, limit::SERVED_V6);
    batch(limit::replace(sets, served).map(|command| command.to_string()))
}

/// One transaction that makes `askers` the prefixes that may ask the DNS front; none turns it off.
#[must_use]
pub fn replace_askers(askers: &[IpNet]) -> String {
    let sets = (front::ASKERS_V4, front::ASKERS_V6);
    batch(limit::replace(sets, askers).map(|command| command.to_string()))
}

fn add(object: &str) -> String {
    format!("{{\"add\":{object}}}")
}

/// One transaction of these commands.
fn batch(commands: impl Iterator<Item = String>) -> String {
    let commands: Vec<String> = commands.collect();
    format!("{{\"nftables\":[{}]}}", commands.join(","))
}

/// Collects objects in the order nftables wants them: chains before the rules that jump to them.
#[derive(Debug, Default)]
struct Builder {
    objects: Vec<String>,
    rules: Vec<String>,
}

impl Builder {
    fn object(&mut self, kind: &str, object: Value) {
        self.objects.push(json!({kind: object}).to_string());
    }

    /// Adds an object of our table.
    fn named(&mut self, kind: &str, name: &str, fields: Value) {
        let mut object = json!({"family": "inet", "table": TABLE, "name": name});
        if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
            object.extend(fields);
        }
        self.object(kind, object);
    }

    /// Adds a base chain.
    fn base_chain(&mut self, name: &str, (kind, hook, priority): (&str, &str, i32), policy: &str) {
        let fields = json!({"type": kind, "hook": hook, "prio": priority, "policy": policy});
        self.named("chain", name, fields);
    }

    /// Adds a chain that is jumped to.
    fn chain(&mut self, name: &str) {
        self.named("chain", name, json!({}));
    }

    /// Adds a rule. The comment says what for, in the listing as well.
    fn rule(
        &mut self,
        chain: &str,
        comment: &str,
        statements: impl IntoIterator<Item = statement::Statement>,
    ) {
        let statements: Vec<Value> = statements.into_iter().map(Value::from).collect();
        let rule = json!({"rule": {
            "family": "inet", "table": TABLE, "chain": chain,
            "comment": comment, "expr": statements,
        }});
        self.rules.push(rule.to_string());
    }

    fn finish(self) -> Vec<String> {
        let mut objects = self.objects;
        objects.extend(self.rules);
        objects
    }
}

#[cfg(test)]
mod tests;
