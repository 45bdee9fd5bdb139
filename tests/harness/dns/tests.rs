use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::RecordType;

use super::answer::name;
use super::{Answer, DnsDouble, Fault, Lie, ResponseCode, UNREADABLE, addresses};

fn question(text: &str, record_type: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(name(text), record_type));
    let mut edns = Edns::new();
    edns.set_max_payload(1_232);
    message.set_edns(edns);
    message
}

/// Every datagram that answers a question, until there is none for a while.
fn over_udp(server: &DnsDouble, question: &Message) -> Vec<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    socket
        .send_to(&question.to_vec().unwrap(), server.address())
        .unwrap();
    let mut buffer = vec![0; 65_535];
    std::iter::from_fn(|| {
        let (length, _) = socket.recv_from(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    })
    .collect()
}

fn over_tcp(server: &DnsDouble, question: &Message) -> Message {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let bytes = question.to_vec().unwrap();
    stream
        .write_all(&(bytes.len() as u16).to_be_bytes())
        .unwrap();
    stream.write_all(&bytes).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    Message::from_vec(&answer).unwrap()
}

fn many(count: u32) -> Vec<Ipv4Addr> {
    (0..count)
        .map(|n| Ipv4Addr::from(0xcb00_0000 + n))
        .collect()
}

#[test]
fn rotating_name_shows_some_of_its_addresses_at_a_time() {
    let server = DnsDouble::on_loopback().unwrap();
    server.set(
        "rotating.example",
        Answer::of(many(1_000)).at_a_time(8).ttl(5),
    );
    let draw = || server.draw("rotating.example", RecordType::A);
    let (first, second) = (draw(), draw());
    assert_eq!((first.len(), second.len()), (8, 8));
    assert_ne!(first, second);
    let answer = over_udp(&server, &question("Rotating.Example", RecordType::A));
    let answer = Message::from_vec(&answer[0]).unwrap();
    assert!(answer.answers.iter().all(|record| record.ttl == 5));
    let asked = server.asked_for("rotating.example");
    assert_eq!(
        (asked[0].written.as_str(), asked[0].tcp),
        ("Rotating.Example", false)
    );
    assert_eq!(asked[0].addresses, addresses(&answer.answers));
}

#[test]
fn large_answer_is_truncated_over_udp_and_whole_over_tcp() {
    let server = DnsDouble::on_loopback().unwrap();
    server.set("large.example", Answer::of(many(4_000)));
    let large = question("large.example", RecordType::A);
    let short = Message::from_vec(&over_udp(&server, &large)[0]).unwrap();
    assert!(short.truncation && short.answers.is_empty());
    assert_eq!(over_tcp(&server, &large).answers.len(), 4_000);
}

#[test]
fn chains_codes_wildcards_and_hints_are_as_scripted() {
    let server = DnsDouble::on_loopback().unwrap();
    server.set("www.example", Answer::of(many(1)).via("edge.example"));
    server.set("*.wild.example", Answer::of(many(1)));
    server.set("broken.example", Answer::code(ResponseCode::ServFail));
    let hints = "svc.example. 30 HTTPS 1 . alpn=h2 ipv4hint=203.0.113.9";
    server.set("svc.example", Answer::records_of(&[hints]));
    let ask =
        |name: &str, kind| Message::from_vec(&over_udp(&server, &question(name, kind))[0]).unwrap();
    assert_eq!(ask("www.example", RecordType::A).answers.len(), 2);
    assert_eq!(ask("www.example", RecordType::AAAA).answers.len(), 1);
    assert_eq!(ask("a.b.wild.example", RecordType::A).answers.len(), 1);
    assert_eq!(
        ask("broken.example", RecordType::A).response_code,
        ResponseCode::ServFail
    );
    assert_eq!(
        ask("nowhere.example", RecordType::A).response_code,
        ResponseCode::NXDomain
    );
    assert_eq!(ask("svc.example", RecordType::HTTPS).answers.len(), 1);
    assert_eq!(ask("svc.example", RecordType::A).answers.len(), 0);
}

#[test]
fn lies_come_before_the_truth_or_instead_of_it() {
    let server = DnsDouble::on_loopback().unwrap();
    let evil: IpAddr = "203.0.113.66".parse().unwrap();
    let asked = question("Victim.Example", RecordType::A);
    for lie in [
        Lie::WrongId(evil),
        Lie::WrongPort(evil),
        Lie::WrongQuestion(evil),
    ] {
        server.set("victim.example", Answer::of(many(1)).lying(lie));
        assert_eq!(over_udp(&server, &asked).len(), 2, "{lie:?}");
    }
    for lie in UNREADABLE {
        server.set("victim.example", Answer::of(many(1)).lying(lie));
        let got = over_udp(&server, &asked);
        assert_eq!(got.len(), 1, "{lie:?}");
        let useful = Message::from_vec(&got[0]).is_ok_and(|answer| !answer.answers.is_empty());
        assert!(!useful, "{lie:?}");
    }
}

#[test]
fn faults_concern_every_name() {
    let server = DnsDouble::on_loopback().unwrap();
    server.set("a.example", Answer::of(many(1)));
    let asked = question("a.example", RecordType::A);
    server.set_fault(Fault::Hang);
    assert_eq!(over_udp(&server, &asked).len(), 0);
    server.set_fault(Fault::Flap(2));
    let answered: Vec<usize> = (0..4).map(|_| over_udp(&server, &asked).len()).collect();
    assert_eq!(answered, [0, 1, 0, 1]);
    server.set_fault(Fault::NoUdp);
    assert_eq!(over_udp(&server, &asked).len(), 0);
    assert_eq!(over_tcp(&server, &asked).answers.len(), 1);
    server.set_fault(Fault::Code(ResponseCode::Refused));
    assert_eq!(
        over_tcp(&server, &asked).response_code,
        ResponseCode::Refused
    );
    assert_eq!(server.count(), 8);
}
