//! What TCP options an undecided flow may carry.
//!
//! Until a flow is judged its headers are a channel of their own, and multipath TCP a way to
//! reorder what was judged. What is no part of plain TCP is overwritten with no-operations, in
//! every packet; checksums are kept right by the kernel.

use super::Builder;
use super::counter::Counter;
use super::statement::{
    Statement, any_flag, assign, bits, count, differ, drop, equal, field, go_back, original,
    set_packet_mark, strip_option, tcp_option,
};
use crate::marks::PLAIN;

/// Chain that cleans one segment and goes back.
pub(super) const CHAIN: &str = "tcp_options";

/// Kinds that no undecided segment keeps: all but end, no-operation, maximum segment size, window
/// scale, SACK permitted, SACK and timestamps (RFC 9293, 7323 and 2018). Among them 30, multipath
/// TCP, and 34, fast open.
pub(super) fn stripped_kinds() -> impl Iterator<Item = u8> {
    (6..=u8::MAX).filter(|kind| *kind != TIMESTAMPS)
}

/// Kinds that belong on a SYN only.
const SYN_ONLY: [u8; 3] = [2, 3, 4];
/// SACK blocks: 38 bytes a client may fill as it likes. Its own loss recovery does not need them
/// before the first answer.
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// A rule holds at most 128 expressions (`NFT_RULE_MAXEXPRS`).
const KINDS_PER_RULE: usize = 120;

/// The first option word of a segment with timestamps only: two no-operations, kind 8, length 10.
const PADDED_TIMESTAMPS: u32 = 0x0101_080a;
/// Header length in words of such a segment.
const TIMESTAMPED_WORDS: u32 = 8;
/// Header length in words of a segment without options.
const BARE_WORDS: u32 = 5;
/// Bits from the start of the TCP header to its options.
const OPTIONS_OFFSET: u32 = 160;

/// One of the two shapes that nearly every segment has and that leave no room for anything
/// else: no options, or timestamps only.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Bare,
    Timestamps,
}

impl Shape {
    pub(super) const BOTH: [Self; 2] = [Self::Bare, Self::Timestamps];

    const fn comment(self) -> &'static str {
        match self {
            Self::Bare => "no options",
            Self::Timestamps => "timestamps only",
        }
    }

    /// Bytes of the TCP header.
    pub(super) const fn header_bytes(self) -> u32 {
        4 * match self {
            Self::Bare => BARE_WORDS,
            Self::Timestamps => TIMESTAMPED_WORDS,
        }
    }

    /// The segment has this shape.
    pub(super) fn matches(self) -> Vec<Statement> {
        let words = || field("tcp", "doff");
        match self {
            Self::Bare => vec![equal(words(), BARE_WORDS)],
            Self::Timestamps => vec![
                equal(words(), TIMESTAMPED_WORDS),
                equal(bits("th", OPTIONS_OFFSET, 32), PADDED_TIMESTAMPS),
            ],
        }
    }
}

/// A run of a handshake's option bytes that is always the same: bits from the start of the options, how many, and what
/// they are.
type Run = (u32, u32, u32);

/// Handshakes whose options are plain to the last byte, in the order their stacks write them: by name, header length in
/// words, and every byte that is no value. The rest are the values of segment size, window scale and timestamps. Taking
/// 248 kinds out of a segment costs more than all else that is done for a connection, so it is left to those handshakes
/// that may have one; each is read by the daemon as well.
/// None of them is longer than [`LONGEST_HANDSHAKE`].
const HANDSHAKES: [(&str, u32, &[Run]); 6] = [
    (
        "Linux",
        10,
        &[MAXSEG, (32, 32, 0x0402_080a), (128, 24, 0x01_0303)],
    ),
    (
        "FreeBSD, or Windows with timestamps",
        10,
        &[MAXSEG, (32, 24, 0x01_0303), (64, 32, 0x0402_080a)],
    ),
    (
        "Apple",
        11,
        &[
            MAXSEG,
            (32, 24, 0x01_0303),
            (64, 32, 0x0101_080a),
            (160, 32, 0x0402_0000),
        ],
    ),
    (
        "Windows",
        8,
        &[MAXSEG, (32, 24, 0x01_0303), (64, 32, 0x0101_0402)],
    ),
    (
        "Linux without timestamps",
        8,
        &[MAXSEG, (32, 32, 0x0101_0402), (64, 24, 0x01_0303)],
    ),
    ("segment size only", 6, &[MAXSEG]),
];
/// Bytes of the longest TCP header among them.
pub(super) const LONGEST_HANDSHAKE: u32 = 44;
/// Kind and length of the maximum segment size, first in all of them.
const MAXSEG: Run = (0, 16, 0x0204);

/// Such a handshake goes back at once, its segment size bounded like any, and marked as what it is.
fn plain_handshakes(builder: &mut Builder) {
    for (name, words, runs) in HANDSHAKES {
        let mut statements = vec![
            equal(field("tcp", "doff"), words),
            any_flag(field("tcp", "flags"), &["syn"]),
        ];
        statements.extend(runs.iter().map(|(from, length, value)| {
            equal(
                bits("th", OPTIONS_OFFSET.saturating_add(*from), *length),
                *value,
            )
        }));
        statements.extend([clamp(), set_packet_mark(PLAIN), go_back()]);
        builder.rule(CHAIN, &format!("handshake: {name}"), statements);
    }
}

fn clamp() -> Statement {
    assign(
        tcp_option("maxseg", "size"),
        serde_json::json!({"rt": {"key": "mtu"}}),
    )
}

/// Takes out what can be taken out here. nftables finds the first option of a kind only, so a
/// segment of any but the two plain shapes is looked at by the daemon afterwards.
pub(super) fn render(builder: &mut Builder) {
    builder.chain(CHAIN);
    // The long way is walked by handshakes, selective acknowledgements and oddities only.
    for shape in Shape::BOTH {
        let mut statements = shape.matches();
        statements.push(go_back());
        builder.rule(CHAIN, shape.comment(), statements);
    }
    plain_handshakes(builder);
    // An option may claim more room than its kind has, to carry something in the rest.
    for (name, length) in [
        ("maxseg", 4),
        ("window", 3),
        ("sack-perm", 2),
        ("timestamp", 10),
    ] {
        let wrong = differ(tcp_option(name, "length"), length);
        let statements = [wrong, count(Counter::TcpOption), drop()];
        builder.rule(CHAIN, "option longer or shorter than its kind", statements);
    }
    let kinds: Vec<u8> = stripped_kinds().collect();
    for kinds in kinds.chunks(KINDS_PER_RULE) {
        let statements = kinds.iter().copied().map(strip_option);
        builder.rule(CHAIN, "not plain TCP", statements);
    }
    let mut statements = vec![original()];
    statements.push(strip_option(SACK));
    builder.rule(CHAIN, "client's SACK blocks", statements);
    let syn = || field("tcp", "flags");
    let statements = [any_flag(syn(), &["syn"]), clamp()];
    builder.rule(CHAIN, "segments fit both ways", statements);
    builder.rule(
        CHAIN,
        "handshake keeps its own",
        [any_flag(syn(), &["syn"]), go_back()],
    );
    let statements: Vec<Statement> = SYN_ONLY.into_iter().map(strip_option).collect();
    builder.rule(CHAIN, "belongs on a SYN", statements);
}
