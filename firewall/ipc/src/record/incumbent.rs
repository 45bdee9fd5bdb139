//! The log fields the incumbent publishes, one test each: name, type and values as saved queries expect them.

use serde_json::{Value, json};

use super::tests::flow_line;
use super::*;

/// The line of a flow, as a query sees it.
fn flow(change: impl FnOnce(&mut FlowLineV1)) -> Value {
    let mut line = flow_line();
    change(&mut line);
    serde_json::to_value(line).unwrap()
}

/// The line of a change, as a query sees it.
fn config(cat: ConfigCat, outcome: &'static str, detail: ConfigDetailV1) -> Value {
    let line = ConfigLineV1 {
        time: Timestamp::from_unix_ms(0),
        cat,
        outcome: Text::from_static(outcome),
        detail,
        generation: 7,
        policy_id: "0123456789abcdef".into(),
        appliance: "i-0fff".into(),
    };
    serde_json::to_value(line).unwrap()
}

#[test]
fn flow_cat_is_whose_packet_it_was() {
    assert_eq!(flow(|line| line.cat = FlowCat::Client)["cat"], "client");
    assert_eq!(flow(|line| line.cat = FlowCat::Server)["cat"], "server");
}

#[test]
fn flow_outcome_is_allowed_or_disallowed() {
    let outcome = |outcome| flow(|line| line.outcome = outcome)["outcome"].clone();
    assert_eq!(outcome(FlowOutcome::Allowed), "allowed");
    assert_eq!(outcome(FlowOutcome::Disallowed), "disallowed");
}

#[test]
fn flow_dhost_is_the_name_or_else_the_address() {
    assert_eq!(flow(|_| {})["dhost"], "api.example.com");
    let unnamed = flow(|line| line.dhost = "203.0.113.9".into());
    assert_eq!(unnamed["dhost"], unnamed["dst"]);
}

#[test]
fn flow_src_is_an_address() {
    assert_eq!(flow(|_| {})["src"], "10.10.0.5");
}

#[test]
fn flow_spt_is_a_number() {
    assert_eq!(flow(|_| {})["spt"], json!(41_822));
}

#[test]
fn flow_dst_is_an_address() {
    assert_eq!(flow(|_| {})["dst"], "203.0.113.9");
    let v6 = flow(|line| line.dst = std::net::Ipv6Addr::LOCALHOST.into());
    assert_eq!(v6["dst"], "::1");
}

#[test]
fn flow_dpt_is_a_number() {
    assert_eq!(flow(|_| {})["dpt"], json!(443));
}

#[test]
fn flow_proto_is_the_protocol_seen() {
    for proto in ["tls", "ssh", "http", "unknown"] {
        let line = flow(|line| line.proto = Text::from_static(proto));
        assert_eq!(line["proto"], proto);
    }
}

#[test]
fn flow_proto_v_is_there_when_known() {
    assert_eq!(flow(|_| {})["proto_v"], "1.3");
    assert_eq!(flow(|line| line.proto_v = None).get("proto_v"), None);
}

#[test]
fn flow_reason_is_the_group_or_the_cause() {
    let allowed = flow(|_| {});
    assert_eq!(allowed["reason"], allowed["gid"]);
    let refused = flow(|line| line.reason = Text::from_static("name_not_allowed"));
    assert_eq!(refused["reason"], "name_not_allowed");
}

#[test]
fn flow_instance_is_the_protected_client() {
    assert_eq!(flow(|_| {})["instance"], "i-0abc");
    assert_eq!(flow(|line| line.instance = None).get("instance"), None);
}

#[test]
fn flow_pqc_is_a_flag_and_absent_where_nothing_is_agreed() {
    assert_eq!(flow(|_| {})["pqc"], json!(true));
    assert_eq!(flow(|line| line.pqc = None).get("pqc"), None);
}

#[test]
fn flow_http_code_is_a_number_on_http_alone() {
    assert_eq!(
        flow(|line| line.http_code = Some(200))["http_code"],
        json!(200)
    );
    assert_eq!(flow(|_| {}).get("http_code"), None);
}

#[test]
fn flow_http_method_is_text_on_http_alone() {
    let line = flow(|line| line.http_method = Some(Text::from_static("GET")));
    assert_eq!(line["http_method"], "GET");
    assert_eq!(flow(|_| {}).get("http_method"), None);
}

#[test]
fn flow_http_path_is_text_on_http_alone() {
    let line = flow(|line| line.http_path = Some(Text::from_static("/ca.crl")));
    assert_eq!(line["http_path"], "/ca.crl");
    assert_eq!(flow(|_| {}).get("http_path"), None);
}

#[test]
fn flow_http_user_agent_is_text_on_http_alone() {
    let line = flow(|line| line.http_user_agent = Some(Text::from_static("curl/8")));
    assert_eq!(line["http_user_agent"], "curl/8");
    assert_eq!(flow(|_| {}).get("http_user_agent"), None);
}

#[test]
fn flow_see_thru_exerted_is_a_flag_under_see_thru_alone() {
    for exerted in [true, false] {
        let line = flow(|line| line.see_thru_exerted = Some(exerted));
        assert_eq!(line["see_thru_exerted"], json!(exerted));
    }
    assert_eq!(flow(|_| {}).get("see_thru_exerted"), None);
}

#[test]
fn flow_see_thru_gid_is_the_group_or_the_deployments_scope() {
    for gid in ["sg-0monitor", "%default"] {
        let line = flow(|line| line.see_thru_gid = Some(Text::from_static(gid)));
        assert_eq!(line["see_thru_gid"], gid);
    }
    assert_eq!(flow(|_| {}).get("see_thru_gid"), None);
}

#[test]
fn flow_see_thru_days_remaining_is_a_number() {
    let line = flow(|line| line.see_thru_days_remaining = Some(12));
    assert_eq!(line["see_thru_days_remaining"], json!(12));
    assert_eq!(flow(|_| {}).get("see_thru_days_remaining"), None);
}

#[test]
fn config_cat_is_what_changed() {
    let cat = |cat| config(cat, "accepted", ConfigDetailV1::default())["cat"].clone();
    assert_eq!(cat(ConfigCat::Addr), "addr");
    assert_eq!(cat(ConfigCat::Client), "client");
    assert_eq!(cat(ConfigCat::SeeThru), "see-thru");
}

#[test]
fn config_outcome_is_accepted_removed_or_why_not() {
    for outcome in [
        "accepted",
        "removed",
        "publicsuffix[.]org list matched with `github.io`",
    ] {
        let line = config(ConfigCat::Addr, outcome, ConfigDetailV1::default());
        assert_eq!(line["outcome"], outcome);
    }
}

#[test]
fn config_client_is_the_clients_address() {
    let detail = ConfigDetailV1 {
        client: Some(Text::from_static("10.10.0.5")),
        ..ConfigDetailV1::default()
    };
    let line = config(ConfigCat::Client, "accepted", detail);
    assert_eq!(line["client"], "10.10.0.5");
}

#[test]
fn config_gid_is_the_group() {
    let detail = ConfigDetailV1 {
        gid: Some(Text::from_static("sg-0abc")),
        ..ConfigDetailV1::default()
    };
    assert_eq!(
        config(ConfigCat::Addr, "accepted", detail)["gid"],
        "sg-0abc"
    );
}

#[test]
fn config_addr_is_the_name_or_pattern() {
    for addr in ["api.example.com", "*.example.com"] {
        let detail = ConfigDetailV1 {
            addr: Some(Text::from_static(addr)),
            ..ConfigDetailV1::default()
        };
        assert_eq!(config(ConfigCat::Addr, "accepted", detail)["addr"], addr);
    }
}

#[test]
fn config_proto_is_tls_or_ssh() {
    for proto in ["tls", "ssh"] {
        let detail = ConfigDetailV1 {
            proto: Some(Text::from_static(proto)),
            ..ConfigDetailV1::default()
        };
        assert_eq!(config(ConfigCat::Addr, "accepted", detail)["proto"], proto);
    }
}
