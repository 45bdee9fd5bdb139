//! Promise 21, attacked: a client with root tries to make a new connection inherit the verdict of an old one.
//!
//! The server is honest. Conntrack passes a bare SYN on a live entry and re-uses the entry, mark included, when the
//! server answers; whoever trusts the mark then carries a hello that nobody read.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::boot::report::{Guard, Inheritance, Offload};
use e2e::hello::{self, ClientHello, record_version, version};
use e2e::packet::{Seen, Tcp, flags};
use e2e::raw::{RawHost, RawTcp};
use e2e::topology::{EVIL, Family, RECORDER};
use e2e::wait;

use crate::application::{ABORT, ECHO};
use crate::world::{HTTPS, World};

/// How the first connection ends at its server while the firewall still has its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// A: the server resets it; conntrack keeps the entry for its CLOSE time-out.
    ServerReset,
    /// B: the client resets it with a number that the server believes and conntrack does not.
    DoubtedReset,
    /// As B, in two IP fragments: a flowtable leaves fragments to the slow path and so misses the reset.
    FragmentedReset,
    /// The server forgets it without a word on the wire: it lost power, or its reset was lost.
    ServerForgets,
}

/// All of them.
pub(crate) const VARIANTS: [Variant; 4] = [
    Variant::ServerReset,
    Variant::DoubtedReset,
    Variant::FragmentedReset,
    Variant::ServerForgets,
];

impl Variant {
    /// Its name in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ServerReset => "server_reset",
            Self::DoubtedReset => "doubted_reset",
            Self::FragmentedReset => "fragmented_reset",
            Self::ServerForgets => "server_forgets",
        }
    }

    /// Whether the firewall's entry is in the state that the variant leaves behind.
    fn spared(self, entry: &str) -> bool {
        self == Self::ServerReset || !entry.contains(" CLOSE ")
    }

    /// The first client port of its tries.
    fn port(self) -> u16 {
        match self {
            Self::ServerReset => 40_000,
            Self::DoubtedReset => 41_000,
            Self::FragmentedReset => 42_000,
            // Within SILENT_PORTS.
            Self::ServerForgets => 43_000,
        }
    }
}

/// One attack to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attack {
    /// How.
    pub(crate) variant: Variant,
    /// Over which protocol.
    pub(crate) family: Family,
    /// What carries judged flows.
    pub(crate) offload: Offload,
    /// What guards against it.
    pub(crate) guard: Guard,
}

impl Attack {
    /// Makes the attack until its preconditions hold, at most [`TRIES`] times; the last outcome.
    pub(crate) fn run(self, world: &World, host: &RawHost) -> Result<Inheritance> {
        let mut outcome = self.once(world, host, self.port(0))?;
        for number in 1..TRIES {
            if outcome.armed {
                break;
            }
            outcome = self.once(world, host, self.port(number))?;
        }
        Ok(outcome)
    }

    /// A port that no other attack uses.
    fn port(self, number: u16) -> u16 {
        let family = if self.family == Family::V6 { 20 } else { 0 };
        let offload = if self.offload == Offload::Flowtable {
            40
        } else {
            0
        };
        let guard = match self.guard {
            Guard::Control => 0,
            Guard::ForwardRule => 100,
            Guard::Postern => 200,
        };
        self.variant.port() + family + offload + guard + number
    }

    fn once(self, world: &World, host: &RawHost, port: u16) -> Result<Inheritance> {
        let what = || format!("{self:?} from port {port}");
        let mut flow = Flow::open(host, self.family, port).with_context(what)?;
        flow.converse().with_context(what)?;
        let carried = self.wait_carried(world, port)?;
        if carried {
            self.end_first(&mut flow)?;
        }
        let forgotten = wait::holds(Duration::from_secs(2), || {
            world
                .application
                .with(port)
                .last()
                .is_some_and(|one| one.over)
        });
        let entry = world.entry(port)?;
        let armed = carried && forgotten && is_judged(&entry) && self.variant.spared(&entry);
        let reconnected = flow.reconnect_and_attack()?;
        let arrived = |name: &str| {
            world
                .application
                .with(port)
                .iter()
                .any(|one| contains(&one.bytes, name.as_bytes()))
        };
        let on_wire = |name: &str| {
            let wanted =
                |seen: &Seen| seen.from.port() == port && contains(&seen.payload, name.as_bytes());
            !world.outside.matching(wanted).is_empty()
        };
        Ok(Inheritance {
            variant: self.variant.name().to_owned(),
            family: if self.family == Family::V4 { 4 } else { 6 },
            offload: self.offload,
            guard: self.guard,
            armed,
            allowed_arrived: arrived(RECORDER.name),
            evil_arrived: arrived(EVIL.name) || on_wire(EVIL.name),
            reconnected,
            entry,
        })
    }

    /// Waits until the kernel carries the flow by itself, in the way that is under attack.
    fn wait_carried(self, world: &World, port: u16) -> Result<bool> {
        for _ in 0..100 {
            let entry = world.entry(port)?;
            let offloaded = entry.contains("[OFFLOAD]");
            if offloaded || (is_judged(&entry) && self.offload == Offload::None) {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(false)
    }

    /// Ends the first connection in the variant's way.
    fn end_first(self, flow: &mut Flow<'_>) -> Result<()> {
        match self.variant {
            Variant::ServerReset => {
                flow.write(&hello::protected(ABORT))?;
                flow.tcp.wait_reset().map(drop)
            }
            // Its reset is dropped behind it: see SILENT_PORTS.
            Variant::ServerForgets => flow.write(&hello::protected(ABORT)),
            Variant::DoubtedReset => {
                flow.cast_doubt()?;
                flow.tcp.put(&flow.segment(flags::RST))
            }
            Variant::FragmentedReset => {
                flow.cast_doubt()?;
                let mut reset = flow.segment(flags::RST);
                // Long enough to be cut behind the header's fixed part: IPv6 wants it whole in the first fragment
                // (RFC 8200, section 4.5).
                reset.options = vec![1; 12];
                for fragment in reset.fragments(24, flow.tcp.local.port()) {
                    flow.host.send(&fragment)?;
                }
                Ok(())
            }
        }
    }
}

/// One hand-made connection from the attacker to the application.
struct Flow<'h> {
    host: &'h RawHost,
    tcp: RawTcp<'h>,
    /// Bytes of our stream so far.
    sent: usize,
}

impl<'h> Flow<'h> {
    fn open(host: &'h RawHost, family: Family, port: u16) -> Result<Self> {
        let tcp = host.connect(port, RECORDER.at(family, HTTPS), FIRST_ISN)?;
        Ok(Self { host, tcp, sent: 0 })
    }

    /// All that an allowed connection says before its flow is judged, and some rounds of question and answer after
    /// which the server delays its acknowledgements.
    fn converse(&mut self) -> Result<()> {
        self.ask(
            &ClientHello::new(RECORDER.name).record(),
            hello::server_flight().len(),
        )?;
        self.write(&hello::client_finish())?;
        let echo = hello::protected(ECHO);
        for _ in 0..ROUNDS {
            self.ask(&echo, echo.len())?;
        }
        Ok(())
    }

    /// Sends half a record, which the server acknowledges late, and then an acknowledgement from before it, which the
    /// server still takes: conntrack now doubts a reset with the number that the server expects.
    fn cast_doubt(&mut self) -> Result<()> {
        let before = self.sent;
        let record = hello::protected(ECHO);
        self.write(record.get(..record.len() - 1).unwrap_or_default())?;
        self.tcp.put(&self.tcp.segment(before, flags::ACK, &[]))
    }

    /// Opens a second connection with the same addresses and ports and sends a hello for a name that no rule lists;
    /// whether the handshake came about.
    fn reconnect_and_attack(&mut self) -> Result<bool> {
        self.tcp.restart(SECOND_ISN);
        self.sent = 0;
        if self.tcp.handshake().is_err() {
            return Ok(false);
        }
        // The control's stand-in for a judge goes by the record version, a real one by the name.
        let evil = record_version(22, version::TLS12, &ClientHello::new(EVIL.name).message());
        for _ in 0..2 {
            self.tcp.push(0, &evil)?;
            if self.tcp.pump(Duration::from_millis(400), |tcp| {
                tcp.reset || !tcp.received.is_empty()
            })? {
                break;
            }
        }
        Ok(true)
    }

    fn ask(&mut self, bytes: &[u8], answer: usize) -> Result<()> {
        let wanted = self.tcp.received.len() + answer;
        self.write(bytes)?;
        let came = self.tcp.wait_bytes(wanted)?;
        ensure!(
            came,
            "no answer from {} to {} bytes",
            self.tcp.remote,
            bytes.len()
        );
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sent += bytes.len();
        self.tcp.write(bytes)
    }

    /// An empty segment with the next sequence number.
    fn segment(&self, flags: u8) -> Tcp {
        self.tcp.segment(self.sent, flags, &[])
    }
}

/// Whether a conntrack entry says that its flow is judged.
fn is_judged(entry: &str) -> bool {
    let mark = entry
        .split_whitespace()
        .find_map(|word| word.strip_prefix("mark="));
    mark.and_then(|mark| mark.parse::<u32>().ok())
        .is_some_and(|mark| mark & JUDGED_BITS == JUDGED)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// Tries per attack; the doubted resets race with the server's delayed acknowledgement.
const TRIES: u16 = 3;
/// Rounds after which a Linux server takes a conversation for interactive and delays its acknowledgements.
const ROUNDS: usize = 4;
const FIRST_ISN: u32 = 1_000_000;
const SECOND_ISN: u32 = 900_000_000;
/// The bits of the ct mark that say a flow is judged; `firewall/src/marks.rs`.
const JUDGED_BITS: u32 = 0x3;
const JUDGED: u32 = 0x2;
