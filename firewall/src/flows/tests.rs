use std::net::{IpAddr, SocketAddr};

use inspect::{Category, Outcome};
use policy::inventory::{Scope, read};
use policy::{AppProto, Date, Name, Transport};

use super::rejudge::is_allowed;
use super::table::{ICMP, TCP, Taken, UDP};
use super::*;
use crate::conntrack::{TcpState, Tuple};

const INVENTORY: &str = r#"
[[group]]
id = "web"
  [[group.rule]]
  description = "postern:tls:api.example.org"
  protocol = "tcp"
  ports = "443"
[[client]]
address = "10.0.0.1"
instance = "web-1"
groups = ["web"]
"#;

fn policy(inventory: &str) -> Snapshot {
    let mut no_lists = |_: &policy::annotation::ListReference| Err("no lists".to_owned());
    Snapshot::compile(read(inventory, Scope::Whole, &mut no_lists).unwrap(), 1).unwrap()
}

fn flow(name: Option<&str>) -> (Key, FlowRecord) {
    let record = record(name);
    (Key::of_record(&record), record)
}

pub(super) fn record(name: Option<&str>) -> FlowRecord {
    let client = SocketAddr::from(([10, 0, 0, 1], 40_000));
    let server = SocketAddr::from(([8, 8, 8, 8], 443));
    FlowRecord {
        unix_ms: 0,
        category: Category::Client,
        outcome: Outcome::Allowed,
        dhost: name.map(Arc::from),
        src: client,
        dst: server,
        transport: Transport::Tcp,
        proto: AppProto::Tls,
        proto_v: "1.3",
        instance: None,
        gid: None,
        rule: None,
        generation: 1,
        policy_id: Arc::from(""),
        pqc: false,
        rescued: false,
        see_thru: None,
        would_reason: None,
        http: None,
        also: None,
        suppressed: 0,
        logged: true,
    }
}

/// Whether a flow goes on, to an address that may be bound and has no names now.
fn goes_on(inventory: &str, key: &Key, record: Option<&FlowRecord>) -> bool {
    let date = Date::from_unix_ms(0);
    is_allowed(&policy(inventory), key, record, date, true, &|_| {})
}

fn allowed(inventory: &str, name: Option<&str>) -> bool {
    let (key, flow) = flow(name);
    goes_on(inventory, &key, Some(&flow))
}

#[test]
fn flow_whose_name_is_still_listed_goes_on_and_others_end() {
    assert!(allowed(INVENTORY, Some("api.example.org")));
    assert!(!allowed(INVENTORY, Some("old.example.org")));
    assert!(!allowed(INVENTORY, None));
}

#[test]
fn flow_ends_when_its_port_its_group_or_its_client_goes() {
    let name = Some("api.example.org");
    assert!(!allowed(&INVENTORY.replace("\"443\"", "\"8443\""), name));
    assert!(!allowed(
        &INVENTORY.replace("groups = [\"web\"]", "groups = []"),
        name
    ));
    assert!(!allowed(&INVENTORY.replace("10.0.0.1", "10.0.0.2"), name));
}

#[test]
fn flow_ends_when_another_instance_has_its_address_even_with_the_same_groups() {
    let (key, mut other) = flow(Some("api.example.org"));
    let mut opened_by = |instance: &str| {
        other.instance = Some(Arc::from(instance));
        goes_on(INVENTORY, &key, Some(&other))
    };
    let now = policy(INVENTORY);
    let client = now.client(key.client.ip()).unwrap();
    assert!(opened_by(now.instance(client)));
    assert!(!opened_by("i-of-before"));
}

#[test]
fn flow_that_nobody_knows_the_name_of_ends_unless_any_bytes_may_pass() {
    let (key, _) = flow(None);
    assert!(!goes_on(INVENTORY, &key, None));
    let entry = "postern:tls:api.example.org";
    let see_thru = INVENTORY.replace(entry, "postern:see-thru:2099-12-31");
    assert!(goes_on(&see_thru, &key, None));
    let listed = INVENTORY.replace(entry, "postern:address");
    let listed = format!("[preferences]\naddress_rules = \"allow\"\n{listed}").replace(
        "ports = \"443\"",
        "ports = \"443\"\n  cidr = \"8.8.8.0/24\"",
    );
    assert!(goes_on(&listed, &key, None));
}

#[test]
fn ssh_flow_goes_on_while_any_name_it_was_or_is_bound_to_is_allowed() {
    let inventory = INVENTORY.replace("tls:api", "ssh:api");
    let (key, mut flow) = flow(Some("aaa.example.org"));
    let date = Date::from_unix_ms(0);
    flow.proto = AppProto::Ssh;
    assert!(!goes_on(&inventory, &key, Some(&flow)));
    let now = Name::parse(b"api.example.org").unwrap();
    assert!(is_allowed(
        &policy(&inventory),
        &key,
        Some(&flow),
        date,
        true,
        &|each| each(&now)
    ));
    flow.also = Some([Arc::from("api.example.org")].into());
    assert!(goes_on(&inventory, &key, Some(&flow)));
}

#[test]
fn flow_ends_when_its_address_may_no_longer_be_bound() {
    let (key, flow) = flow(Some("api.example.org"));
    let date = Date::from_unix_ms(0);
    assert!(!is_allowed(
        &policy(INVENTORY),
        &key,
        Some(&flow),
        date,
        false,
        &|_| {}
    ));
}

/// A record allowed at this time, of the same ends.
fn at(unix_ms: u64) -> FlowRecord {
    FlowRecord {
        unix_ms,
        ..record(Some("api.example.org"))
    }
}

#[test]
fn end_belongs_to_the_flow_that_was_there_before_it() {
    let mut flows = FlowTable::new(10);
    let key = Key::of_record(&at(0));
    assert!(flows.insert(&at(100)).is_some());
    assert!(flows.insert(&at(300)).is_some());
    // The event of the first comes after the record of the second.
    let first = flows.take(&key, 200);
    assert_eq!((first.record.unwrap().unix_ms, first.lost), (100, 0));
    assert!(flows.contains(&key));
    let second = flows.take(&key, 400);
    assert_eq!((second.record.unwrap().unix_ms, second.lost), (300, 0));
    assert_eq!(flows.take(&key, 500), Taken::default());
}

#[test]
fn end_of_a_flow_that_nobody_knows_anything_of_is_counted() {
    let mut flows = FlowTable::new(10);
    let key = Key::of_record(&at(1_000));
    assert!(flows.insert_unknown(key));
    assert_eq!(flows.take(&key, 2_000).lost, 1);
    // One that was no judged flow at all is nobody's loss.
    assert_eq!(flows.take(&key, 2_000), Taken::default());
}

#[test]
fn flow_whose_event_never_came_is_lost_once() {
    let mut flows = FlowTable::new(10);
    let key = Key::of_record(&at(0));
    flows.insert(&at(100));
    flows.insert(&at(300));
    let taken = flows.take(&key, 400);
    assert_eq!((taken.record.unwrap().unix_ms, taken.lost), (300, 1));
    flows.insert(&at(500));
    assert_eq!(flows.retain_present(&HashSet::new(), 400), []);
    assert_eq!(flows.retain_present(&HashSet::new(), 600), []);
    assert_eq!(flows.retain_present(&HashSet::new(), 600), [(key, false)]);
    assert_eq!(flows.len(), 0);
}

#[test]
fn flow_whose_event_is_still_to_be_read_is_not_lost() {
    let mut flows = FlowTable::new(10);
    let key = Key::of_record(&at(0));
    flows.insert(&at(100));
    // Its entry is gone, and its event comes between this look and the next.
    assert_eq!(flows.retain_present(&HashSet::new(), 600), []);
    assert!(flows.has_suspects());
    let taken = flows.take(&key, 590);
    assert_eq!((taken.record.unwrap().unix_ms, taken.lost), (100, 0));
    // Another flow of the same ends begins a search of its own.
    flows.insert(&at(595));
    assert_eq!(flows.retain_present(&HashSet::new(), 600), []);
    assert_eq!(flows.retain_present(&HashSet::from([key.pack()]), 600), []);
    assert!(!flows.has_suspects());
    assert_eq!(flows.len(), 1);
}

#[test]
fn ports_in_use_again_within_a_millisecond_lose_no_end() {
    let mut flows = FlowTable::new(10);
    let key = Key::of_record(&at(0));
    flows.insert(&at(100));
    // The kernel gave the entry up for a new connection, which was allowed before the clock moved.
    flows.insert(&at(200));
    let first = flows.take(&key, 200);
    assert_eq!((first.record.unwrap().unix_ms, first.lost), (100, 0));
    let second = flows.take(&key, 400);
    assert_eq!((second.record.unwrap().unix_ms, second.lost), (200, 0));
}

#[test]
fn records_of_earlier_flows_are_bounded_and_those_given_up_counted() {
    let mut flows = FlowTable::new(16 * 64);
    // One pair of ends, over and over: the newest and eight earlier ones stay.
    for time in 0..20 {
        flows.insert(&at(time));
    }
    assert_eq!(flows.take_given_up(), 11);
    // Many pairs, each a second time: there is room for so many, and no more.
    let of_port = |port: u16, time: u64| FlowRecord {
        src: SocketAddr::from(([10, 0, 0, 2], port)),
        ..at(time)
    };
    for time in [100, 200] {
        for port in 0..64 {
            assert!(flows.insert(&of_port(port, time)).is_some());
        }
    }
    assert_eq!(flows.take_given_up(), 8);
    // What ends makes room.
    let key = Key::of_record(&of_port(0, 0));
    assert_eq!(flows.take(&key, 150).record.unwrap().unix_ms, 100);
    flows.insert(&of_port(1, 300));
    assert_eq!(flows.take_given_up(), 0);
}

#[test]
fn datagrams_sent_together_are_one_flow_with_one_end() {
    let mut flows = FlowTable::new(10);
    let udp = |time| FlowRecord {
        transport: Transport::Udp,
        ..at(time)
    };
    let key = Key::of_record(&udp(0));
    flows.insert(&udp(100));
    flows.insert(&udp(103));
    let taken = flows.take(&key, 40_000);
    assert_eq!((taken.record.unwrap().unix_ms, taken.lost), (103, 0));
    // Later another flow may have the same ends, before the end of the first was heard of.
    flows.insert(&udp(50_000));
    flows.insert(&udp(90_000));
    assert_eq!(flows.take(&key, 80_000).record.unwrap().unix_ms, 50_000);
    assert_eq!(flows.take(&key, 130_000).record.unwrap().unix_ms, 90_000);
}

#[test]
fn full_table_takes_no_more_flows() {
    let mut flows = FlowTable::new(1);
    assert!(flows.insert(&at(1)).is_some());
    let other = FlowRecord {
        src: SocketAddr::from(([10, 0, 0, 1], 40_001)),
        ..at(2)
    };
    assert!(flows.insert(&other).is_none());
    assert!(flows.insert(&at(3)).is_some());
}

#[test]
fn what_is_not_tcp_ends_with_its_rule_remembered_or_not() {
    let see_thru = INVENTORY.replace(
        "postern:tls:api.example.org\"\n  protocol = \"tcp\"\n  ports = \"443\"",
        "postern:see-thru:2099-12-31\"\n  protocol = \"all\"\n  ports = \"all\"",
    );
    assert_ne!(see_thru, INVENTORY);
    for (transport, proto, protocol) in [
        (Transport::Udp, AppProto::Udp, UDP),
        (Transport::Icmp, AppProto::Icmp, ICMP),
        (Transport::Other(47), AppProto::Unknown, 47),
    ] {
        let (_, mut flow) = flow(None);
        (flow.transport, flow.proto) = (transport, proto);
        let key = Key::of_record(&flow);
        assert_eq!(key.protocol, protocol, "as the kernel's table has it");
        for record in [Some(&flow), None] {
            assert!(goes_on(&see_thru, &key, record), "{proto:?}");
            assert!(!goes_on(INVENTORY, &key, record), "{proto:?}");
        }
    }
}

#[test]
fn duration_leaves_out_the_closing_states_time_out() {
    let tuple = Tuple {
        protocol: TCP,
        source: SocketAddr::new(IpAddr::from([10, 0, 0, 1]), 1),
        destination: SocketAddr::new(IpAddr::from([8, 8, 8, 8]), 2),
    };
    let mut entry = Entry {
        original: tuple,
        reply: tuple,
        mark: 0,
        out: Default::default(),
        back: Default::default(),
        timestamps: Default::default(),
        timeout: Duration::ZERO,
        tcp_state: Some(TcpState::TimeWait),
        assured: true,
        offloaded: false,
    };
    let timeouts = TimeOuts::read_from(|name| match name {
        "tcp_timeout_time_wait" => Some(10),
        "tcp_timeout_established" => Some(3_600),
        _ => None,
    });
    let end = |entry: &mut Entry, stop_ms: u64| {
        entry.timestamps.start_ns = 1_000 * 1_000_000;
        let end = timeouts.end_of(Arc::new(record(None)), entry, stop_ms);
        (end.unix_ms, end.duration_ms)
    };
    assert_eq!(end(&mut entry, 13_000), (3_000, 2_000));
    // Deleted with four seconds to go.
    entry.timeout = Duration::from_secs(4);
    assert_eq!(end(&mut entry, 13_000), (7_000, 6_000));
    entry.timeout = Duration::ZERO;
    entry.tcp_state = Some(TcpState::Established);
    assert_eq!(end(&mut entry, 3_605_000), (5_000, 4_000));
    assert_eq!(end(&mut entry, 2_000), (1_000, 0));
}
