use std::net::IpAddr;

use inspect::Category;
use policy::inventory::{Scope, read};

use super::*;

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

fn flow(name: Option<&str>) -> (Key, Flow) {
    let client = SocketAddr::from(([10, 0, 0, 1], 40_000));
    let server = SocketAddr::from(([8, 8, 8, 8], 443));
    let record = FlowRecord {
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
        suppressed: 0,
    };
    (
        key_of(&record),
        Flow {
            record: Some(Box::new(record)),
            ending: false,
        },
    )
}

fn allowed(inventory: &str, name: Option<&str>) -> bool {
    let (key, flow) = flow(name);
    is_allowed(&policy(inventory), &key, &flow, Date::from_unix_ms(0))
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
fn flow_from_before_a_restart_is_judged_by_its_ends() {
    let (key, _) = flow(None);
    let orphan = Flow {
        record: None,
        ending: false,
    };
    let judge =
        |inventory: &str| is_allowed(&policy(inventory), &key, &orphan, Date::from_unix_ms(0));
    assert!(judge(INVENTORY));
    assert!(!judge(&INVENTORY.replace("\"443\"", "\"8443\"")));
    assert!(!judge(&INVENTORY.replace("10.0.0.1", "10.0.0.2")));
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
        let record = flow.record.as_mut().unwrap();
        (record.transport, record.proto) = (transport, proto);
        let key = key_of(record);
        assert_eq!(key.protocol, protocol, "as the kernel's table has it");
        let forgotten = Flow {
            record: None,
            ending: false,
        };
        for flow in [flow, forgotten] {
            let judge = |text: &str| is_allowed(&policy(text), &key, &flow, Date::from_unix_ms(0));
            assert!(judge(&see_thru), "{proto:?}");
            assert!(!judge(INVENTORY), "{proto:?}");
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
        timeout: std::time::Duration::ZERO,
        tcp_state: Some(TcpState::TimeWait),
        assured: true,
        offloaded: false,
    };
    assert_eq!(idle_at_end_ms(&entry), 10_000);
    entry.timeout = std::time::Duration::from_secs(4);
    assert_eq!(idle_at_end_ms(&entry), 6_000);
    entry.tcp_state = Some(TcpState::Established);
    assert_eq!(idle_at_end_ms(&entry), 0);
}
