use inspect::{HttpRecord, SeeThruRecord};
use policy::{Reason, Transport};
use proptest::prelude::*;

use super::*;

fn words() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![
        "[a-z0-9.-]{0,40}",
        ".{0,20}",
        "[ -~]{0,30}",
        "\\PC{200,300}",
        Just("\"\\\u{7f}\u{2028}\u{202e}\u{0}\u{1b}[2J".to_owned()),
    ]
    .prop_map(Arc::from)
}

fn sockets() -> impl Strategy<Value = SocketAddr> {
    let v6 = any::<([u8; 16], u16)>().prop_map(SocketAddr::from);
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        v6,
        Just("[::ffff:10.0.0.1]:1".parse().unwrap()),
    ]
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let reasons = prop::sample::select(Reason::ALL);
    prop_oneof![
        Just(Outcome::Allowed),
        reasons.prop_map(Outcome::Disallowed)
    ]
}

fn see_thrus() -> impl Strategy<Value = SeeThruRecord> {
    (any::<bool>(), words(), any::<u32>()).prop_map(|(exerted, gid, days_remaining)| {
        SeeThruRecord {
            exerted,
            gid,
            days_remaining,
        }
    })
}

fn requests() -> impl Strategy<Value = HttpRecord> {
    let code = prop::option::of(any::<u16>());
    (words(), words(), words(), code).prop_map(|(method, path, agent, code)| HttpRecord {
        method: (&*method).into(),
        path: (&*path).into(),
        user_agent: (&*agent).into(),
        code,
    })
}

fn records() -> impl Strategy<Value = FlowRecord> {
    let ends = (sockets(), sockets(), prop::option::of(words()));
    let some = || prop::option::of(words());
    let origin = (some(), some(), some(), words());
    let protos = prop::sample::select(vec![AppProto::Tls, AppProto::Ssh, AppProto::Unknown]);
    let judged = (
        outcomes(),
        any::<bool>(),
        protos,
        prop::sample::select(vec!["", "1.3", "2.0"]),
        prop::option::of(prop::sample::select(Reason::ALL)),
    );
    let more = (
        any::<(u64, u64, bool, bool)>(),
        prop::option::of(see_thrus()),
        prop::option::of(requests()),
    );
    (ends, origin, judged, more).prop_map(
        |((src, dst, dhost), (instance, gid, rule, policy_id), judged, more)| {
            let (outcome, is_client, proto, proto_v, would_reason) = judged;
            let ((unix_ms, generation, pqc, rescued), see_thru, http) = more;
            FlowRecord {
                unix_ms,
                category: if is_client {
                    Category::Client
                } else {
                    Category::Server
                },
                outcome,
                dhost,
                src,
                dst,
                transport: Transport::Tcp,
                proto,
                proto_v,
                instance,
                gid,
                rule,
                generation,
                policy_id,
                pqc,
                rescued,
                see_thru,
                would_reason,
                http,
                also: None,
                suppressed: 0,
                logged: true,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_the_published_schema_to_the_byte(
        flow in records(),
        appliance in words(),
        counts in any::<[u64; 6]>(),
    ) {
        let text = Text::from(&appliance);
        let (mut written, mut expected) = (Vec::new(), Vec::new());
        write_flow(&mut written, &flow, &appliance);
        append_line(&mut expected, &flow_line(&flow, &text)).unwrap();
        prop_assert_eq!(String::from_utf8(written), String::from_utf8(expected));
        let [unix_ms, bytes_out, bytes_in, packets_out, packets_in, duration_ms] = counts;
        let end = EndRecord {
            flow: Arc::new(flow),
            unix_ms,
            bytes_out,
            bytes_in,
            packets_out,
            packets_in,
            duration_ms,
        };
        let (mut written, mut expected) = (Vec::new(), Vec::new());
        write_end(&mut written, &end, &appliance);
        append_line(&mut expected, &end_line(&end, &text)).unwrap();
        prop_assert_eq!(String::from_utf8(written), String::from_utf8(expected));
    }

    #[test]
    fn a_socket_is_written_as_serde_writes_it(socket in sockets()) {
        let mut written = Vec::new();
        write_socket(&mut written, socket);
        prop_assert_eq!(written, serde_json::to_vec(&socket).unwrap());
    }
}
