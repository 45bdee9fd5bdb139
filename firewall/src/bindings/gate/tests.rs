use std::net::Ipv4Addr;

use inspect::{Bindings, Time};
use policy::annotation::ListReference;
use policy::inventory::{Scope as InventoryScope, read};
use policy::{AppProto, Ask, Name, Transport};
use proptest::prelude::*;

use super::*;
use crate::bindings::{BindingStore, BindingWriter, Scope};

const NAMES: [&str; 4] = ["a.example", "b.example", "c.wild.example", "d.example"];
const CLIENTS: [[u8; 4]; 3] = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]];
const PORTS: [u16; 4] = [22, 443, 8_443, 9_000];

/// Two groups with names, patterns and ports that overlap, and clients in one, both or none.
fn policy(generation: u64) -> Arc<Snapshot> {
    let rule = |ports: &str, text: &str| {
        format!(
            "[[group.rule]]\ndescription = \"postern:{text}\"\nprotocol = \"tcp\"\nports = \"{ports}\"\n"
        )
    };
    // Every other policy swaps what the groups may do: their numbers mean something else.
    let (first, second) = if generation.is_multiple_of(2) {
        ("g1", "g2")
    } else {
        ("g2", "g1")
    };
    let client = |last: u8, groups: &str| {
        format!("[[client]]\naddress = \"10.0.0.{last}\"\ninstance = \"i\"\ngroups = [{groups}]\n")
    };
    let text = [
        format!("[[group]]\nid = \"{first}\"\n"),
        rule("443", "tls:a.example,b.example"),
        rule("22", "ssh:b.example"),
        format!("[[group]]\nid = \"{second}\"\n"),
        rule("8000-9000", "tls:*.wild.example,a.example"),
        client(1, "\"g1\""),
        client(2, "\"g1\", \"g2\""),
        client(3, ""),
    ]
    .concat();
    let mut no_lists = |_: &ListReference| Err("no lists".to_owned());
    let draft = read(&text, InventoryScope::Whole, &mut no_lists).unwrap();
    Arc::new(Snapshot::compile(draft, generation).unwrap())
}

fn name(index: usize) -> Name {
    NAMES[index % NAMES.len()].parse().unwrap()
}

fn address(index: u8) -> IpAddr {
    Ipv4Addr::new(8, 8, 8, index % 3).into()
}

/// What the gate must say: some name bound to the address is allowed to the client there.
fn walk(
    store: &BindingStore,
    policy: &Snapshot,
    client: ClientRef,
    (addr, port): (IpAddr, u16),
    now: Time,
) -> bool {
    let mut open = false;
    store.names_of(addr, now, &mut |name| {
        open |= [AppProto::Tls, AppProto::Ssh].into_iter().any(|proto| {
            let ask = Ask {
                client,
                transport: Transport::Tcp,
                proto,
                name: Some(name),
                bound: true,
                dst: addr,
                port,
                date: now.date(),
            };
            policy.decide(&ask).is_allowed()
        });
    });
    open
}

#[derive(Clone, Debug)]
enum Step {
    Learn(usize, u8, u32),
    Judge(usize, u8),
    Forget(usize),
    Sweep,
    Adopt(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_usize, 0..3_u8, 1..600_u32).prop_map(|(name, addr, ttl)| Step::Learn(name, addr, ttl)),
        1 => (0..4_usize, 0..3_u8).prop_map(|(name, addr)| Step::Judge(name, addr)),
        1 => (0..4_usize).prop_map(Step::Forget),
        1 => Just(Step::Sweep),
        1 => (1..9_u64).prop_map(Step::Adopt),
        3 => (0..2_000_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_gate_says_what_a_walk_over_every_name_says(steps in prop::collection::vec(step(), 1..40)) {
        let store = Arc::new(BindingStore::new(3_600_000, Scope::default()));
        let mut writer = BindingWriter::new(Arc::clone(&store));
        let mut in_force = policy(0);
        writer.adopt(Arc::clone(&in_force));
        let mut now = Time { mono_ms: 200_000_000, unix_ms: 1_800_000_000_000 };
        for step in steps {
            match step {
                Step::Learn(of, addr, ttl) => {
                    writer.learn(&name(of), [(address(addr), ttl)], None, now.mono_ms);
                }
                Step::Judge(of, addr) => {
                    if store.note_judged(&name(of), address(addr), now) {
                        writer.judged(&name(of), address(addr));
                    }
                }
                Step::Forget(of) => writer.forget(&[name(of)]),
                Step::Sweep => writer.sweep(now.mono_ms),
                Step::Adopt(generation) => {
                    in_force = policy(in_force.generation() + generation);
                    let (client, to) = (in_force.client(CLIENTS[0].into()).unwrap(), (address(0), 443));
                    prop_assert_eq!(store.opens(&in_force, client, to, now), None, "not made for it");
                    writer.adopt(Arc::clone(&in_force));
                }
                Step::Wait(ms) => now.mono_ms += ms,
            }
            for (client, port) in CLIENTS.into_iter().flat_map(|of| PORTS.map(|port| (of, port))) {
                let client = in_force.client(client.into()).unwrap();
                for to in (0..3).map(|addr| (address(addr), port)) {
                    let gate = store.opens(&in_force, client, to, now);
                    prop_assert_eq!(gate, Some(walk(&store, &in_force, client, to, now)));
                }
            }
        }
    }
}
