//! What the DNS front takes out of an answer, how it sends a large one, and what it makes of bytes that are no question.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use e2e::dns::{Answer, RecordType, ResponseCode, Stub};
use e2e::topology::{Asker, Family, Topology};

use crate::dns_front::{Fronted, near, workload};

#[test]
fn what_would_hide_a_name_and_addresses_that_may_not_be_bound_are_taken_out() {
    let lab = Topology::new().unwrap();
    let front = Fronted::new(&lab);
    let service = "listed.good.example. 60 HTTPS 1 . mandatory=alpn,ech alpn=h2 ipv4hint=203.0.113.30,10.1.2.3 \
                   ech=AEX+DQBBpQAgACC/7zUoKGlKzBrYXHCaRAmIpwSHDaDLt/fOGHGg5VgYIwAEAAEAAQASY2xvdWRmbGFyZS1lY2guY29tAAA= \
                   ipv6hint=fd00::1";
    front
        .dns
        .set("listed.good.example", Answer::records_of(&[service]));
    let told = e2e::wait::until(Duration::from_secs(20), || {
        let told = front.asks("listed.good.example", RecordType::HTTPS);
        (!told.records().is_empty()).then(|| told.records())
    });
    let records = told.unwrap();
    let [record] = records.as_slice() else {
        panic!("{records:?}")
    };
    assert!(
        record.contains("alpn=\"h2") || record.contains("alpn=h2"),
        "{record}"
    );
    assert!(record.contains("203.0.113.30"), "{record}");
    for gone in ["ech", "10.1.2.3", "fd00::1", "ipv6hint"] {
        assert!(!record.contains(gone), "{gone} in {record}");
    }
    // An answer whose every address may never be dialled is one without addresses.
    front.dns.set(
        "app.wild.example",
        Answer::of([Ipv4Addr::new(169, 254, 169, 254)]),
    );
    let told = front.asks("app.wild.example", RecordType::A);
    assert_eq!(
        (told.code(), told.addresses()),
        (ResponseCode::NoError, vec![])
    );
    let raised = || {
        front
            .daemon
            .metric("postern_dns_front_withheld_total")
            .unwrap()
            > 0.0
    };
    assert!(e2e::wait::holds(Duration::from_secs(10), raised));
}

#[test]
fn answer_that_fits_no_datagram_is_asked_for_over_tcp() {
    let lab = Topology::new().unwrap();
    let front = Fronted::new(&lab);
    let many: Vec<IpAddr> = (1..=200)
        .map(|n| Ipv4Addr::new(198, 41, 0, n).into())
        .collect();
    front.dns.set("many.wild.example", Answer::of(many.clone()));
    let told = front.asks("many.wild.example", RecordType::A);
    assert!(
        told.message.truncation && told.addresses().is_empty(),
        "{told:?}"
    );
    let told = workload(&lab, Family::V4)
        .ask_tcp("many.wild.example", RecordType::A)
        .unwrap()
        .unwrap();
    assert_eq!(told.addresses(), many);
    // One that speaks no EDNS takes 512 bytes.
    let some: Vec<IpAddr> = (1..=40)
        .map(|n| Ipv4Addr::new(198, 41, 1, n).into())
        .collect();
    front.dns.set("some.wild.example", Answer::of(some));
    let question = Stub::question("some.wild.example", RecordType::A, None).unwrap();
    let told = e2e::wait::until(Duration::from_secs(20), || {
        workload(&lab, Family::V4).exchange(&question).unwrap()
    });
    assert!(told.unwrap().message.truncation);
    // The C library does both by itself.
    let resolv = lab.file("front.resolv");
    std::fs::write(&resolv, "nameserver 10.77.1.1\n").unwrap();
    lab.client.bind_mount(&resolv, "/etc/resolv.conf").unwrap();
    let text = lab
        .client
        .run("getent", &["ahostsv4", "many.wild.example"])
        .unwrap();
    assert!(text.contains("198.41.0.200"), "{text}");
}

#[test]
fn messages_that_are_no_questions_do_no_harm() {
    let lab = Topology::new().unwrap();
    let front = Fronted::new(&lab);
    let mut stub = workload(&lab, Family::V4);
    let good = Stub::question("listed.good.example", RecordType::A, Some(1_232)).unwrap();
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let code =
        |stub: &Stub<'_>, bytes: &[u8]| stub.exchange(bytes).unwrap().map(|told| told.code());
    // The class stands before the additional section, which is one option record of eleven bytes.
    let class = good.len() - 11 - 1;
    for (what, bytes, expected) in [
        ("an update", changed(2, 0x28), ResponseCode::NotImp),
        ("two questions", changed(5, 2), ResponseCode::FormErr),
        ("cut off", good[..20].to_vec(), ResponseCode::FormErr),
        ("another class", changed(class, 3), ResponseCode::Refused),
    ] {
        assert_eq!(code(&stub, &bytes), Some(expected), "{what}");
    }
    stub.patience = Duration::from_millis(300);
    assert_eq!(code(&stub, &changed(2, 0x81)), None, "an answer");
    assert_eq!(code(&stub, &good[..7]), None, "less than a header");
    assert_eq!(code(&stub, b""), None);
    for seed in 0..200_u8 {
        let noise: Vec<u8> = (0..64)
            .map(|n: u8| n.wrapping_mul(seed).wrapping_add(seed ^ n))
            .collect();
        let bind = || UdpSocket::bind((Asker::Workload.address(Family::V4), 0));
        let socket = lab.client.enter(bind).unwrap().unwrap();
        socket.send_to(&noise, near(Family::V4)).unwrap();
    }
    let malformed = "postern_dns_front_malformed_total";
    let raised = || front.daemon.metric(malformed).unwrap() > 100.0;
    assert!(e2e::wait::holds(Duration::from_secs(10), raised));
    let told = front.asks("listed.good.example", RecordType::A);
    assert_eq!(told.addresses().len(), 1);
}
