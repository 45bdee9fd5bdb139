//! Sets: limits per source, and the prefixes clients live in.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::counter::Counter;
use super::statement::{count, drop, field, over_limit};
use super::{Builder, Layout, TABLE};

/// Chain: drops a new flow beyond its source's limit, or goes back.
pub(super) const NEW_FLOWS: &str = "limit_new_flows";
/// Chain: drops a refusal beyond its source's limit, or goes back.
pub(super) const REFUSALS: &str = "limit_refusals";
/// Interval sets of [`Layout::served`].
pub(super) const SERVED_V4: &str = "served4";
pub(super) const SERVED_V6: &str = "served6";

/// Seconds a source's bucket is remembered after its last use.
const FORGET_AFTER: u32 = 60;

pub(super) fn render(builder: &mut Builder, layout: &Layout) {
    let limits = &layout.limits;
    let buckets = [
        (
            NEW_FLOWS,
            Counter::NewFlowLimit,
            limits.new_flows_per_second,
            limits.new_flows_burst,
        ),
        (
            REFUSALS,
            Counter::RefusalLimit,
            limits.refusals_per_second,
            limits.refusals_burst,
        ),
    ];
    for (chain, counter, per_second, burst) in buckets {
        builder.chain(chain);
        // Whole addresses for IPv6 too: a cloud subnet is one /64 with many clients, and the cloud
        // lets none of them use another's address.
        for (family, protocol, kind) in [(4, "ip", "ipv4_addr"), (6, "ip6", "ipv6_addr")] {
            let set = format!("{chain}{family}");
            // nftables adds the flag `dynamic` by itself; its JSON reader of 1.0.6 does not know it.
            let fields = json!({
                "type": kind, "size": limits.sources, "flags": ["timeout"], "timeout": FORGET_AFTER,
            });
            builder.named("set", &set, fields);
            let source = field(protocol, "saddr");
            let over = over_limit(&set, source, per_second, burst);
            builder.rule(chain, "per source", [over, count(counter), drop()]);
        }
    }
    for (set, kind, elements) in [
        (SERVED_V4, "ipv4_addr", elements(&layout.served, true)),
        (SERVED_V6, "ipv6_addr", elements(&layout.served, false)),
    ] {
        // Overlapping prefixes are merged before they get here, so no auto-merge is needed.
        let mut fields = json!({"type": kind, "flags": ["interval"]});
        if let (Some(fields), false) = (fields.as_object_mut(), elements.is_empty()) {
            fields.insert("elem".to_owned(), elements.into());
        }
        builder.named("set", set, fields);
    }
}

/// Commands that replace the elements of two interval sets, of IPv4 and of IPv6 prefixes.
pub(super) fn replace(
    (v4, v6): (&'static str, &'static str),
    prefixes: &[IpNet],
) -> impl Iterator<Item = Value> {
    let set = |name: &str| json!({"family": "inet", "table": TABLE, "name": name});
    let families = [
        (v4, elements(prefixes, true)),
        (v6, elements(prefixes, false)),
    ];
    families.into_iter().flat_map(move |(name, elements)| {
        let flush = json!({"flush": {"set": set(name)}});
        let add = (!elements.is_empty()).then(|| {
            let mut element = set(name);
            if let Some(element) = element.as_object_mut() {
                element.insert("elem".to_owned(), elements.into());
            }
            json!({"add": {"element": element}})
        });
        std::iter::once(flush).chain(add)
    })
}

/// The prefixes of one family, without those that lie inside another.
fn elements(served: &[IpNet], v4: bool) -> Vec<Value> {
    let family: Vec<IpNet> = served
        .iter()
        .copied()
        .filter(|net| net.addr().is_ipv4() == v4)
        .collect();
    IpNet::aggregate(&family).iter().map(element).collect()
}

fn element(net: &IpNet) -> Value {
    let address: IpAddr = net.network();
    if net.prefix_len() == net.max_prefix_len() {
        return json!(address.to_string());
    }
    json!({"prefix": {"addr": address.to_string(), "len": net.prefix_len()}})
}
