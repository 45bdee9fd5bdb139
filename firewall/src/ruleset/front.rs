//! Questions to the DNS front: from port 53 of any of our addresses to where the witness listens.
//!
//! Led there by translation, so that the witness needs no right to listen on a port below 1024, whatever else the machine
//! has on port 53 stays where it is, and an answer comes from the address that was asked. Static: who may ask is in two
//! sets, empty while the front is off.

use serde_json::{Value, json};

use super::Builder;
use super::limit::NEW_FLOWS;
use super::statement::{
    Expression, Statement, TCP, UDP, accept, any_flag, ct, ct_state, equal, field, jump, meta,
    redirect, set_of,
};

/// Where the witness listens.
pub const PORT: u16 = 1_053;
const DNS_PORT: u16 = 53;
/// Interval sets of who may ask: the prefixes clients live in, and cloud resolvers.
pub(super) const ASKERS_V4: &str = "askers4";
pub(super) const ASKERS_V6: &str = "askers6";

pub(super) fn render(builder: &mut Builder) {
    for (set, kind) in [(ASKERS_V4, "ipv4_addr"), (ASKERS_V6, "ipv6_addr")] {
        builder.named("set", set, json!({"type": kind, "flags": ["interval"]}));
    }
    builder.base_chain("front", ("nat", "prerouting", -100), "accept");
    for (protocol, set) in [("ip", ASKERS_V4), ("ip6", ASKERS_V6)] {
        let mut statements = to_port(DNS_PORT).to_vec();
        statements.extend([
            equal(field(protocol, "saddr"), format!("@{set}")),
            equal(
                json!({"fib": {"result": "type", "flags": ["daddr"]}}),
                "local",
            ),
            redirect(PORT),
        ]);
        builder.rule("front", "questions", statements);
    }
}

/// Lets in what was led here, and nothing that was sent to the witness's port as such.
pub(super) fn input(builder: &mut Builder, chain: &str) {
    let mut beyond = led().to_vec();
    beyond.extend([ct_state(&["new"]), jump(NEW_FLOWS)]);
    builder.rule(chain, "questions to the DNS front", beyond);
    let mut statements = led().to_vec();
    statements.push(accept());
    builder.rule(chain, "DNS front", statements);
}

fn led() -> [Statement; 3] {
    let [protocol, port] = to_port(PORT);
    [protocol, port, any_flag(ct("status"), &["dnat"])]
}

fn to_port(port: u16) -> [Statement; 2] {
    let protocols: Expression = set_of([TCP, UDP].map(Value::from));
    [
        equal(meta("l4proto"), protocols),
        equal(field("th", "dport"), port),
    ]
}
