//! The few nftables expressions that the latch needs, as the kernel takes them (`linux/netfilter/nf_tables.h`).
//!
//! Single values go through the first register; a key of several goes through the small ones from the first on, each
//! value in as many of four bytes as it needs.

use crate::netlink::MessageWriter;

/// Statements of one rule, in order.
pub(super) struct Rule(Vec<Expression>);

impl<const N: usize> From<[Vec<Expression>; N]> for Rule {
    fn from(statements: [Vec<Expression>; N]) -> Self {
        Self(statements.into_iter().flatten().collect())
    }
}

impl Rule {
    /// Writes the list of expressions.
    pub(super) fn write(&self, writer: &mut MessageWriter) {
        for expression in &self.0 {
            writer.nested(LIST_ELEMENT, |w| expression.write(w));
        }
    }
}

/// One expression.
pub(super) enum Expression {
    Meta(u32),
    Ct(u32),
    /// Offset of one byte in the transport header.
    Transport(u32),
    /// Some bytes of a header into a register of a key.
    Header {
        register: u32,
        base: u32,
        offset: u32,
        bytes: u32,
    },
    /// What the first packet of the entry had, into a register of a key.
    Original {
        register: u32,
        key: u32,
    },
    /// Goes on when the key is in a set.
    Lookup {
        set: &'static str,
        id: u32,
    },
    /// Puts the key into a set, if it fits. What is there keeps its time, unless that is to begin anew.
    Put {
        set: &'static str,
        id: u32,
        anew: bool,
    },
    /// The transport protocol as a key.
    Protocol,
    /// A constant.
    Immediate(u32),
    /// Sets the packet mark to what was loaded.
    StoreMark,
    /// Sets the ct mark to what was loaded.
    StoreCtMark,
    Mask(Vec<u8>),
    Compare {
        equal: bool,
        value: Vec<u8>,
    },
    Accept,
    /// To a chain, and back.
    Jump(&'static str),
}

/// What is loaded, and how many bytes of it.
pub(super) struct Loaded {
    load: Vec<Expression>,
    bytes: usize,
}

/// The packet mark's bits of a mask.
pub(super) fn mark(mask: u32) -> Loaded {
    Loaded {
        load: vec![
            Expression::Meta(META_MARK),
            Expression::Mask(mask.to_ne_bytes().to_vec()),
        ],
        bytes: 4,
    }
}

/// The ct mark's bits of a mask; nothing follows where there is no entry.
pub(super) fn ct_mark(mask: u32) -> Loaded {
    entry(CT_MARK, mask)
}

/// The state's bits of a mask.
pub(super) fn ct_state(mask: u32) -> Loaded {
    entry(CT_STATE, mask)
}

fn entry(key: u32, mask: u32) -> Loaded {
    Loaded {
        load: vec![
            Expression::Ct(key),
            Expression::Mask(mask.to_ne_bytes().to_vec()),
        ],
        bytes: 4,
    }
}

/// The transport protocol.
pub(super) fn l4proto() -> Loaded {
    Loaded {
        load: vec![Expression::Meta(META_L4PROTO)],
        bytes: 1,
    }
}

/// The flags of a TCP header under a mask.
pub(super) fn tcp_flags(mask: u8) -> Loaded {
    Loaded {
        load: vec![
            Expression::Transport(TCP_FLAGS_OFFSET),
            Expression::Mask(vec![mask]),
        ],
        bytes: 1,
    }
}

/// The family of a packet.
pub(super) fn nfproto() -> Loaded {
    Loaded {
        load: vec![Expression::Meta(META_NFPROTO)],
        bytes: 1,
    }
}

/// Goes on when the value is this one.
pub(super) fn is(loaded: Loaded, value: u32) -> Vec<Expression> {
    compare(loaded, true, value)
}

/// Goes on when the value is another one.
pub(super) fn is_not(loaded: Loaded, value: u32) -> Vec<Expression> {
    compare(loaded, false, value)
}

fn compare(loaded: Loaded, equal: bool, value: u32) -> Vec<Expression> {
    let [low, ..] = value.to_le_bytes();
    let value = match loaded.bytes {
        1 => vec![low],
        _ => value.to_ne_bytes().to_vec(),
    };
    let mut expressions = loaded.load;
    expressions.push(Expression::Compare { equal, value });
    expressions
}

/// Sets the packet mark.
pub(super) fn set_mark(value: u32) -> Vec<Expression> {
    vec![Expression::Immediate(value), Expression::StoreMark]
}

/// Sets the ct mark.
pub(super) fn set_ct_mark(value: u32) -> Vec<Expression> {
    vec![Expression::Immediate(value), Expression::StoreCtMark]
}

/// Lets the packet through.
pub(super) fn accept() -> Vec<Expression> {
    vec![Expression::Accept]
}

/// Goes through a chain and comes back.
pub(super) fn jump(chain: &'static str) -> Vec<Expression> {
    vec![Expression::Jump(chain)]
}

impl Expression {
    fn write(&self, writer: &mut MessageWriter) {
        match self {
            Self::Meta(key) => load(writer, "meta", REGISTER, *key),
            Self::Ct(key) => load(writer, "ct", REGISTER, *key),
            Self::Transport(offset) => {
                payload(writer, REGISTER, TRANSPORT_HEADER, *offset, 1);
            }
            Self::Header {
                register,
                base,
                offset,
                bytes,
            } => payload(writer, *register, *base, *offset, *bytes),
            Self::Original { register, key } => element(writer, "ct", |w| {
                w.attribute_be32(1, *register);
                w.attribute_be32(2, *key);
                w.attribute(3, &[DIRECTION_ORIGINAL]);
            }),
            Self::Lookup { set, id } => element(writer, "lookup", |w| {
                super::text(w, 1, set);
                w.attribute_be32(2, KEY_REGISTER);
                w.attribute_be32(4, *id);
            }),
            Self::Put { set, id, anew } => element(writer, "dynset", |w| {
                super::text(w, 1, set);
                w.attribute_be32(2, *id);
                w.attribute_be32(3, if *anew { DYNSET_UPDATE } else { DYNSET_ADD });
                w.attribute_be32(4, KEY_REGISTER);
            }),
            Self::Protocol => load(writer, "meta", KEY_REGISTER, META_L4PROTO),
            Self::Immediate(value) => element(writer, "immediate", |w| {
                w.attribute_be32(1, REGISTER);
                w.nested(2, |w| w.attribute(DATA_VALUE, &value.to_ne_bytes()));
            }),
            Self::StoreMark => element(writer, "meta", |w| {
                w.attribute_be32(2, META_MARK);
                w.attribute_be32(3, REGISTER);
            }),
            Self::StoreCtMark => element(writer, "ct", |w| {
                w.attribute_be32(2, CT_MARK);
                w.attribute_be32(4, REGISTER);
            }),
            Self::Mask(mask) => masked(writer, mask),
            Self::Compare { equal, value } => element(writer, "cmp", |w| {
                w.attribute_be32(1, REGISTER);
                w.attribute_be32(2, u32::from(!equal));
                w.nested(3, |w| w.attribute(DATA_VALUE, value));
            }),
            Self::Accept => verdict(writer, VERDICT_ACCEPT, None),
            Self::Jump(chain) => verdict(writer, VERDICT_JUMP, Some(chain)),
        }
    }
}

/// Of a packet or its entry.
fn load(writer: &mut MessageWriter, what: &str, register: u32, key: u32) {
    element(writer, what, |w| {
        w.attribute_be32(1, register);
        w.attribute_be32(2, key);
    });
}

fn payload(writer: &mut MessageWriter, register: u32, base: u32, offset: u32, bytes: u32) {
    element(writer, "payload", |w| {
        w.attribute_be32(1, register);
        w.attribute_be32(2, base);
        w.attribute_be32(3, offset);
        w.attribute_be32(4, bytes);
    });
}

fn masked(writer: &mut MessageWriter, mask: &[u8]) {
    element(writer, "bitwise", |w| {
        w.attribute_be32(1, REGISTER);
        w.attribute_be32(2, REGISTER);
        w.attribute_be32(3, u32::try_from(mask.len()).unwrap_or(0));
        w.nested(4, |w| w.attribute(DATA_VALUE, mask));
        w.nested(5, |w| w.attribute(DATA_VALUE, &vec![0; mask.len()]));
    });
}

fn verdict(writer: &mut MessageWriter, code: u32, chain: Option<&str>) {
    element(writer, "immediate", |w| {
        w.attribute_be32(1, VERDICT_REGISTER);
        w.nested(2, |w| {
            w.nested(DATA_VERDICT, |w| {
                w.attribute_be32(1, code);
                if let Some(chain) = chain {
                    super::text(w, 2, chain);
                }
            });
        });
    });
}

fn element(writer: &mut MessageWriter, name: &str, data: impl FnOnce(&mut MessageWriter)) {
    super::text(writer, 1, name);
    writer.nested(2, data);
}

/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// `NFTA_DATA_VALUE` and `NFTA_DATA_VERDICT`.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// `NFT_REG_VERDICT` and `NFT_REG_1`.
const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;
/// `NFT_JUMP`, which is -3.
const VERDICT_JUMP: u32 = u32::MAX - 2;
/// `NFT_REG32_00`, where keys begin.
pub(super) const KEY_REGISTER: u32 = 8;
/// `NF_ACCEPT`.
const VERDICT_ACCEPT: u32 = 1;
/// `NFT_META_MARK`, `NFT_META_NFPROTO` and `NFT_META_L4PROTO`.
const META_MARK: u32 = 3;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
/// `IP_CT_DIR_ORIGINAL`.
const DIRECTION_ORIGINAL: u8 = 0;
/// `NFT_DYNSET_OP_ADD` and `NFT_DYNSET_OP_UPDATE`.
const DYNSET_ADD: u32 = 0;
const DYNSET_UPDATE: u32 = 1;
/// `NFT_CT_STATE` and `NFT_CT_MARK`.
const CT_STATE: u32 = 0;
const CT_MARK: u32 = 3;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
pub(super) const NETWORK_HEADER: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`, and where the flags are in a TCP header.
pub(super) const TRANSPORT_HEADER: u32 = 2;
const TCP_FLAGS_OFFSET: u32 = 13;
