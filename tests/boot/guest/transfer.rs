//! A judged bulk transfer between kernels, and the counters that tell which path its packets took.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::boot::report::{Guard, Offload, Transfer};
use e2e::hello::{self, ClientHello};
use e2e::topology::{Asker, Family, RECORDER};
use e2e::wait;

use crate::application::{BULK, BULK_BYTES, ECHO};
use crate::world::{HTTPS, World, dial};

/// Transfers [`BULK_BYTES`] once the flow is judged.
pub(crate) fn run(
    world: &World,
    family: Family,
    offload: Offload,
    guard: Guard,
) -> Result<Transfer> {
    let port = port(family, offload, guard);
    world.watch(port)?;
    let (queued, marked) = (world.queued()?, world.marked()?);
    let from = SocketAddr::new(Asker::Workload.address(family), port);
    let to = RECORDER.at(family, HTTPS);
    let mut stream = world.topology.client.enter(|| dial(from, to))??;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    ask(
        &mut stream,
        &ClientHello::new(RECORDER.name).record(),
        hello::server_flight().len(),
    )?;
    stream.write_all(&hello::client_finish())?;
    let echo = hello::protected(ECHO);
    for _ in 0..3 {
        ask(&mut stream, &echo, echo.len())?;
    }
    // Verdicts that were under way have arrived by now.
    std::thread::sleep(Duration::from_millis(200));
    let (queued, to_judge) = (world.queued()? - queued, world.marked()? - marked);
    let forwarded = world.forwarded()?;
    let bytes = 2 * (BULK_BYTES / 2);
    ask(&mut stream, &hello::protected(BULK), bytes / 2)?;
    // The table is read while it changes: a line can be missed once, not again and again.
    let entry = wait::until(LIMIT, || {
        world.entry(port).ok().filter(|entry| !entry.is_empty())
    })
    .with_context(|| format!("no conntrack entry for port {port}"))?;
    ask(&mut stream, &[], bytes / 2)?;
    Ok(Transfer {
        family: if family == Family::V4 { 4 } else { 6 },
        offload,
        guard,
        bytes: u64::try_from(bytes)?,
        marked_to_judge: to_judge,
        queued_to_judge: queued,
        marked_in_bulk: world.marked()? - marked - to_judge,
        forwarded_in_bulk: world.forwarded()? - forwarded,
        entry,
    })
}

/// A port that no other transfer uses.
fn port(family: Family, offload: Offload, guard: Guard) -> u16 {
    let family = if family == Family::V6 { 1 } else { 0 };
    let offload = if offload == Offload::Flowtable { 2 } else { 0 };
    let guard = match guard {
        Guard::Control => 0,
        Guard::ForwardRule => 4,
        Guard::Postern => 8,
    };
    46_000 + family + offload + guard
}

/// Sends and reads `answer` bytes.
/// What the cheapest of some connections costs, one after the other to the same server: packets for the queues.
pub(crate) fn fewest_trips(world: &World, family: Family) -> Result<u64> {
    let mut fewest = u64::MAX;
    for _ in 0..CONNECTIONS {
        let before = world.queued()?;
        let from = SocketAddr::new(Asker::Workload.address(family), 0);
        let to = RECORDER.at(family, HTTPS);
        let mut stream = world.topology.client.enter(|| dial(from, to))??;
        stream.set_read_timeout(Some(LIMIT))?;
        let hello = ClientHello::new(RECORDER.name).record();
        ask(&mut stream, &hello, hello::server_flight().len())?;
        stream.write_all(&hello::client_finish())?;
        let echo = hello::protected(ECHO);
        ask(&mut stream, &echo, echo.len())?;
        fewest = fewest.min(world.queued()? - before);
    }
    Ok(fewest)
}

/// Enough for a pair to be familiar at one of them, on an emulated processor too.
const CONNECTIONS: usize = 20;

fn ask(stream: &mut TcpStream, bytes: &[u8], answer: usize) -> Result<()> {
    stream.write_all(bytes).context("sending")?;
    let mut left = answer;
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let room = left.min(buffer.len());
        let length = stream
            .read(buffer.get_mut(..room).unwrap_or_default())
            .context("receiving")?;
        ensure!(length > 0, "the connection was closed {left} bytes early");
        left -= length;
    }
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(10);
