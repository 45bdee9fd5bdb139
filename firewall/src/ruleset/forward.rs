//! The way through: what may never pass, what has to be judged, what was.

use serde_json::{Value, json};

use super::counter::Counter;
use super::statement::{
    Expression, ICMP, ICMPV6, Statement, TCP, UDP, accept, and, any_flag, assign, at_least,
    at_most, below, bits, count, ct, ct_mark, ct_state, differ, drop, equal, field, go_back, goto,
    ipv4, ipv6, jump, masquerade, meta, offload, original, packet_mark, packet_marked, prefix,
    queue, reply, reset, set_of, set_packet_mark, transport, unreachable, within_limit,
};
use super::{Builder, Ipv6Egress, Layout, QueueForm, limit, options};
use crate::marks::{
    ADMITTED, CLASS_KILL, CLASS_MASK, CLASS_NON_TCP, CLASS_ORIGINAL, CLASS_REPLY, CLASS_STALE_SYN,
    CLASS_SYN, CT_KILL, PLAIN, UNQUEUED, VERDICT_JUDGED, VERDICT_MASK, VERDICT_PASS,
    VERDICT_REJECT,
};

/// Where chain `early` stands: the latch looks at SYNs behind it, and the queue comes behind that.
const EARLY_PRIORITY: i32 = -152;

/// The flowtable.
const FLOWTABLE: &str = "judged";

/// A hop limit below this is refused while a flow is undecided: bytes that die on the way would be
/// judged and never read.
const MIN_HOP_LIMIT: u32 = 32;

/// Bytes of the IP headers that may stand here.
const HEADER_V4: u32 = 20;
const HEADER_V6: u32 = 40;

/// Longest ICMP error a client may send (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4).
const MAX_ERROR_V4: u32 = 576;
const MAX_ERROR_V6: u32 = 1_280;
/// Code of "destination unreachable" (RFC 1191, section 4).
const FRAGMENTATION_NEEDED: u8 = 4;
/// Such errors per second, and at once, from all clients together.
const ERRORS_PER_SECOND: u32 = 50;
const ERRORS_BURST: u32 = 50;

/// Chains behind a question that most packets answer with no: every packet walks the base chain, and what it does not
/// have to evaluate is a good part of what a connection costs.
const CHAINS: [&str; 12] = [
    HYGIENE_V4,
    HYGIENE_V6,
    ODD_HEADER_V4,
    ODD_HEADER_V6,
    STRANGERS,
    BARE_SYN,
    RELATED,
    "undecided_tcp",
    HANDSHAKE,
    TO_DAEMON,
    "undecided_other",
    "icmp_errors",
];
const HYGIENE_V4: &str = "hygiene4";
const HYGIENE_V6: &str = "hygiene6";
const ODD_HEADER_V4: &str = "ip_options";
const ODD_HEADER_V6: &str = "extension_headers";
const STRANGERS: &str = "strangers";
const BARE_SYN: &str = "bare_syn";
const RELATED: &str = "related";
const HANDSHAKE: &str = "handshake";
const TO_DAEMON: &str = "to_daemon";

/// Packets per second, and at once, that are queued only to be logged and dropped.
const SAMPLES_PER_SECOND: u32 = 10;
const SAMPLES_BURST: u32 = 10;

pub(super) fn render(builder: &mut Builder, layout: &Layout) {
    builder.base_chain("early", ("filter", "forward", EARLY_PRIORITY), "accept");
    if layout.queue_form == QueueForm::Native {
        builder.base_chain("ask", ("filter", "forward", -150), "accept");
        let statements = [packet_marked(CLASS_MASK), queue(layout.queues)];
        builder.rule("ask", "no bypass, no fanout", statements);
    }
    builder.base_chain("decide", ("filter", "forward", 0), "drop");
    builder.base_chain("translate", ("nat", "postrouting", 100), "accept");
    for chain in CHAINS.into_iter().chain(["refuse"]) {
        builder.chain(chain);
    }
    options::render(builder);
    hygiene(builder, layout);
    incarnations(builder);
    undecided_tcp(builder);
    undecided_other(builder);
    icmp_errors(builder);
    decide(builder, layout);
    refuse(builder);
    translate(builder, layout);
}

fn dropped(
    builder: &mut Builder,
    chain: &str,
    comment: &str,
    counter: Counter,
    mut when: Vec<Statement>,
) {
    when.extend([count(counter), drop()]);
    builder.rule(chain, comment, when);
}

/// Nothing here depends on a flow's state but the first rule.
fn hygiene(builder: &mut Builder, layout: &Layout) {
    builder.rule("early", "marks are ours from here on", [set_packet_mark(0)]);
    let when = vec![ct_state(&["invalid", "untracked"])];
    let why = "without conntrack there is no ct mark and no NAT";
    dropped(builder, "early", why, Counter::Invalid, when);
    builder.rule("early", "addresses and headers", [ipv4(), jump(HYGIENE_V4)]);
    builder.rule("early", "addresses and headers", [ipv6(), jump(HYGIENE_V6)]);
    let options = differ(field("ip", "hdrlength"), 5);
    let why = "source routes and their kin";
    builder.rule(HYGIENE_V4, why, [options, goto(ODD_HEADER_V4)]);
    // Fragments are whole packets by now: conntrack put them together before any rule.
    let chained = equal(field("ip6", "nexthdr"), extension_headers());
    let why = "a chain of headers hides the transport";
    builder.rule(HYGIENE_V6, why, [chained, goto(ODD_HEADER_V6)]);
    for (chain, counter) in [
        (ODD_HEADER_V4, Counter::IpOptions),
        (ODD_HEADER_V6, Counter::ExtensionHeader),
    ] {
        sampled(builder, chain, counter);
        dropped(builder, chain, "the rest", counter, Vec::new());
    }
    // An entry has the addresses of the packet that made it, and that one came by here: two look-ups less for each
    // packet of a flow.
    let mut looked_at = vec![HYGIENE_V4];
    if layout.ipv6_egress != Ipv6Egress::Off {
        looked_at.push(HYGIENE_V6);
    }
    for chain in looked_at {
        let why = "its first packet was looked at";
        builder.rule(chain, why, [ct_state(&["established"]), go_back()]);
    }
    for (chain, protocol, addresses) in [
        (HYGIENE_V4, "ip", special_v4()),
        (HYGIENE_V6, "ip6", special_v6()),
    ] {
        for end in ["saddr", "daddr"] {
            let when = vec![equal(field(protocol, end), set_of(addresses.clone()))];
            let why = "never forwarded";
            dropped(builder, chain, why, Counter::SpecialAddress, when);
        }
    }
    if layout.ipv6_egress == Ipv6Egress::Off {
        builder.rule(HYGIENE_V6, "refused", [jump(limit::REFUSALS)]);
        let refusal = [count(Counter::Ipv6Off), unreachable("admin-prohibited")];
        builder.rule(HYGIENE_V6, "IPv6 is off", refusal);
    }
    builder.rule(
        "early",
        "of no flow yet",
        [ct_state(&["new"]), jump(STRANGERS)],
    );
    strangers(builder, layout);
}

/// Headers that IPv6 puts before the transport's.
fn extension_headers() -> Expression {
    set_of([0, 43, 44, 51, 59, 60, 135, 139, 140].map(Value::from))
}

/// Some of what is dropped for its header goes through the queue, so that there is a line about it.
/// The daemon finds the same header and lets nothing of it pass; without a daemon the last chain drops
/// what carries a class.
fn sampled(builder: &mut Builder, chain: &str, counter: Counter) {
    let statements = [
        original(),
        within_limit(SAMPLES_PER_SECOND, SAMPLES_BURST),
        count(counter),
        set_packet_mark(CLASS_NON_TCP),
        accept(),
    ];
    builder.rule(chain, "a sample for the log", statements);
}

/// From outside towards a client: dropped without an answer, so that a scan learns nothing and
/// nobody is reflected at.
fn strangers(builder: &mut Builder, layout: &Layout) {
    for (protocol, set) in [("ip", limit::SERVED_V4), ("ip6", limit::SERVED_V6)] {
        let when = vec![
            differ(field(protocol, "saddr"), format!("@{set}")),
            equal(field(protocol, "daddr"), format!("@{set}")),
        ];
        let why = "from outside towards a client";
        dropped(builder, STRANGERS, why, Counter::Stranger, when);
    }
    if let Some(uplink) = &layout.uplink {
        let when = vec![equal(meta("iifname"), uplink.as_str())];
        let why = "unannounced from the internet";
        dropped(builder, STRANGERS, why, Counter::Stranger, when);
    }
}

/// A verdict belongs to one connection, not to a 5-tuple.
fn incarnations(builder: &mut Builder) {
    builder.rule(
        "early",
        "first of its connection",
        [handshake(json!("syn")), jump(BARE_SYN)],
    );
    let why = "split handshake";
    dropped(
        builder,
        BARE_SYN,
        why,
        Counter::SplitHandshake,
        vec![reply()],
    );
    let stale = [differ_state_new(), jump(limit::NEW_FLOWS)];
    builder.rule(BARE_SYN, "per source", stale);
    let stale = [
        differ_state_new(),
        set_packet_mark(CLASS_STALE_SYN),
        accept(),
    ];
    let why = "old entry: the daemon deletes it and drops the SYN";
    builder.rule(BARE_SYN, why, stale);
    let kill = [
        ct_mark(CT_KILL, CT_KILL),
        set_packet_mark(CLASS_KILL),
        accept(),
    ];
    builder.rule("early", "being ended: the numbers are wanted", kill);
    let related = [ct_state(&["related"]), jump(RELATED)];
    builder.rule("early", "of another flow", related);
    for protocol in [ICMP, ICMPV6] {
        let errors = [transport(protocol), goto("icmp_errors")];
        builder.rule(RELATED, "errors about a flow are not the flow", errors);
    }
    let judged = [ct_mark(VERDICT_MASK, VERDICT_JUDGED), accept()];
    builder.rule("early", "judged", judged);
    builder.rule(
        "early",
        "undecided",
        [transport(TCP), goto("undecided_tcp")],
    );
    builder.rule("early", "undecided", [goto("undecided_other")]);
}

/// The packet belongs to an entry that was confirmed before.
fn differ_state_new() -> Statement {
    differ(ct("state"), "new")
}

/// The flags that make a handshake, and their values.
fn handshake(value: Value) -> Statement {
    let mask = json!(["fin", "syn", "rst", "ack"]);
    equal(and(field("tcp", "flags"), mask), value)
}

/// Queued under this class.
fn class(class: u32) -> [Statement; 2] {
    [set_packet_mark(class), accept()]
}

fn undecided_tcp(builder: &mut Builder) {
    let chain = "undecided_tcp";
    builder.rule(chain, "plain TCP only", [jump(options::CHAIN)]);
    let flags = || field("tcp", "flags");
    builder.rule(
        chain,
        "opens",
        [any_flag(flags(), &["syn"]), goto(HANDSHAKE)],
    );
    handshakes(builder);
    let ends = any_flag(flags(), &["fin", "rst", "urg"]);
    let why = "may have to wait behind held data";
    builder.rule(chain, why, [ends, goto(TO_DAEMON)]);
    // Evaluation ends here when there is no such byte.
    let payload = at_least(bits("ih", 0, 8), 0);
    let why = "at least one byte of payload";
    builder.rule(chain, why, [payload, goto(TO_DAEMON)]);
    let [mark, end] = class(CLASS_ORIGINAL);
    builder.rule(TO_DAEMON, "to be judged", [original(), mark, end]);
    // A server that refuses a connection does so before the daemon knows of it.
    let [mark, end] = class(CLASS_REPLY | ADMITTED);
    let statements = [
        any_flag(field("tcp", "flags"), &["rst"]),
        reply(),
        ct_mark(ADMITTED, ADMITTED),
        mark,
        end,
    ];
    builder.rule(TO_DAEMON, "of a SYN that only the kernel saw", statements);
    let [mark, end] = class(CLASS_REPLY);
    builder.rule(TO_DAEMON, "to be judged", [reply(), mark, end]);
    bare_acknowledgements(builder, chain);
}

/// Segments with a SYN.
fn handshakes(builder: &mut Builder) {
    let bare_syn = || handshake(json!("syn"));
    builder.rule(
        HANDSHAKE,
        "per source",
        [bare_syn(), jump(limit::NEW_FLOWS)],
    );
    // Evaluation ends here when there is no such byte, and the next rules are for packets without one.
    let [mark, end] = class(CLASS_SYN);
    let payload = at_least(bits("ih", 0, 8), 0);
    builder.rule(
        HANDSHAKE,
        "data before an answer",
        [bare_syn(), payload, mark, end],
    );
    plain_syns(builder);
    let [mark, end] = class(CLASS_SYN);
    let why = "may the address be dialled";
    builder.rule(HANDSHAKE, why, [bare_syn(), mark, end]);
    let both = || handshake(json!(["syn", "ack"]));
    let [mark, end] = class(CLASS_REPLY | ADMITTED);
    let why = "gives both initial numbers, of a SYN that only the kernel saw";
    let admitted = ct_mark(ADMITTED, ADMITTED);
    builder.rule(HANDSHAKE, why, [both(), reply(), admitted, mark, end]);
    let [mark, end] = class(CLASS_REPLY);
    let why = "gives both initial numbers";
    builder.rule(HANDSHAKE, why, [both(), reply(), mark, end]);
    let why = "no handshake of TCP's";
    dropped(builder, HANDSHAKE, why, Counter::HandshakeFlags, Vec::new());
}

/// SYNs in which the daemon would find nothing but two addresses and a port: the latch may let those of a familiar pair
/// through. Everything else about them was looked at here and in the chain of options.
fn plain_syns(builder: &mut Builder) {
    let mask = json!(["fin", "syn", "rst", "psh", "ack", "urg"]);
    for (protocol, hops, header) in [("ip", "ttl", HEADER_V4), ("ip6", "hoplimit", HEADER_V6)] {
        let longest = header.saturating_add(options::LONGEST_HANDSHAKE);
        let [mark, end] = class(CLASS_SYN | PLAIN);
        let statements = [
            packet_mark(PLAIN, PLAIN),
            equal(and(field("tcp", "flags"), mask.clone()), json!("syn")),
            equal(field("tcp", "urgptr"), 0),
            at_least(field(protocol, hops), MIN_HOP_LIMIT),
            at_most(meta("length"), longest),
            mark,
            end,
        ];
        builder.rule(HANDSHAKE, "nothing in it but who and where", statements);
    }
}

/// The one thing that passes unread. Its length is bounded as well: should a packet's payload ever
/// not be found, no more than a header's worth goes with it. With any other options than the plain
/// ones it is read like payload: what was taken out of them was the first of its kind only.
fn bare_acknowledgements(builder: &mut Builder, chain: &str) {
    for (protocol, hops) in [("ip", "ttl"), ("ip6", "hoplimit")] {
        let when = vec![original(), below(field(protocol, hops), MIN_HOP_LIMIT)];
        dropped(
            builder,
            chain,
            "dies on the way",
            Counter::LowHopLimit,
            when,
        );
    }
    let bare = || [ct_state(&["established"]), handshake(json!("ack"))];
    for (family, header) in [(ipv4(), HEADER_V4), (ipv6(), HEADER_V6)] {
        for shape in options::Shape::BOTH {
            let longest = header.saturating_add(shape.header_bytes());
            let mut statements = Vec::from(bare());
            statements.push(family.clone());
            statements.extend(shape.matches());
            statements.extend([
                at_most(meta("length"), longest),
                set_packet_mark(UNQUEUED),
                accept(),
            ]);
            builder.rule(chain, "bare acknowledgement", statements);
        }
    }
    let mut statements = Vec::from(bare());
    statements.push(goto(TO_DAEMON));
    builder.rule(chain, "acknowledgement with options", statements);
}

fn undecided_other(builder: &mut Builder) {
    let chain = "undecided_other";
    for protocol in ["icmp", "icmpv6"] {
        let echo = set_of([json!("echo-request"), json!("echo-reply")]);
        let when = vec![differ(field(protocol, "type"), echo)];
        dropped(builder, chain, "no echo", Counter::Icmp, when);
    }
    builder.rule(
        chain,
        "per source",
        [ct_state(&["new"]), jump(limit::NEW_FLOWS)],
    );
    builder.rule(chain, "judged by its first packet", class(CLASS_NON_TCP));
}

/// Errors about tracked flows. Inbound ones pass, for the flow would hang without them; outbound
/// ones quote bytes of the client's choice and pass only where they are needed.
fn icmp_errors(builder: &mut Builder) {
    let chain = "icmp_errors";
    let v4 = set_of([json!("destination-unreachable"), json!("time-exceeded")]);
    let v6 = ["destination-unreachable", "packet-too-big", "time-exceeded"].map(Value::from);
    for (protocol, types) in [("icmp", v4), ("icmpv6", set_of(v6))] {
        let inbound = equal(field(protocol, "type"), types);
        let statements = [reply(), inbound, set_packet_mark(UNQUEUED), accept()];
        builder.rule(chain, "inbound", statements);
    }
    let too_big_v4 = vec![
        equal(field("icmp", "type"), "destination-unreachable"),
        equal(field("icmp", "code"), FRAGMENTATION_NEEDED),
        at_most(meta("length"), MAX_ERROR_V4),
    ];
    let too_big_v6 = vec![
        equal(field("icmpv6", "type"), "packet-too-big"),
        at_most(meta("length"), MAX_ERROR_V6),
    ];
    for too_big in [too_big_v4, too_big_v6] {
        let mut statements = vec![original(), ct_mark(VERDICT_MASK, VERDICT_JUDGED)];
        statements.extend(too_big);
        statements.extend([
            within_limit(ERRORS_PER_SECOND, ERRORS_BURST),
            set_packet_mark(UNQUEUED),
            accept(),
        ]);
        builder.rule(chain, "outbound, of a judged flow", statements);
    }
    dropped(builder, chain, "any other error", Counter::Icmp, vec![]);
}

/// Accepts positive evidence only.
fn decide(builder: &mut Builder, layout: &Layout) {
    let chain = "decide";
    let when = vec![packet_marked(CLASS_MASK)];
    let why = "should have been queued: a missing queue rule is a stop";
    dropped(builder, chain, why, Counter::NotQueued, when);
    // Sampled for the log: no verdict lets it pass.
    for header in [
        differ(field("ip", "hdrlength"), 5),
        equal(field("ip6", "nexthdr"), extension_headers()),
    ] {
        let when = vec![packet_marked(VERDICT_MASK), header];
        let why = "whatever was said of it";
        dropped(builder, chain, why, Counter::Undecided, when);
    }
    // A verdict given before the flow was ended may still be under way.
    let when = vec![ct_mark(CT_KILL, CT_KILL)];
    dropped(builder, chain, "being ended", Counter::Killed, when);
    if !layout.flowtable.is_empty() {
        let judged = ct_mark(VERDICT_MASK, VERDICT_JUDGED);
        let flows = equal(meta("l4proto"), set_of([TCP, UDP].map(Value::from)));
        let statements = [
            judged,
            ct_state(&["established"]),
            flows,
            offload(FLOWTABLE),
        ];
        builder.rule(chain, "carried by the flowtable from here", statements);
        let fields = json!({"hook": "ingress", "prio": 0, "dev": layout.flowtable});
        builder.named("flowtable", FLOWTABLE, fields);
    }
    builder.rule(
        chain,
        "judged",
        [ct_mark(VERDICT_MASK, VERDICT_JUDGED), accept()],
    );
    let copy = assign(ct("mark"), meta("mark"));
    let statements = [packet_mark(VERDICT_MASK, VERDICT_JUDGED), copy, accept()];
    builder.rule(
        chain,
        "the verdict and its generation stay with the flow",
        statements,
    );
    let statements = [packet_mark(VERDICT_MASK, VERDICT_PASS), accept()];
    builder.rule(chain, "this packet may pass", statements);
    let statements = [packet_mark(VERDICT_MASK, VERDICT_REJECT), goto("refuse")];
    builder.rule(chain, "refused", statements);
    let statements = [packet_mark(UNQUEUED, UNQUEUED), accept()];
    builder.rule(chain, "carries nothing to judge", statements);
    dropped(builder, chain, "no evidence", Counter::Undecided, vec![]);
}

fn refuse(builder: &mut Builder) {
    let chain = "refuse";
    builder.rule(chain, "per source", [jump(limit::REFUSALS)]);
    let refused = || count(Counter::Refused);
    builder.rule(chain, "told", [transport(TCP), refused(), reset()]);
    let statements = [transport(UDP), refused(), unreachable("port-unreachable")];
    builder.rule(chain, "QUIC clients fall back at once", statements);
    builder.rule(chain, "told", [refused(), unreachable("admin-prohibited")]);
}

/// Nothing new is forwarded without a verdict, and nothing of the appliance's own carries one: the
/// first packet of every forwarded flow, and only that, is translated here.
fn translate(builder: &mut Builder, layout: &Layout) {
    let mut families = vec![ipv4()];
    if layout.ipv6_egress == Ipv6Egress::Masquerade {
        families.push(ipv6());
    }
    for family in families {
        let mut statements = vec![family];
        if let Some(uplink) = &layout.uplink {
            statements.push(equal(meta("oifname"), uplink.as_str()));
        }
        statements.extend([packet_marked(VERDICT_MASK), masquerade()]);
        builder.rule("translate", "forwarded", statements);
    }
}

/// IPv4 addresses that are never forwarded, as a source or a destination: "this network", loopback,
/// link-local with the metadata service, multicast, and the broadcast address (RFC 6890).
fn special_v4() -> Vec<Value> {
    vec![
        prefix("0.0.0.0", 8),
        prefix("127.0.0.0", 8),
        prefix("169.254.0.0", 16),
        prefix("224.0.0.0", 4),
        json!("255.255.255.255"),
    ]
}

/// The same for IPv6: unspecified, loopback, mapped, link-local, multicast, and the metadata
/// service's unique-local address on AWS.
fn special_v6() -> Vec<Value> {
    vec![
        prefix("::", 127),
        prefix("::ffff:0.0.0.0", 96),
        json!("fd00:ec2::254"),
        prefix("fe80::", 10),
        prefix("ff00::", 8),
    ]
}
