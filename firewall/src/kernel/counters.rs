//! The ruleset's named counters, read over netlink: a scrape must not start a program.

use std::collections::BTreeMap;

use crate::netlink::{
    Message, NLM_F_DUMP, NetlinkError, Reply, Requester, SUBSYSTEM_NFTABLES, message_type,
};
use crate::ruleset::{Counter, TABLE};

/// Packets counted under each name since the ruleset was installed.
///
/// # Errors
/// When the kernel does not answer.
pub(super) fn read() -> Result<BTreeMap<&'static str, u64>, NetlinkError> {
    let mut counters = BTreeMap::new();
    Requester::open()?.exchange(
        |writer, sequence| {
            let kind = message_type(SUBSYSTEM_NFTABLES, GET_OBJECT);
            writer.begin(kind, NLM_F_DUMP, sequence, FAMILY_INET, 0);
            writer.attribute(OBJECT_TABLE, format!("{TABLE}\0").as_bytes());
            writer.attribute_be32(OBJECT_TYPE, TYPE_COUNTER);
            writer.end();
        },
        |message| {
            counters.extend(counter(message));
            Ok(Reply::More)
        },
    )?;
    Ok(counters)
}

fn counter(message: &Message<'_>) -> Option<(&'static str, u64)> {
    let (mut name, mut packets) = (None, None);
    for attribute in message.attributes().filter_map(Result::ok) {
        match attribute.kind {
            OBJECT_NAME => {
                let text = attribute
                    .value
                    .strip_suffix(b"\0")
                    .unwrap_or(attribute.value);
                name = std::str::from_utf8(text).ok().and_then(Counter::from_name);
            }
            OBJECT_DATA => {
                let inner = attribute.nested().filter_map(Result::ok);
                packets = inner
                    .filter(|inner| inner.kind == COUNTER_PACKETS)
                    .find_map(|inner| inner.be64().ok());
            }
            _ => {}
        }
    }
    Some((name?.name(), packets?))
}

/// `NFT_MSG_GETOBJ`.
const GET_OBJECT: u8 = 19;
/// `NFTA_OBJ_TABLE`, `NFTA_OBJ_NAME`, `NFTA_OBJ_TYPE` and `NFTA_OBJ_DATA`.
const OBJECT_TABLE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
/// `NFT_OBJECT_COUNTER`.
const TYPE_COUNTER: u32 = 1;
/// `NFTA_COUNTER_PACKETS`.
const COUNTER_PACKETS: u16 = 2;
/// `NFPROTO_INET`.
const FAMILY_INET: u8 = 1;
