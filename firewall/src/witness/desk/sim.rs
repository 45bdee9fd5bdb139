//! Hours of rotating names in a moment: desk, rotations, bindings, schedule, budget and the address
//! gate of the real inspector, on a simulated clock, with a simulated resolver and network.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use etherparse::PacketBuilder;
use inspect::{Class, Env, Inspector, Limits, Output, Time, Verdict};
use ipc::witness::{SightingV1, SourceV1};
use policy::annotation::ListReference;
use policy::inventory::{Scope as InventoryScope, read};

use super::*;
use crate::bindings::Scope;
use crate::witness::schedule::{Budget, Purpose, Schedule};

mod many;
mod rotating;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PORT: u16 = 443;
/// One way and back to the resolver.
const RTT_MS: u64 = 2;
/// 2026-11-22T00:00:00Z, when the monotonic clock stood at zero.
const EPOCH_MS: u64 = 1_795_305_600_000;
/// When Linux sends a SYN again, and when the client gives up.
const AGAIN_MS: [u64; 3] = [1_000, 3_000, 7_000];
const PATIENCE_MS: u64 = 15_000;

/// What a name resolves to: some of its addresses at random per answer.
struct Zone {
    addresses: Vec<Ipv4Addr>,
    at_a_time: usize,
    ttl_s: u32,
}

/// The firewall, its resolver and one client.
struct World {
    now_ms: u64,
    desk: Desk,
    policy: Arc<Snapshot>,
    inspector: Inspector,
    schedule: Schedule,
    budget: Budget,
    zones: HashMap<String, Zone>,
    arriving: BTreeMap<(u64, u64), Arrival>,
    sent: u64,
    random: u64,
    /// Questions that the resolver has got, and look-ups of each name.
    questions: u64,
    asked: HashMap<String, u64>,
    connections: HashMap<u16, Connection>,
    next_port: u16,
    fates: Fates,
}

struct Arrival {
    answer: AnswerV1,
    refreshes: bool,
}

/// A connection that has no answer yet.
struct Connection {
    name: Name,
    to: Ipv4Addr,
    begun_ms: u64,
    sent: usize,
}

/// How connections fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fates {
    served: u64,
    refused: u64,
    silent: u64,
    slowest_ms: u64,
}

impl Fates {
    fn lost(&self) -> u64 {
        self.refused + self.silent
    }

    /// What was lost since an earlier count, in percent.
    fn lost_since(&self, before: &Self) -> f64 {
        let lost = self.lost() - before.lost();
        let all = lost + self.served - before.served;
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let share = lost as f64 / all.max(1) as f64;
        share * 100.0
    }
}

impl World {
    fn new(zones: HashMap<String, Zone>) -> Self {
        let policy = policy_of(zones.keys());
        let store = Arc::new(BindingStore::new(3_600_000, Scope::default()));
        let settings = Configure {
            upstreams: Vec::new(),
            max_qps: 400,
            ipv6: true,
            anchors: None,
            authorities: String::new(),
        };
        let now_ms = 1_000_000;
        let mut world = Self {
            now_ms,
            desk: Desk::new(settings, store, None),
            policy: Arc::clone(&policy),
            inspector: Inspector::new(Limits::default()),
            schedule: Schedule::default(),
            budget: Budget::new(400, now_ms),
            zones,
            arriving: BTreeMap::new(),
            sent: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            questions: 0,
            asked: HashMap::new(),
            connections: HashMap::new(),
            next_port: 1_024,
            fates: Fates::default(),
        };
        let mut actions = Vec::new();
        world.desk.adopt(policy, now_ms, &mut actions);
        world.perform(actions);
        world
    }

    /// An answer as anybody gets it who asks now.
    fn draw(&mut self, name: &str) -> Vec<Ipv4Addr> {
        let Some(zone) = self.zones.get(name) else {
            return Vec::new();
        };
        let mut left = zone.addresses.clone();
        let mut drawn = Vec::new();
        while drawn.len() < zone.at_a_time && !left.is_empty() {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let bound = u64::try_from(left.len()).unwrap();
            let at = usize::try_from(self.random % bound).unwrap();
            drawn.push(left.swap_remove(at));
        }
        drawn
    }

    /// Runs the clock to a moment, everything happening at its time.
    fn run_until(&mut self, until_ms: u64) {
        while self.now_ms < until_ms {
            let due = [
                Some(self.desk.next_tick_ms()),
                self.schedule.next_due_ms(),
                self.arriving.keys().next().map(|(at_ms, _)| *at_ms),
                self.inspector.poll_timeout(),
                self.connections.values().map(Connection::due_ms).min(),
            ];
            let next_ms = due.into_iter().flatten().min().unwrap_or(until_ms);
            self.now_ms = next_ms.clamp(self.now_ms + 1, until_ms);
            self.step();
        }
    }

    fn step(&mut self) {
        while let Some(arrival) = self.arriving.first_entry() {
            if arrival.key().0 > self.now_ms {
                break;
            }
            let Arrival { answer, refreshes } = arrival.remove();
            if refreshes {
                self.schedule
                    .answered(&answer.name, true, answer.ttl_s, self.now_ms);
            }
            let mut actions = Vec::new();
            self.desk.answered(&answer, self.now_ms, &mut actions);
            self.perform(actions);
        }
        self.ask_due();
        let mut actions = Vec::new();
        self.desk.tick(self.now_ms, &mut actions);
        self.perform(actions);
        self.inspect(|inspector, env| inspector.handle_timeout(env));
        self.send_again();
    }

    /// As the witness does with what is due.
    fn ask_due(&mut self) {
        while let Some(due) = self.schedule.take_due(self.now_ms) {
            let purpose = if due.first {
                Purpose::Priming
            } else {
                Purpose::Refresh
            };
            if !self.budget.take(purpose, 3, self.now_ms) {
                self.schedule.put_off(&due, self.now_ms + 50);
                continue;
            }
            self.resolve(&due.name, 1, 3, (false, true));
        }
    }

    /// Sends `samples` questions for A one after the other, `questions` of all types; the answer
    /// arrives later.
    fn resolve(
        &mut self,
        name: &str,
        samples: u64,
        questions: u64,
        (asked, refreshes): (bool, bool),
    ) {
        self.questions += questions;
        *self.asked.entry(name.to_owned()).or_default() += 1;
        let mut seen: Vec<Ipv4Addr> = Vec::new();
        for _ in 0..samples {
            seen.extend(self.draw(name));
        }
        seen.sort_unstable();
        seen.dedup();
        let ttl_s = self.zones.get(name).map_or(60, |zone| zone.ttl_s);
        let sighting = |addr: Ipv4Addr| SightingV1 {
            address: addr.into(),
            ttl_s,
            hint: false,
            source: 0,
        };
        let source = || SourceV1 {
            upstream: "192.0.2.53:53".to_owned(),
            record_type: "A".to_owned(),
        };
        let answer = AnswerV1 {
            name: name.to_owned(),
            outcome: AnswerOutcome::Resolved,
            addresses: seen.into_iter().map(sighting).collect(),
            ttl_s,
            asked,
            ipv6: false,
            chain: Vec::new(),
            sources: (0..samples).map(|_| source()).collect(),
            more: false,
        };
        self.sent += 1;
        let at = (self.now_ms + RTT_MS * samples, self.sent);
        self.arriving.insert(at, Arrival { answer, refreshes });
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Tell(message) => self.tell(message),
                Action::Answer { sought, answer, .. } => {
                    self.inspect(|inspector, env| inspector.handle_answer(env, &sought, answer));
                }
                Action::Primed { .. }
                | Action::Alarm { .. }
                | Action::Log(_)
                | Action::Unknown(_)
                | Action::BadCertificate { .. }
                | Action::Distrust { .. } => {}
            }
        }
    }

    /// What the witness does when told.
    fn tell(&mut self, message: ToWitness) {
        match message {
            ToWitness::Configure(_)
            | ToWitness::Certify(_)
            | ToWitness::Front(_)
            | ToWitness::Permit(_)
            | ToWitness::Release(_) => {}
            ToWitness::Watch { names } => {
                for name in names {
                    self.schedule.watch(name, self.now_ms);
                }
            }
            ToWitness::Unwatch { names } => {
                names.iter().for_each(|name| self.schedule.unwatch(name));
            }
            ToWitness::Lookup(lookup) => {
                let samples = u64::from(lookup.samples);
                assert!(lookup.ipv4 && !lookup.ipv6 && !lookup.hints, "{lookup:?}");
                let paid = self.budget.take(Purpose::Miss, samples, self.now_ms);
                assert!(paid, "one client never spends the share of misses");
                self.resolve(&lookup.name, samples, samples, (true, false));
            }
            ToWitness::Sample(sample) => {
                let purpose = Purpose::Sample {
                    urgent: sample.urgent,
                };
                let affordable = (0..sample.count)
                    .take_while(|_| self.budget.take(purpose, 1, self.now_ms))
                    .count();
                let affordable = u64::try_from(affordable).unwrap();
                if affordable > 0 && !sample.ipv6 {
                    self.resolve(&sample.name, affordable, affordable, (false, false));
                }
            }
        }
    }

    /// A call into the inspector, and what it wants done.
    fn inspect(&mut self, call: impl FnOnce(&mut Inspector, &Env<'_>)) {
        let store = Arc::clone(&self.desk.store);
        let policy = Arc::clone(&self.policy);
        let now = self.time();
        let env = Env {
            now,
            policy: &policy,
            bindings: store.as_ref(),
        };
        call(&mut self.inspector, &env);
        while let Some(output) = self.inspector.poll_output() {
            match output {
                Output::Verdict {
                    token,
                    verdict: Verdict::Pass,
                } => self.served(u16::try_from(token).unwrap()),
                Output::Reset(reset) => {
                    let waited = self.connections.remove(&reset.dst.port()).is_some();
                    self.fates.refused += u64::from(waited);
                }
                Output::Query(query) => {
                    let mut actions = Vec::new();
                    self.desk.ask(0, &query, self.now_ms, &mut actions);
                    self.perform(actions);
                }
                Output::Verdict { .. }
                | Output::Ending(_)
                | Output::Forget(_)
                | Output::Unanswered(_)
                | Output::UnknownClient(_)
                | Output::Certify { .. }
                | Output::Record(_)
                | Output::Claimed(_)
                | Output::Session(_) => {}
            }
        }
    }

    /// The SYN went out: the server answers, the client's claim is allowed, and the connection is
    /// over.
    fn served(&mut self, port: u16) {
        let Some(connection) = self.connections.remove(&port) else {
            return;
        };
        self.fates.served += 1;
        let took_ms = self.now_ms - connection.begun_ms;
        self.fates.slowest_ms = self.fates.slowest_ms.max(took_ms);
        let addr = IpAddr::V4(connection.to);
        let store = Arc::clone(&self.desk.store);
        assert!(store.is_bound(&connection.name, addr, self.time()));
        if store.note_judged(&connection.name, addr, self.time()) {
            let mut actions = Vec::new();
            self.desk
                .used(&connection.name, addr, self.now_ms, &mut actions);
            self.perform(actions);
        }
        let mut reply = Vec::new();
        PacketBuilder::ipv4(connection.to.octets(), CLIENT.octets(), 64)
            .tcp(PORT, port, 77, 65_000)
            .syn()
            .ack(1)
            .write(&mut reply, &[])
            .unwrap();
        let mut over = Vec::new();
        PacketBuilder::ipv4(CLIENT.octets(), connection.to.octets(), 64)
            .tcp(port, PORT, 1, 65_000)
            .rst()
            .write(&mut over, &[])
            .unwrap();
        // No connection has this token.
        self.inspect(|inspector, env| {
            inspector.handle_packet(env, 0, Class::SynAck, &reply);
            inspector.handle_packet(env, 0, Class::Original, &over);
        });
    }

    /// Dials an address under a name.
    fn dial(&mut self, name: &str, to: Ipv4Addr) -> u16 {
        let port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(1_024);
        let connection = Connection {
            name: Name::parse(name.as_bytes()).unwrap(),
            to,
            begun_ms: self.now_ms,
            sent: 1,
        };
        self.connections.insert(port, connection);
        self.syn(port, to);
        port
    }

    fn syn(&mut self, port: u16, to: Ipv4Addr) {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(CLIENT.octets(), to.octets(), 64)
            .tcp(port, PORT, 0, 65_000)
            .syn()
            .write(&mut packet, &[])
            .unwrap();
        self.inspect(|inspector, env| {
            inspector.handle_packet(env, port.into(), Class::Syn, &packet);
        });
    }

    fn send_again(&mut self) {
        let late: Vec<u16> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.due_ms() <= self.now_ms)
            .map(|(port, _)| *port)
            .collect();
        for port in late {
            let Some(connection) = self.connections.get_mut(&port) else {
                continue;
            };
            if connection.sent > AGAIN_MS.len() {
                self.connections.remove(&port);
                self.fates.silent += 1;
                continue;
            }
            connection.sent += 1;
            let to = connection.to;
            self.syn(port, to);
        }
    }

    fn time(&self) -> Time {
        Time {
            mono_ms: self.now_ms,
            unix_ms: EPOCH_MS + self.now_ms,
        }
    }
}

impl Connection {
    /// When it is sent again or given up.
    fn due_ms(&self) -> u64 {
        let after_ms = AGAIN_MS.get(self.sent - 1).copied();
        self.begun_ms + after_ms.unwrap_or(PATIENCE_MS)
    }
}

fn policy_of(names: impl Iterator<Item = impl AsRef<str>>) -> Arc<Snapshot> {
    let mut text = format!(
        "served = [\"10.0.0.0/8\"]\n[[client]]\naddress = \"{CLIENT}\"\ninstance = \"one\"\n\
         groups = [\"web\"]\n[[group]]\nid = \"web\"\n"
    );
    let names: Vec<String> = names.map(|name| name.as_ref().to_owned()).collect();
    for some in names.chunks(100) {
        text.push_str(&format!(
            "[[group.rule]]\ndescription = \"postern:tls:{}\"\nprotocol = \"tcp\"\nports = \
             \"{PORT}\"\n",
            some.join(",")
        ));
    }
    let mut no_lists = |_: &ListReference| Err("no lists".to_owned());
    let draft = read(&text, InventoryScope::Whole, &mut no_lists).unwrap();
    assert!(draft.faults.is_empty(), "{:?}", draft.faults);
    Arc::new(Snapshot::compile(draft, 1).unwrap())
}
