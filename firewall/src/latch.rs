//! A second table that nobody else can take away, for the moments in which the first one is gone.
//!
//! `nft flush ruleset`, a restart of `nftables.service` or a foreign `delete table` removes the ruleset, and a machine
//! that forwards would be open until it is put back. The latch is a table of its own, made over a netlink socket that
//! this process keeps and *owned* by it (`NFT_TABLE_F_OWNER`, Linux 5.12): the kernel refuses everybody else's changes
//! and a flush passes it by. It forwards what shows evidence of a verdict and nothing else, so with the ruleset in place
//! it changes nothing and without it nothing new leaves. It ends with this process, whose ruleset then stays alone: with
//! nobody to ask, that one passes nothing new either.
//!
//! For the same reason it has what the kernel may say in the daemon's name: see module `familiar`.

use std::sync::{Mutex, PoisonError};

use crate::marks::{CLASS_MASK, CT_KILL, UNQUEUED, VERDICT_JUDGED, VERDICT_MASK, VERDICT_REJECT};
use crate::netlink::{
    FAMILY_UNSPEC, MessageWriter, Messages, NLM_F_ACK, NetfilterSocket, NetlinkError,
    SUBSYSTEM_NFTABLES, message_type,
};

mod expression;
mod familiar;

use expression::{Rule, accept, ct_mark, ct_state, is, is_not, l4proto, mark, tcp_flags};

/// The table's name, of family `inet`.
pub const TABLE: &str = "postern_latch";

/// Behind the last chain of the ruleset, so that a packet comes here with its verdict on it.
const FORWARD_PRIORITY: i32 = 10;
/// Behind the chain that says of a SYN that it is plain, in front of the queue.
const SYN_PRIORITY: i32 = -151;
/// Behind the ruleset's own translation.
const NAT_PRIORITY: i32 = 101;

/// The table, for as long as this lives.
#[derive(Debug)]
pub struct Latch {
    /// The owner, as far as the kernel is concerned.
    owner: Mutex<Owner>,
}

#[derive(Debug)]
struct Owner {
    socket: NetfilterSocket,
    /// Requests made so far: an answer says which it is for.
    requests: u32,
}

impl Latch {
    /// Makes the table in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel does not know owned tables, or the process may not make any.
    pub fn engage() -> Result<Self, NetlinkError> {
        let socket = NetfilterSocket::open()?;
        socket.set_receive_timeout(ANSWER_TIMEOUT_MS)?;
        let mut owner = Owner {
            socket,
            requests: 0,
        };
        owner.transact(|batch| batch.make())?;
        Ok(Self {
            owner: Mutex::new(owner),
        })
    }

    /// Makes every pair a stranger again: the next SYN of each goes to the daemon.
    ///
    /// # Errors
    /// When the kernel does not say that it has done so.
    pub fn forget_familiar(&self) -> Result<(), NetlinkError> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        owner.transact(|batch| batch.forget())
    }
}

impl Owner {
    /// Makes one transaction and waits until the kernel has.
    fn transact(&mut self, what: impl FnOnce(&mut Batch<'_>)) -> Result<(), NetlinkError> {
        let mut writer = MessageWriter::with_capacity(8_192);
        let before = self.requests;
        self.requests = Batch::write(&mut writer, before, what);
        self.socket.send(writer.as_bytes())?;
        let mut buffer = vec![0; 16 << 10];
        let mut missing = self.requests.wrapping_sub(before);
        while missing > 0 {
            let length = self.socket.receive(&mut buffer)?;
            for message in Messages::new(buffer.get(..length).unwrap_or_default()) {
                let message = message?;
                // What was not waited for when an earlier transaction failed.
                let is_ours = message.sequence.wrapping_sub(before).wrapping_sub(1)
                    < self.requests.wrapping_sub(before);
                match message.error_code() {
                    Some(0) if is_ours => missing = missing.saturating_sub(1),
                    Some(code) if is_ours => {
                        return Err(NetlinkError::Refused(std::io::Error::from_raw_os_error(
                            code,
                        )));
                    }
                    Some(_) | None => {}
                }
            }
        }
        Ok(())
    }
}

/// A transaction.
struct Batch<'w> {
    writer: &'w mut MessageWriter,
    sequence: u32,
}

impl<'w> Batch<'w> {
    /// Writes a transaction whose requests are numbered from behind `before`; the number of the last.
    fn write(writer: &'w mut MessageWriter, before: u32, what: impl FnOnce(&mut Self)) -> u32 {
        let mut batch = Self {
            writer,
            sequence: before,
        };
        batch.limit(BATCH_BEGIN);
        what(&mut batch);
        let last = batch.sequence;
        batch.limit(BATCH_END);
        last
    }

    /// The table and all that is in it.
    fn make(&mut self) {
        self.table();
        for set in familiar::sets() {
            self.request(NEW_SET, 0, |w| {
                text(w, 1, TABLE);
                set(w);
            });
        }
        self.chain("forward", "filter", HOOK_FORWARD, FORWARD_PRIORITY, DROP);
        self.chain("familiar", "filter", HOOK_FORWARD, SYN_PRIORITY, ACCEPT);
        // Without a chain of this type the kernel stops translating flows that are being translated.
        self.chain("translate", "nat", HOOK_POSTROUTING, NAT_PRIORITY, ACCEPT);
        self.plain_chain("learn");
        self.rule("familiar", &familiar::passes_by());
        for pairs in &familiar::BOTH {
            self.rule("familiar", &pairs.admits());
            self.rule("learn", &pairs.learns());
        }
        self.rule("forward", &familiar::told("learn"));
        for rule in rules() {
            self.rule("forward", &rule);
        }
    }

    /// Empties the sets: a removal that names no element.
    fn forget(&mut self) {
        for pairs in &familiar::BOTH {
            self.request(DELETE_ELEMENTS, 0, |w| {
                text(w, 1, TABLE);
                text(w, 2, pairs.set);
            });
        }
    }

    /// The messages around a transaction; they are not acknowledged.
    fn limit(&mut self, kind: u16) {
        let subsystem = u16::from(SUBSYSTEM_NFTABLES);
        self.writer.begin(kind, 0, 0, FAMILY_UNSPEC, subsystem);
        self.writer.end();
    }

    fn request(&mut self, kind: u8, flags: u16, attributes: impl FnOnce(&mut MessageWriter)) {
        self.sequence = self.sequence.wrapping_add(1);
        let kind = message_type(SUBSYSTEM_NFTABLES, kind);
        self.writer.begin(
            kind,
            flags | NLM_F_ACK | NLM_F_CREATE,
            self.sequence,
            FAMILY_INET,
            0,
        );
        attributes(self.writer);
        self.writer.end();
    }

    fn table(&mut self) {
        self.request(NEW_TABLE, 0, |w| {
            text(w, 1, TABLE);
            w.attribute_be32(2, TABLE_OWNED);
        });
    }

    fn chain(&mut self, name: &str, kind: &str, hook: u32, priority: i32, policy: u32) {
        self.request(NEW_CHAIN, 0, |w| {
            text(w, 1, TABLE);
            text(w, 3, name);
            w.nested(4, |w| {
                w.attribute_be32(1, hook);
                w.attribute(2, &priority.to_be_bytes());
            });
            w.attribute_be32(5, policy);
            text(w, 7, kind);
        });
    }

    /// A chain that is jumped to.
    fn plain_chain(&mut self, name: &str) {
        self.request(NEW_CHAIN, 0, |w| {
            text(w, 1, TABLE);
            text(w, 3, name);
        });
    }

    fn rule(&mut self, chain: &str, rule: &Rule) {
        self.request(NEW_RULE, NLM_F_APPEND, |w| {
            text(w, 1, TABLE);
            text(w, 2, chain);
            w.nested(4, |w| rule.write(w));
        });
    }
}

/// The evidence that lets a packet through; the chain's policy drops the rest.
fn rules() -> [Rule; 3] {
    let judged = || ct_mark(VERDICT_MASK | CT_KILL);
    [
        // A verdict on the packet, or that it carries nothing to judge.
        Rule::from([
            is(mark(CLASS_MASK), 0),
            is_not(mark(VERDICT_MASK | UNQUEUED), 0),
            is_not(mark(VERDICT_MASK), VERDICT_REJECT),
            accept(),
        ]),
        // A judged connection. A bare SYN begins another one, which must not inherit the verdict.
        Rule::from([
            is(judged(), VERDICT_JUDGED),
            is(l4proto(), TCP),
            is_not(tcp_flags(SYN | ACK | FIN | RST), u32::from(SYN)),
            accept(),
        ]),
        // Anything else that is judged. An error about it has its mark and is no part of it.
        Rule::from([
            is(judged(), VERDICT_JUDGED),
            is_not(l4proto(), TCP),
            is(ct_state(ESTABLISHED), ESTABLISHED),
            accept(),
        ]),
    ]
}

/// A string attribute, with the NUL the kernel wants.
fn text(writer: &mut MessageWriter, kind: u16, value: &str) {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    writer.attribute(kind, &bytes);
}

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFT_MSG_*`.
const NEW_TABLE: u8 = 0;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
const NEW_SET: u8 = 9;
const DELETE_ELEMENTS: u8 = 14;
/// `NFT_TABLE_F_OWNER`.
const TABLE_OWNED: u32 = 2;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
/// `NFPROTO_INET`.
const FAMILY_INET: u8 = 1;
/// `NF_INET_FORWARD` and `NF_INET_POST_ROUTING`.
const HOOK_FORWARD: u32 = 2;
const HOOK_POSTROUTING: u32 = 4;
/// `NF_DROP` and `NF_ACCEPT`.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const TCP: u32 = 6;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`.
const ESTABLISHED: u32 = 2;
/// Flags of a TCP header (RFC 9293, section 3.1).
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const ANSWER_TIMEOUT_MS: u32 = 2_000;
