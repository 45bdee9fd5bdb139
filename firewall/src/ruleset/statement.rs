//! Words of nftables' JSON (libnftables-json(5)), as few as the ruleset needs.
//!
//! Written in the form nftables itself prints, so that what is read back equals what was rendered.
//! Raw values, because the schema of crate `nftables` lacks `reset` and per-element limits.

use serde_json::{Value, json};

use super::counter::Counter;

/// One statement of a rule.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement(Value);

impl From<Statement> for Value {
    fn from(statement: Statement) -> Self {
        statement.0
    }
}

/// Protocol numbers. As numbers, because their names depend on the machine's `/etc/protocols`.
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

/// One expression.
pub(super) type Expression = Value;

pub(super) fn meta(key: &str) -> Expression {
    json!({"meta": {"key": key}})
}

pub(super) fn ct(key: &str) -> Expression {
    json!({"ct": {"key": key}})
}

pub(super) fn field(protocol: &str, field: &str) -> Expression {
    json!({"payload": {"protocol": protocol, "field": field}})
}

/// Bits at an offset of the transport header (`th`) or of what follows it (`ih`).
pub(super) fn bits(base: &str, offset: u32, length: u32) -> Expression {
    json!({"payload": {"base": base, "offset": offset, "len": length}})
}

/// A field of a TCP option: evaluation ends there when the option is absent.
pub(super) fn tcp_option(name: &str, field: &str) -> Expression {
    json!({"tcp option": {"name": name, "field": field}})
}

pub(super) fn and(left: Expression, right: impl Into<Value>) -> Expression {
    json!({"&": [left, right.into()]})
}

pub(super) fn set_of(items: impl IntoIterator<Item = Value>) -> Expression {
    json!({"set": items.into_iter().collect::<Vec<_>>()})
}

pub(super) fn prefix(address: &str, length: u8) -> Expression {
    json!({"prefix": {"addr": address, "len": length}})
}

fn matching(operator: &str, left: Expression, right: Value) -> Statement {
    Statement(json!({"match": {"op": operator, "left": left, "right": right}}))
}

pub(super) fn equal(left: Expression, right: impl Into<Value>) -> Statement {
    matching("==", left, right.into())
}

pub(super) fn differ(left: Expression, right: impl Into<Value>) -> Statement {
    matching("!=", left, right.into())
}

pub(super) fn below(left: Expression, right: u32) -> Statement {
    matching("<", left, right.into())
}

pub(super) fn at_least(left: Expression, right: u32) -> Statement {
    matching(">=", left, right.into())
}

pub(super) fn at_most(left: Expression, right: u32) -> Statement {
    matching("<=", left, right.into())
}

/// One of the flags is set.
pub(super) fn any_flag(left: Expression, flags: &[&str]) -> Statement {
    match flags {
        [one] => matching("in", left, json!(one)),
        several => matching("in", left, json!(several)),
    }
}

pub(super) fn ct_state(states: &[&str]) -> Statement {
    any_flag(ct("state"), states)
}

pub(super) fn original() -> Statement {
    equal(ct("direction"), "original")
}

pub(super) fn reply() -> Statement {
    equal(ct("direction"), "reply")
}

pub(super) fn ipv4() -> Statement {
    equal(meta("nfproto"), "ipv4")
}

pub(super) fn ipv6() -> Statement {
    equal(meta("nfproto"), "ipv6")
}

pub(super) fn transport(protocol: u8) -> Statement {
    equal(meta("l4proto"), protocol)
}

/// The bits `mask` of the packet mark equal `value`.
pub(super) fn packet_mark(mask: u32, value: u32) -> Statement {
    equal(and(meta("mark"), mask), value)
}

/// Some bit of `mask` is set in the packet mark.
pub(super) fn packet_marked(mask: u32) -> Statement {
    differ(and(meta("mark"), mask), 0)
}

/// The bits `mask` of the ct mark equal `value`.
pub(super) fn ct_mark(mask: u32, value: u32) -> Statement {
    equal(and(ct("mark"), mask), value)
}

pub(super) fn set_packet_mark(value: u32) -> Statement {
    assign(meta("mark"), value)
}

pub(super) fn assign(key: Expression, value: impl Into<Value>) -> Statement {
    Statement(json!({"mangle": {"key": key, "value": value.into()}}))
}

/// Overwrites a TCP option with no-operations; goes on when it is absent.
pub(super) fn strip_option(kind: u8) -> Statement {
    let option = match kind {
        30 => json!({"name": "mptcp"}),
        34 => json!({"name": "fastopen"}),
        19 => json!({"name": "md5sig"}),
        2 => json!({"name": "maxseg"}),
        3 => json!({"name": "window"}),
        4 => json!({"name": "sack-perm"}),
        5 => json!({"name": "sack"}),
        8 => json!({"name": "timestamp"}),
        other => json!({"base": other, "offset": 0, "len": 0}),
    };
    Statement(json!({"reset": {"tcp option": option}}))
}

pub(super) fn count(counter: Counter) -> Statement {
    Statement(json!({"counter": counter.name()}))
}

/// The key's own token bucket in a dynamic set is empty.
pub(super) fn over_limit(set: &str, key: Expression, per_second: u32, burst: u32) -> Statement {
    Statement(json!({"set": {
        "op": "add", "elem": key, "set": format!("@{set}"),
        "stmt": [{"limit": {"rate": per_second, "burst": burst, "per": "second", "inv": true}}],
    }}))
}

/// The rule's one token bucket has something left.
pub(super) fn within_limit(per_second: u32, burst: u32) -> Statement {
    Statement(json!({"limit": {"rate": per_second, "burst": burst, "per": "second"}}))
}

pub(super) fn jump(chain: &str) -> Statement {
    Statement(json!({"jump": {"target": chain}}))
}

pub(super) fn goto(chain: &str) -> Statement {
    Statement(json!({"goto": {"target": chain}}))
}

pub(super) fn accept() -> Statement {
    Statement(json!({"accept": null}))
}

pub(super) fn drop() -> Statement {
    Statement(json!({"drop": null}))
}

pub(super) fn go_back() -> Statement {
    Statement(json!({"return": null}))
}

pub(super) fn masquerade() -> Statement {
    Statement(json!({"masquerade": null}))
}

/// To a port of this machine, on the address the packet came in by.
pub(super) fn redirect(port: u16) -> Statement {
    Statement(json!({"redirect": {"port": port}}))
}

pub(super) fn queue(queues: u16) -> Statement {
    let number = match queues {
        0 | 1 => json!(0),
        several => json!({"range": [0, several.saturating_sub(1)]}),
    };
    Statement(json!({"queue": {"num": number}}))
}

pub(super) fn offload(flowtable: &str) -> Statement {
    Statement(json!({"flow": {"op": "add", "flowtable": format!("@{flowtable}")}}))
}

pub(super) fn reset() -> Statement {
    Statement(json!({"reject": {"type": "tcp reset"}}))
}

/// ICMP or ICMPv6, whichever fits.
pub(super) fn unreachable(code: &str) -> Statement {
    Statement(json!({"reject": {"type": "icmpx", "expr": code}}))
}
