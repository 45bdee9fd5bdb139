//! The appliance's own traffic: what it answers, and who on it may speak.

use serde_json::{Value, json};

use super::counter::Counter;
use super::statement::{
    Expression, Statement, TCP, UDP, accept, any_flag, count, ct_state, drop, equal, field, meta,
    prefix, set_of, transport,
};
use super::{Builder, Layout, Users, front};

/// Metadata service of both clouds, and of AWS over IPv6.
const METADATA_V4: &str = "169.254.169.254";
const METADATA_V6: &str = "fd00:ec2::254";
const METADATA_PORT: u16 = 80;
const DNS_PORT: u16 = 53;

pub(super) fn render(builder: &mut Builder, layout: &Layout) {
    builder.base_chain("guard_in", ("filter", "input", 0), "drop");
    builder.base_chain("guard_out", ("filter", "output", 0), "drop");
    input(builder, layout);
    output(builder, layout);
}

fn input(builder: &mut Builder, layout: &Layout) {
    let chain = "guard_in";
    builder.rule(chain, "ourselves", [equal(meta("iifname"), "lo"), accept()]);
    builder.rule(chain, "answers to ourselves", answers());
    neighbours(builder, chain);
    if layout.dhcp {
        builder.rule(chain, "DHCP", udp_ports(67, 68));
        builder.rule(chain, "DHCPv6", udp_ports(547, 546));
    }
    let services = [
        ("tcp", &layout.services.tcp_ports),
        ("udp", &layout.services.udp_ports),
    ];
    for (protocol, ports) in services {
        if let Some(ports) = one_or_set(ports) {
            let statements = [equal(field(protocol, "dport"), ports), accept()];
            builder.rule(chain, "services", statements);
        }
    }
    front::input(builder, chain);
    builder.rule(chain, "nothing else", [count(Counter::Input), drop()]);
}

fn output(builder: &mut Builder, layout: &Layout) {
    let chain = "guard_out";
    builder.rule(chain, "ourselves", [equal(meta("oifname"), "lo"), accept()]);
    metadata(builder, &layout.users);
    builder.rule(chain, "answers, and flows of clients", answers());
    neighbours(builder, chain);
    // The kernel's refusals belong to no user, and to no entry when they refuse a flow's first
    // packet.
    for (protocol, types) in [
        (
            "icmp",
            [
                "destination-unreachable",
                "time-exceeded",
                "parameter-problem",
            ],
        ),
        (
            "icmpv6",
            ["destination-unreachable", "packet-too-big", "time-exceeded"],
        ),
    ] {
        let types = set_of(types.map(Value::from));
        let statements = [equal(field(protocol, "type"), types), accept()];
        builder.rule(chain, "refusals", statements);
    }
    // A reset may be about a flow whose first packet is still held: no entry knows it then. A probe
    // is about a flow with an entry, an answer therefore; a SYN without one is the daemon dialling.
    let raw = [
        equal(meta("skuid"), layout.users.daemon),
        any_flag(field("tcp", "flags"), &["rst"]),
        accept(),
    ];
    builder.rule(chain, "resets from raw sockets", raw);
    if layout.dhcp {
        builder.rule(chain, "DHCP", udp_ports(68, 67));
        builder.rule(chain, "DHCPv6", udp_ports(546, 547));
    }
    services(builder, &layout.users);
    builder.rule(chain, "nothing else", [count(Counter::Output), drop()]);
}

/// First of all: an established connection to the metadata service is no reason to go on.
fn metadata(builder: &mut Builder, users: &Users) {
    for (protocol, address) in [("ip", METADATA_V4), ("ip6", METADATA_V6)] {
        let destination = || {
            vec![
                equal(field(protocol, "daddr"), address),
                equal(field("tcp", "dport"), METADATA_PORT),
            ]
        };
        if let Some(users) = one_or_set(&users.metadata) {
            let mut statements = destination();
            statements.extend([equal(meta("skuid"), users), accept()]);
            builder.rule("guard_out", "who may", statements);
        }
        let mut statements = destination();
        statements.extend([count(Counter::Metadata), drop()]);
        builder.rule("guard_out", "metadata service", statements);
    }
}

fn services(builder: &mut Builder, users: &Users) {
    let chain = "guard_out";
    for protocol in ["udp", "tcp"] {
        let dns = || equal(field(protocol, "dport"), DNS_PORT);
        if let Some(users) = one_or_set(&users.resolving) {
            let statements = [dns(), equal(meta("skuid"), users), accept()];
            builder.rule(chain, "who may resolve", statements);
        }
        let statements = [dns(), count(Counter::Output), drop()];
        builder.rule(chain, "DNS", statements);
    }
    if let Some(users) = one_or_set(&users.resolving) {
        let statements = [equal(meta("skuid"), users), transport(TCP), accept()];
        builder.rule(chain, "witnesses", statements);
    }
    if let Some(users) = one_or_set(&users.connecting) {
        let flows = equal(meta("l4proto"), set_of([TCP, UDP].map(Value::from)));
        let statements = [equal(meta("skuid"), users), flows, accept()];
        builder.rule(chain, "services", statements);
    }
}

fn answers() -> [Statement; 2] {
    [ct_state(&["established", "related"]), accept()]
}

/// Neighbour discovery and router advertisements; a router on the way would have lowered the hop
/// limit (RFC 4861, section 6.1).
fn neighbours(builder: &mut Builder, chain: &str) {
    let types = [
        "nd-router-solicit",
        "nd-router-advert",
        "nd-neighbor-solicit",
        "nd-neighbor-advert",
    ];
    let statements = [
        equal(field("icmpv6", "type"), set_of(types.map(Value::from))),
        equal(field("ip6", "hoplimit"), 255),
        accept(),
    ];
    builder.rule(chain, "neighbour discovery", statements);
    if chain == "guard_out" {
        // Without reports a switch that snoops does not deliver neighbour solicitations.
        let report = set_of([json!("mld-listener-report"), json!("mld2-listener-report")]);
        let statements = [
            equal(field("ip6", "daddr"), prefix("ff02::", 16)),
            equal(field("icmpv6", "type"), report),
            accept(),
        ];
        builder.rule(chain, "multicast reports", statements);
    }
}

fn udp_ports(source: u16, destination: u16) -> [Statement; 3] {
    [
        equal(field("udp", "sport"), source),
        equal(field("udp", "dport"), destination),
        accept(),
    ]
}

/// The right-hand side for a list: nothing, the one element, or a set.
fn one_or_set<T: Copy + Ord + Into<Value>>(items: &[T]) -> Option<Expression> {
    let mut items = items.to_vec();
    items.sort_unstable();
    items.dedup();
    match items.as_slice() {
        [] => None,
        [one] => Some((*one).into()),
        several => Some(set_of(several.iter().map(|item| (*item).into()))),
    }
}
