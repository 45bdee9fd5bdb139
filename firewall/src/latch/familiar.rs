//! Familiar pairs: whose SYNs the kernel lets through by itself.
//!
//! A *familiar pair* is a client with a server's address and port between which a flow was judged in the last
//! [`FAMILIAR_MS`] milliseconds. The daemon would say of its next SYN what it said of that flow's: the address gate is
//! open, and stays so for as long as the pair is familiar (the engine promises that when it judges). So the kernel
//! remembers the answer, in a set that fills from the packet path and that every change of policy empties. A SYN with
//! anything in it but who and where still goes to the daemon, and so does every SYN/ACK: the connection is judged by the
//! policy in force like any other, its SYN has only not waited for it.
//!
//! The sets are in the table that the daemon's socket owns, because they hold the daemon's word: it ends with it, in the
//! moment in which the process does. One that lives and does nothing says nothing either: what made a pair familiar makes
//! the daemon *awake* for [`AWAKE_MS`], and no SYN passes by itself while it is not.

use inspect::FAMILIAR_MS;

use super::expression::{
    Expression, KEY_REGISTER, NETWORK_HEADER, Rule, TRANSPORT_HEADER, accept, is, is_not, jump,
    mark, nfproto, set_ct_mark, set_mark,
};
use super::text;
use crate::marks::{ADMITTED, CLASS_MASK, CLASS_SYN, FAMILIAR, PLAIN, VERDICT_PASS};
use crate::netlink::MessageWriter;

/// Pairs remembered of each family. One more is not remembered, and its SYNs go to the daemon.
const PAIRS_MAX: u32 = 65_536;

/// How long after its last verdict that ended an inspection the daemon counts as awake, in milliseconds. Where there are
/// fewer, every SYN can be asked about.
const AWAKE_MS: u64 = 250;
/// Its set. The one key is the protocol; those that have expired are in it until the kernel comes round to them.
const AWAKE: &str = "awake";
const AWAKE_ID: u32 = 3;
const AWAKE_MAX: u32 = 64;

/// A set to be made.
struct Set {
    name: &'static str,
    id: u32,
    key_type: u32,
    key_bytes: u32,
    size: u32,
    timeout_ms: u64,
}

/// The sets' attributes, beside their table.
pub(super) fn sets() -> impl Iterator<Item = impl Fn(&mut MessageWriter)> {
    let awake = Set {
        name: AWAKE,
        id: AWAKE_ID,
        key_type: TYPE_PROTOCOL,
        key_bytes: 1,
        size: AWAKE_MAX,
        timeout_ms: AWAKE_MS,
    };
    let sets = BOTH.map(|pairs| pairs.to_be_made());
    let write = |set: Set| move |w: &mut MessageWriter| set.write(w);
    sets.into_iter().chain([awake]).map(write)
}

impl Set {
    fn write(&self, writer: &mut MessageWriter) {
        text(writer, 2, self.name);
        writer.attribute_be32(3, SET_TIMEOUT | SET_EVAL);
        writer.attribute_be32(4, self.key_type);
        writer.attribute_be32(5, self.key_bytes);
        writer.nested(9, |w| w.attribute_be32(1, self.size));
        writer.attribute_be32(10, self.id);
        writer.attribute(11, &self.timeout_ms.to_be_bytes());
    }
}

/// The pairs of one family of addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Familiar {
    /// The set's name, and its number within the transaction that makes it.
    pub(super) set: &'static str,
    id: u32,
    nfproto: u8,
    /// Bytes of an address, and where the two are in the header.
    address_bytes: u32,
    offsets: [u32; 2],
    /// What an entry calls its addresses: `NFT_CT_SRC_IP` and `NFT_CT_DST_IP`, or the same of IPv6.
    entry_keys: [u32; 2],
    /// What `nft` calls the key: three data types of six bits.
    key_type: u32,
}

pub(super) const BOTH: [Familiar; 2] = [
    Familiar {
        set: "familiar4",
        id: 1,
        nfproto: 2,
        address_bytes: 4,
        offsets: [12, 16],
        entry_keys: [19, 20],
        key_type: (TYPE_IPV4 << 12) | (TYPE_IPV4 << 6) | TYPE_SERVICE,
    },
    Familiar {
        set: "familiar6",
        id: 2,
        nfproto: 10,
        address_bytes: 16,
        offsets: [8, 24],
        entry_keys: [21, 22],
        key_type: (TYPE_IPV6 << 12) | (TYPE_IPV6 << 6) | TYPE_SERVICE,
    },
];

/// Anything but a plain SYN is none of these rules' business: most packets see no more of them than this.
pub(super) fn passes_by() -> Rule {
    Rule::from([
        is_not(mark(CLASS_MASK | PLAIN), CLASS_SYN | PLAIN),
        accept(),
    ])
}

/// A verdict that says that its pair is familiar goes to the chain where it is learnt.
pub(super) fn told(chain: &'static str) -> Rule {
    Rule::from([is(mark(FAMILIAR), FAMILIAR), jump(chain)])
}

impl Familiar {
    const fn to_be_made(self) -> Set {
        Set {
            name: self.set,
            id: self.id,
            key_type: self.key_type,
            // A register holds four bytes, so that a port takes as many.
            key_bytes: self.address_bytes.saturating_mul(2).saturating_add(4),
            size: PAIRS_MAX,
            timeout_ms: FAMILIAR_MS,
        }
    }

    /// Of a flow that was judged just now: its pair is familiar, and whoever judged it awake.
    pub(super) fn learns(&self) -> Rule {
        let [source, destination] = self.entry_keys;
        Rule::from([
            is(nfproto(), u32::from(self.nfproto)),
            vec![
                // First: evaluation ends where there is no room for another pair.
                Expression::Protocol,
                Expression::Put {
                    set: AWAKE,
                    id: AWAKE_ID,
                    anew: true,
                },
                self.original(0, source),
                self.original(1, destination),
                self.original(2, ENTRY_DESTINATION_PORT),
                Expression::Put {
                    set: self.set,
                    id: self.id,
                    anew: false,
                },
            ],
        ])
    }

    /// A plain SYN of a familiar pair passes like one that the daemon let through.
    pub(super) fn admits(&self) -> Rule {
        let [source, destination] = self.offsets;
        let address = |place, offset| Expression::Header {
            register: self.register(place),
            base: NETWORK_HEADER,
            offset,
            bytes: self.address_bytes,
        };
        Rule::from([
            is(nfproto(), u32::from(self.nfproto)),
            vec![
                address(0, source),
                address(1, destination),
                Expression::Header {
                    register: self.register(2),
                    base: TRANSPORT_HEADER,
                    offset: TCP_DESTINATION_PORT,
                    bytes: 2,
                },
                Expression::Lookup {
                    set: self.set,
                    id: self.id,
                },
                Expression::Protocol,
                Expression::Lookup {
                    set: AWAKE,
                    id: AWAKE_ID,
                },
            ],
            set_ct_mark(ADMITTED),
            set_mark(VERDICT_PASS),
            accept(),
        ])
    }

    const fn original(&self, place: u32, key: u32) -> Expression {
        Expression::Original {
            register: self.register(place),
            key,
        }
    }

    /// The first register of one part of the key: two addresses, then the port.
    const fn register(&self, place: u32) -> u32 {
        KEY_REGISTER.saturating_add(place.saturating_mul(self.address_bytes / 4))
    }
}

/// `NFT_SET_TIMEOUT`, and `NFT_SET_EVAL`: filled from the packet path.
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
/// What `nft` numbers its data types.
const TYPE_PROTOCOL: u32 = 12;
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_SERVICE: u32 = 13;
/// `NFT_CT_PROTO_DST`.
const ENTRY_DESTINATION_PORT: u32 = 12;
/// Where a TCP header has the port that is dialled.
const TCP_DESTINATION_PORT: u32 = 2;
