//! Promise 16 with the DNS front: whoever asks the front is told addresses that are bound by then.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::dns::{Answer, RecordType};
use e2e::hello::ClientHello;
use e2e::topology::{Family, Topology};

use crate::dns_front::{Fronted, workload};
use crate::dns_scale::{POOL, long, pool, serve};

/// Only a pattern covers it: without the front nothing would know of its addresses.
const NAME: &str = "rotating.wild.example";
const PORT: u16 = 8_443;

/// 1,000 addresses, 8 in an answer, for 5 s; each connection asks first. 10,000 connections over ten minutes in the long
/// form.
#[test]
fn rotating_dns_is_never_refused() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let lab = Topology::new().unwrap();
    lab.internet
        .ip(&format!("route add local {POOL}/22 dev lo\n"))
        .unwrap();
    serve(&lab, PORT, &STOP);
    let front = Fronted::new(&lab);
    front.dns.set(NAME, Answer::of(pool()).at_a_time(8).ttl(5));
    let (most, period) = if long() { (10_000, 600) } else { (800, 16) };
    let began = Instant::now();
    let (dialled, seen) = (AtomicUsize::new(0), Mutex::new(HashSet::new()));
    let connect = |address: IpAddr| {
        let mut stream =
            TcpStream::connect_timeout(&SocketAddr::new(address, PORT), Duration::from_secs(20))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(&ClientHello::new(NAME).record())?;
        stream.read(&mut [0; 1_024])
    };
    let one = |number: usize| {
        // Evenly over the period, so that many answers go stale meanwhile.
        let due = Duration::from_secs(period).mul_f64(number as f64 / most as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let told = workload(&lab, Family::V4)
            .insist(NAME, RecordType::A)
            .unwrap();
        let addresses = told.addresses();
        let address = addresses[number % addresses.len()];
        seen.lock().unwrap().extend(addresses);
        let answered = lab.client.enter(|| connect(address)).unwrap();
        assert!(
            matches!(answered, Ok(1..)),
            "{address}: {answered:?}: {}",
            front.daemon.output()
        );
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = dialled.fetch_add(1, Ordering::Relaxed);
                    if number >= most {
                        break;
                    }
                    one(number);
                }
            });
        }
    });
    let refused = front.daemon.metric("postern_refused_total").unwrap();
    assert!(refused == 0.0, "{refused} refused");
    let seen = seen.lock().unwrap().len();
    println!(
        "{most} connections to {seen} addresses in {:?}, none refused",
        began.elapsed()
    );
    assert!(seen > 8, "the name has rotated");
    STOP.store(true, Ordering::Relaxed);
}
