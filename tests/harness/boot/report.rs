//! What the guest tells the host: one JSON object per line, after a fixed prefix, on the second serial port.

use std::io::Write;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Marks a line of ours on a port the kernel could write to as well.
const PREFIX: &str = "RESULT ";

/// One line of the report.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// The machine is up.
    Booted(Booted),
    /// A ruleset statement the design rests on, loaded.
    Statement(Statement),
    /// One client's try to reach one server.
    Attempt(Attempt),
    /// One try to make a new connection inherit an old one's verdict.
    Inheritance(Inheritance),
    /// A judged bulk transfer, counted.
    Transfer(Transfer),
    /// What holds the daemon, and what holds without its ruleset.
    Held(Held),
    /// A stage of the guest's work, for knowing where the seconds go.
    Stage(Stage),
    /// Something the guest could not do; no test passes beside one.
    Fault {
        /// What went wrong, with its causes.
        what: String,
    },
    /// The guest did everything on its list.
    Finished,
}

/// The machine that was booted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Booted {
    /// `uname -r`.
    pub kernel: String,
    /// Since power-on, by the guest's clock, in milliseconds.
    pub uptime_ms: u64,
}

/// One try to load a ruleset statement that kernels may lack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Statement {
    /// `queue` or `flowtable`.
    pub name: String,
    /// What nft said against it; empty when the kernel took it.
    pub error: String,
}

/// The end of one stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Since power-on, by the guest's clock, in milliseconds.
    pub uptime_ms: u64,
}

/// How the daemon was told to carry judged flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offload {
    /// Every packet through the forward hook.
    None,
    /// Judged flows in the kernel's flowtable.
    Flowtable,
}

/// What stood between the attacker and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// A ruleset that trusts the mark of a conntrack entry and nothing else: the attack has to succeed, or it proves
    /// nothing.
    Control,
    /// The same, except that it stops a bare SYN on an older entry in the forward hook, where Postern's rule is.
    ForwardRule,
    /// The daemon under test.
    Postern,
}

/// One client's try to reach one server: what each of the three places saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    /// Which attempt.
    pub name: String,
    /// Whether the client got the server's answer through TLS.
    pub served: bool,
    /// From the first packet to the client's end of the connection, in milliseconds.
    pub elapsed_ms: u64,
    /// Packets of this flow from the client that were seen on the internet side of the firewall.
    pub packets_on_wire: u64,
    /// TCP payload bytes among them.
    pub payload_on_wire: u64,
    /// Resets among them.
    pub resets_on_wire: u64,
    /// The flow log's lines about this flow, in order.
    pub log: Vec<serde_json::Value>,
}

/// Whether one attack made a new connection inherit an old one's verdict.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inheritance {
    /// How the old connection ended: `server_reset`, `doubted_reset`, `fragmented_reset`, `server_forgets`
    pub variant: String,
    /// 4 or 6.
    pub family: u8,
    /// The data path of judged flows.
    pub offload: Offload,
    /// What guarded against it.
    pub guard: Guard,
    /// The preconditions held: the first connection was judged, its server forgot it, its conntrack entry lived.
    pub armed: bool,
    /// The first, allowed hello arrived at the server.
    pub allowed_arrived: bool,
    /// A hello nobody judged arrived at the server. This is the bypass.
    pub evil_arrived: bool,
    /// The second connection's handshake was completed in the end.
    pub reconnected: bool,
    /// The conntrack entry just before the second connection, as `/proc/net/nf_conntrack` shows it.
    pub entry: String,
}

/// A judged transfer and the counters around it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transfer {
    /// 4 or 6.
    pub family: u8,
    /// The data path of judged flows.
    pub offload: Offload,
    /// What judged the flow.
    pub guard: Guard,
    /// Bytes the client received.
    pub bytes: u64,
    /// Packets of this flow that were marked for a queue, from its SYN to its last verdict.
    pub marked_to_judge: u64,
    /// Packets that came into any queue in the same time, by the queues' own count.
    pub queued_to_judge: u64,
    /// Packets of this flow that were marked for a queue during the bulk of the transfer.
    pub marked_in_bulk: u64,
    /// Packets of any flow counted in the forward hook during the bulk.
    pub forwarded_in_bulk: u64,
    /// The flow's conntrack entry during the bulk, as `/proc/net/nf_conntrack` shows it.
    pub entry: String,
}

/// The daemon's own confinement, and a ruleset that was deleted under it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Held {
    /// It says that a foreign flush opens nothing: the kernel took the table only it may change.
    pub latched: bool,
    /// `Seccomp` of `/proc/PID/status`; 2 is a filter.
    pub seccomp: String,
    /// `CapEff` of it, hexadecimal.
    pub capabilities: String,
    /// Packets that the queues got for the cheapest of some connections, one after the other; IPv4 and IPv6.
    pub fewest_trips: [u64; 2],
    /// The ruleset was back after `nft delete table`.
    pub repaired: bool,
}

/// What the host measured around the guest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Host {
    /// Fetching the kernel and building the initramfs, in milliseconds.
    pub build_ms: u64,
    /// qemu's life, in milliseconds.
    pub boot_ms: u64,
}

/// Everything one boot reported.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Measured by the host.
    pub host: Host,
    /// The machine.
    pub booted: Booted,
    /// The statements it has.
    pub statements: Vec<Statement>,
    /// The tries of ordinary and forged clients.
    pub attempts: Vec<Attempt>,
    /// The tries to inherit a verdict.
    pub inheritance: Vec<Inheritance>,
    /// The counted transfers.
    pub transfers: Vec<Transfer>,
    /// What holds the daemon.
    pub held: Option<Held>,
    /// Where the seconds went.
    pub stages: Vec<Stage>,
    /// What the guest could not do.
    pub faults: Vec<String>,
    /// Whether the guest came to the end of its list.
    pub finished: bool,
}

impl Report {
    /// Collects the lines of a guest's result port. Text without our prefix is passed over.
    pub fn read(text: &str) -> Result<Self> {
        let mut report = Self::default();
        for line in text
            .lines()
            .filter_map(|line| line.trim().strip_prefix(PREFIX))
        {
            match serde_json::from_str(line)
                .with_context(|| format!("reading result line {line}"))?
            {
                Line::Booted(booted) => report.booted = booted,
                Line::Statement(statement) => report.statements.push(statement),
                Line::Attempt(attempt) => report.attempts.push(attempt),
                Line::Inheritance(inheritance) => report.inheritance.push(inheritance),
                Line::Transfer(transfer) => report.transfers.push(transfer),
                Line::Held(held) => report.held = Some(held),
                Line::Stage(stage) => report.stages.push(stage),
                Line::Fault { what } => report.faults.push(what),
                Line::Finished => report.finished = true,
            }
        }
        Ok(report)
    }
}

/// Writes one line to the result port.
pub fn write_line(port: &mut impl Write, line: &Line) -> Result<()> {
    let json = serde_json::to_string(line)?;
    writeln!(port, "{PREFIX}{json}").context("writing to the result port")?;
    port.flush().context("flushing the result port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_serial_port() {
        let mut port = Vec::new();
        let stage = Stage {
            name: "up".to_owned(),
            uptime_ms: 7,
        };
        write_line(&mut port, &Line::Stage(stage)).unwrap();
        port.extend_from_slice(b"[    1.0] a word from the kernel\r\n");
        write_line(
            &mut port,
            &Line::Fault {
                what: "none \"really\"\n".to_owned(),
            },
        )
        .unwrap();
        write_line(&mut port, &Line::Finished).unwrap();
        let text = String::from_utf8(port).unwrap().replace('\n', "\r\n");
        let report = Report::read(&text).unwrap();
        assert_eq!(report.stages.len(), 1);
        assert_eq!(report.faults, ["none \"really\"\n"]);
        assert!(report.finished);
    }

    #[test]
    fn a_torn_line_is_an_error_not_a_gap() {
        assert!(Report::read("RESULT {\"kind\":\"finished\"").is_err());
    }
}
