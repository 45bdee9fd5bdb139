//! From a removed entry to the `end` line.

use std::sync::Arc;

use inspect::FlowRecord;

use super::table::{ICMP, ICMPV6, TCP, UDP};
use crate::conntrack::{Entry, TcpState};
use crate::flowlog::EndRecord;

/// How long the kernel keeps an entry after its last packet, by protocol and state.
///
/// The table keeps a flow for its whole time-out (`nf_conntrack_tcp_timeout_*` and the like, some
/// of which the sysctl plan shortens); a duration that included it would be wrong by minutes.
#[derive(Clone, Debug)]
pub(super) struct TimeOuts {
    tcp: [u64; 7],
    udp: u64,
    udp_stream: u64,
    icmp: u64,
    icmpv6: u64,
    generic: u64,
}

/// The states of [`TimeOuts::tcp`], in order.
const TCP_NAMES: [&str; 7] = [
    "syn_recv",
    "established",
    "fin_wait",
    "close_wait",
    "last_ack",
    "time_wait",
    "close",
];

impl TimeOuts {
    /// What this network namespace's kernel uses; the sysctl plan has been carried out before.
    pub(super) fn read() -> Self {
        Self::read_from(|name| {
            let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
            let text = std::fs::read_to_string(path).ok()?;
            text.trim().parse::<u64>().ok()
        })
    }

    /// As [`TimeOuts::read`], from a reader of seconds. What it does not know is taken for 0: such
    /// a duration is too long rather than too short.
    pub(super) fn read_from(seconds: impl Fn(&str) -> Option<u64>) -> Self {
        let ms = |name: &str| seconds(name).unwrap_or(0).saturating_mul(1_000);
        Self {
            tcp: TCP_NAMES.map(|state| ms(&format!("tcp_timeout_{state}"))),
            udp: ms("udp_timeout"),
            udp_stream: ms("udp_timeout_stream"),
            icmp: ms("icmp_timeout"),
            icmpv6: ms("icmpv6_timeout"),
            generic: ms("generic_timeout"),
        }
    }

    /// The end of a flow whose entry was removed at `stop_ms`.
    pub(super) fn end_of(&self, flow: Arc<FlowRecord>, entry: &Entry, stop_ms: u64) -> EndRecord {
        let unix_ms = stop_ms.saturating_sub(self.idle_ms(entry));
        let started_ms = match entry.timestamps.start_ns / 1_000_000 {
            0 => flow.unix_ms,
            start_ms => start_ms,
        };
        // A time-out longer than the flow: its last state was entered by another packet than ours.
        let unix_ms = unix_ms.max(started_ms);
        EndRecord {
            flow,
            unix_ms,
            bytes_out: entry.out.bytes,
            bytes_in: entry.back.bytes,
            packets_out: entry.out.packets,
            packets_in: entry.back.packets,
            duration_ms: unix_ms.saturating_sub(started_ms),
        }
    }

    /// How long the entry lay idle before it was removed.
    fn idle_ms(&self, entry: &Entry) -> u64 {
        let whole = match entry.original.protocol {
            TCP => self.tcp_ms(entry.tcp_state),
            UDP if entry.assured => self.udp_stream,
            UDP => self.udp,
            ICMP => self.icmp,
            ICMPV6 => self.icmpv6,
            // Those with a tracker of their own have many states and say none of them here.
            33 | 47 | 132 | 136 => 0,
            _ => self.generic,
        };
        let left_ms = u64::try_from(entry.timeout.as_millis()).unwrap_or(u64::MAX);
        whole.saturating_sub(left_ms)
    }

    fn tcp_ms(&self, state: Option<TcpState>) -> u64 {
        let [
            syn_recv,
            established,
            fin_wait,
            close_wait,
            last_ack,
            time_wait,
            close,
        ] = self.tcp;
        match state {
            Some(TcpState::SynReceived) => syn_recv,
            Some(TcpState::Established) => established,
            Some(TcpState::FinWait) => fin_wait,
            Some(TcpState::CloseWait) => close_wait,
            Some(TcpState::LastAck) => last_ack,
            Some(TcpState::TimeWait) => time_wait,
            Some(TcpState::Close) => close,
            Some(TcpState::SynSent | TcpState::Other(_)) | None => 0,
        }
    }
}
