//! Sequences of operations on a whole engine: packets of four connections in any class, cut
//! and ordered as the input says, answers, time, policies. Every packet gets exactly one verdict, memory
//! stays within its bounds and returns to nothing.
#![no_main]

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::LazyLock;

use inspect::{Answer, Bindings, Class, Env, Inspector, Known, Limits, Output, Time};
use libfuzzer_sys::fuzz_target;
use policy::inventory::{self, Scope};
use policy::{Name, Snapshot};

/// One after the other in force; each refuses what the other allows.
static POLICIES: LazyLock<[Snapshot; 2]> = LazyLock::new(|| [443, 22].map(policy));

/// TLS is allowed on this port, SSH on 22.
fn policy(port: u16) -> Snapshot {
    let text = format!(
        "[[group]]\nid = \"g\"\n\
        [[group.rule]]\ndescription = \"postern:tls:api.example.com,*.example.org\"\n\
        protocol = \"tcp\"\nports = \"{port}\"\n\
        [[group.rule]]\ndescription = \"postern:ssh:git.example.com\"\n\
        protocol = \"tcp\"\nports = \"22\"\n\
        [[client]]\naddress = \"10.0.0.1\"\ninstance = \"i\"\ngroups = [\"g\"]\n"
    );
    let draft = inventory::read(&text, Scope::Whole, &mut |_| Err("none".to_owned()));
    Snapshot::compile(draft.unwrap(), port.into()).unwrap()
}
static NAMES: LazyLock<[Name; 2]> = LazyLock::new(|| {
    ["api.example.com", "git.example.com"].map(|name| Name::parse(name.as_bytes()).unwrap())
});

struct Directory;

impl Bindings for Directory {
    fn is_bound(&self, name: &Name, addr: IpAddr, _: Time) -> bool {
        NAMES.contains(name) && addr == IpAddr::from([203, 0, 113, 5])
    }
    fn names_of(&self, addr: IpAddr, _: Time, each: &mut dyn FnMut(&Name)) {
        if addr == IpAddr::from([203, 0, 113, 5]) {
            NAMES.iter().for_each(each);
        }
    }
    fn is_global(&self, _: IpAddr) -> bool {
        true
    }
    fn is_known(&self, _: &Name) -> Known {
        Known::Answered
    }
}

struct World {
    inspector: Inspector,
    now: Time,
    held: HashSet<u32>,
    next: u32,
    policy: usize,
}

impl World {
    fn call(&mut self, what: impl FnOnce(&mut Inspector, &Env<'_>)) {
        let env = Env { now: self.now, policy: &POLICIES[self.policy], bindings: &Directory };
        what(&mut self.inspector, &env);
        while let Some(output) = self.inspector.poll_output() {
            if let Output::Verdict { token, .. } = output {
                assert!(self.held.remove(&token), "answered twice");
            }
        }
        assert!(self.inspector.held().0 <= 1 << 20);
    }

    fn packet(&mut self, class: Class, bytes: &[u8]) {
        self.next += 1;
        let token = self.next;
        self.held.insert(token);
        self.call(|inspector, env| inspector.handle_packet(env, token, class, bytes));
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self.call(Inspector::handle_timeout);
    }
}

/// One step: operation, connection, offset, flags, then payload by its length.
fn step(world: &mut World, header: &[u8; 6], payload: &[u8]) {
    let [operation, connection, high, low, flags, _] = *header;
    let class = match operation % 12 {
        0 => Class::Syn,
        1 => Class::StaleSyn,
        2 if operation >= 128 => Class::Admitted,
        2 => Class::SynAck,
        3 | 4 => Class::Original,
        5 => Class::Reply,
        6 => Class::NonTcp,
        7 => Class::Kill,
        8 => {
            let client = std::net::IpAddr::from([10, 0, 0, 1]);
            let answer = [Answer::Resolved, Answer::Failed, Answer::OverBudget, Answer::Spent(client)];
            let answer = answer[usize::from(flags % 4)];
            let sought = inspect::Sought {
                name: NAMES[usize::from(connection % 2)].clone(),
                ipv6: flags & 4 != 0,
            };
            return world.call(|inspector, env| inspector.handle_answer(env, &sought, answer));
        }
        9 => {
            world.policy = usize::from(flags % 2);
            return world.call(Inspector::handle_policy);
        }
        10 => {
            return world.call(|inspector, env| {
                assert!(inspector.handle_backlog(env) <= inspect::REJUDGED_AT_ONCE);
            });
        }
        _ => return world.wait(u64::from(low) * 64),
    };
    let from_client = !matches!(class, Class::SynAck | Class::Admitted | Class::Reply | Class::Kill);
    let at = u32::from(u16::from_be_bytes([high, low])) % 4_096;
    let (flags, at) = match class {
        Class::Syn | Class::StaleSyn => (0x02, 0),
        Class::SynAck => (0x12, 0),
        // A server that refuses says so with a reset.
        Class::Admitted => (if flags & 4 == 0 { 0x12 } else { 0x14 }, 0),
        Class::Original | Class::Reply | Class::NonTcp | Class::Kill => (flags | 0x10, at + 1),
    };
    let seq = u32::MAX.wrapping_add(at);
    world.packet(class, &tcp(from_client, connection % 4, seq, flags, payload));
}

fn tcp(from_client: bool, connection: u8, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let total = (40 + payload.len() as u16).to_be_bytes();
    let mut p = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
    let client = [10, 0, 0, 1];
    let server = [203, 0, 113, if connection == 3 { 9 } else { 5 }];
    let port = if connection == 2 { [0, 22] } else { [1, 187] };
    let ports = ([0x40, connection], port);
    let (src, dst) = if from_client { (client, server) } else { (server, client) };
    let (sport, dport) = if from_client { ports } else { (ports.1, ports.0) };
    for part in [&src[..], &dst, &sport, &dport, &seq.to_be_bytes(), &0u32.to_be_bytes()] {
        p.extend_from_slice(part);
    }
    p.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    p.extend_from_slice(payload);
    p
}

fuzz_target!(|input: &[u8]| {
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let now = Time { mono_ms: 1_000, unix_ms: 1_795_305_600_000 };
    let inspector = Inspector::new(limits);
    let mut world = World { inspector, now, held: HashSet::new(), next: 0, policy: 0 };
    let mut rest = input;
    while let Some((header, tail)) = rest.split_first_chunk::<6>() {
        let (payload, tail) = tail.split_at(usize::from(header[5]).min(tail.len()));
        step(&mut world, header, payload);
        rest = tail;
    }
    for _ in 0..8 {
        world.wait(60_000 * 6);
    }
    assert!(world.held.is_empty(), "left unanswered");
    assert_eq!(world.inspector.undecided(), 0);
    assert_eq!(world.inspector.held(), (0, 0));
});
