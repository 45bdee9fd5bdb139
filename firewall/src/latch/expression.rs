//! The few nftables expressions that the latch needs, as the kernel takes them (`linux/netfilter/nf_tables.h`).

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

/// One expression; every value goes through one register.
pub(super) enum Expression {
    Meta(u32),
    Ct(u32),
    /// Offset of one byte in the transport header.
    Transport(u32),
    Mask(Vec<u8>),
    Compare {
        equal: bool,
        value: Vec<u8>,
    },
    Accept,
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

/// Lets the packet through.
pub(super) fn accept() -> Vec<Expression> {
    vec![Expression::Accept]
}

impl Expression {
    fn write(&self, writer: &mut MessageWriter) {
        match self {
            Self::Meta(key) => element(writer, "meta", |w| {
                w.attribute_be32(1, REGISTER);
                w.attribute_be32(2, *key);
            }),
            Self::Ct(key) => element(writer, "ct", |w| {
                w.attribute_be32(1, REGISTER);
                w.attribute_be32(2, *key);
            }),
            Self::Transport(offset) => element(writer, "payload", |w| {
                w.attribute_be32(1, REGISTER);
                w.attribute_be32(2, TRANSPORT_HEADER);
                w.attribute_be32(3, *offset);
                w.attribute_be32(4, 1);
            }),
            Self::Mask(mask) => element(writer, "bitwise", |w| {
                w.attribute_be32(1, REGISTER);
                w.attribute_be32(2, REGISTER);
                w.attribute_be32(3, u32::try_from(mask.len()).unwrap_or(0));
                w.nested(4, |w| w.attribute(DATA_VALUE, mask));
                w.nested(5, |w| w.attribute(DATA_VALUE, &vec![0; mask.len()]));
            }),
            Self::Compare { equal, value } => element(writer, "cmp", |w| {
                w.attribute_be32(1, REGISTER);
                w.attribute_be32(2, u32::from(!equal));
                w.nested(3, |w| w.attribute(DATA_VALUE, value));
            }),
            Self::Accept => element(writer, "immediate", |w| {
                w.attribute_be32(1, VERDICT_REGISTER);
                w.nested(2, |w| {
                    w.nested(DATA_VERDICT, |w| w.attribute_be32(1, VERDICT_ACCEPT));
                });
            }),
        }
    }
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
/// `NF_ACCEPT`.
const VERDICT_ACCEPT: u32 = 1;
/// `NFT_META_MARK` and `NFT_META_L4PROTO`.
const META_MARK: u32 = 3;
const META_L4PROTO: u32 = 16;
/// `NFT_CT_STATE` and `NFT_CT_MARK`.
const CT_STATE: u32 = 0;
const CT_MARK: u32 = 3;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`, and where its flags are in a TCP header.
const TRANSPORT_HEADER: u32 = 2;
const TCP_FLAGS_OFFSET: u32 = 13;
