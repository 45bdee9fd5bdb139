//! The schemas, word for word, and what hostile values may not do to them.

use proptest::prelude::*;

use super::*;

pub(super) fn flow_line() -> FlowLineV1 {
    FlowLineV1 {
        time: Timestamp::from_unix_ms(1_795_345_705_042),
        cat: FlowCat::Client,
        outcome: FlowOutcome::Allowed,
        reason: "sg-0abc".into(),
        dhost: "api.example.com".into(),
        src: [10, 10, 0, 5].into(),
        spt: 41_822,
        dst: [203, 0, 113, 9].into(),
        dpt: 443,
        proto: Text::from_static("tls"),
        proto_v: Some(Text::from_static("1.3")),
        instance: Some("i-0abc".into()),
        gid: Some("sg-0abc".into()),
        rule: Some("sgr-0123".into()),
        generation: 7,
        policy_id: "0123456789abcdef".into(),
        appliance: "i-0fff".into(),
        pqc: Some(true),
        rescued: None,
        see_thru_exerted: None,
        see_thru_gid: None,
        see_thru_days_remaining: None,
        would_reason: None,
        http_method: None,
        http_path: None,
        http_user_agent: None,
        http_code: None,
    }
}

fn line<T: Serialize>(record: &T) -> String {
    String::from_utf8(to_line(record).unwrap()).unwrap()
}

#[test]
fn flow_line_has_the_published_fields() {
    insta::assert_snapshot!(line(&flow_line()), @r#"
    {"time":"2026-11-22T11:08:25.042Z","cat":"client","outcome":"allowed","reason":"sg-0abc","dhost":"api.example.com","src":"10.10.0.5","spt":41822,"dst":"203.0.113.9","dpt":443,"proto":"tls","proto_v":"1.3","instance":"i-0abc","gid":"sg-0abc","rule":"sgr-0123","generation":7,"policy_id":"0123456789abcdef","appliance":"i-0fff","pqc":true}
    "#);
}

#[test]
fn flow_line_names_see_thru_and_http_fields_as_the_incumbent_does() {
    let mut full = flow_line();
    full.rescued = Some(true);
    full.see_thru_exerted = Some(true);
    full.see_thru_gid = Some(Text::from_static("%default"));
    full.see_thru_days_remaining = Some(12);
    full.would_reason = Some(Text::from_static("name_not_allowed"));
    full.http_method = Some(Text::from_static("GET"));
    full.http_path = Some(Text::from_static("/ca.crl"));
    full.http_user_agent = Some(Text::from_static("curl/8"));
    full.http_code = Some(200);
    let text = line(&full);
    let tail = text.split_once(r#""pqc":true,"#).unwrap().1;
    insta::assert_snapshot!(tail, @r#"
    "rescued":true,"see_thru_exerted":true,"see_thru_gid":"%default","see_thru_days_remaining":12,"would_reason":"name_not_allowed","http_method":"GET","http_path":"/ca.crl","http_user_agent":"curl/8","http_code":200}
    "#);
}

#[test]
fn end_line_is_the_flow_line_and_its_counters() {
    let mut flow = flow_line();
    flow.cat = FlowCat::End;
    let end = EndLineV1 {
        flow,
        bytes_out: 1_200,
        bytes_in: 64_000,
        packets_out: 12,
        packets_in: 50,
        duration_ms: 1_500,
    };
    let text = line(&end);
    assert!(
        text.starts_with(r#"{"time":"2026-11-22T11:08:25.042Z","cat":"end","#),
        "{text}"
    );
    assert!(
        text.ends_with(
            "\"pqc\":true,\"bytes_out\":1200,\"bytes_in\":64000,\"packets_out\":12,\
             \"packets_in\":50,\"duration_ms\":1500}\n"
        ),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<EndLineV1>(&text).unwrap(), end);
}

#[test]
fn dns_line_has_the_published_fields() {
    let record = DnsLineV1 {
        time: Timestamp::from_unix_ms(0),
        cat: DnsCat::Dns,
        outcome: FlowOutcome::Disallowed,
        reason: Text::from_static("name_not_allowed"),
        dhost: "evil.example".into(),
        src: [10, 10, 0, 5].into(),
        spt: 5_353,
        instance: None,
        qtype: Text::from_static("A"),
        rcode: Text::from_static("NXDOMAIN"),
        answers: Vec::new(),
        would_reason: None,
        generation: 7,
        policy_id: "0123456789abcdef".into(),
        appliance: "i-0fff".into(),
    };
    insta::assert_snapshot!(line(&record), @r#"
    {"time":"1970-01-01T00:00:00.000Z","cat":"dns","outcome":"disallowed","reason":"name_not_allowed","dhost":"evil.example","src":"10.10.0.5","spt":5353,"qtype":"A","rcode":"NXDOMAIN","answers":[],"generation":7,"policy_id":"0123456789abcdef","appliance":"i-0fff"}
    "#);
}

#[test]
fn config_line_has_the_published_fields() {
    let record = ConfigLineV1 {
        time: Timestamp::from_unix_ms(1_795_345_705_042),
        cat: ConfigCat::SeeThru,
        outcome: Text::from_static("accepted"),
        detail: ConfigDetailV1 {
            gid: Some("sg-0abc".into()),
            rule: Some("sgr-0123".into()),
            until: Some("2026-12-24".into()),
            ..ConfigDetailV1::default()
        },
        generation: 7,
        policy_id: "0123456789abcdef".into(),
        appliance: "i-0fff".into(),
    };
    insta::assert_snapshot!(line(&record), @r#"
    {"time":"2026-11-22T11:08:25.042Z","cat":"see-thru","outcome":"accepted","gid":"sg-0abc","rule":"sgr-0123","until":"2026-12-24","generation":7,"policy_id":"0123456789abcdef","appliance":"i-0fff"}
    "#);
}

#[test]
fn terminal_sequences_and_line_separators_are_escaped() {
    let text = Text::from_bytes("a\"\\\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}😀\n".as_bytes());
    assert_eq!(
        line(&text),
        "\"a\\\"\\\\\\u001b[2J\\u007f\\u009b\\u202e\\u2028\\ud83d\\ude00\\n\"\n"
    );
}

#[test]
fn time_is_found_wherever_it_stands_in_a_line() {
    let time = peek_time(br#"{"cat":"client","time":"2026-11-22T12:08:25.042+01:00"}"#).unwrap();
    assert_eq!(time.unix_ms(), 1_795_345_705_042);
    assert_eq!(peek_time(br#"{"cat":"client"}"#), None);
    assert_eq!(peek_time(b"\xff"), None);
}

proptest! {
    #[test]
    fn any_bytes_make_a_text_that_fits_and_a_line_of_printable_ascii(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let text = Text::from_bytes(&bytes);
        prop_assert!(text.as_str().len() <= TEXT_BYTES_MAX);
        let mut record = flow_line();
        record.dhost = text;
        let made = to_line(&record).unwrap();
        let (end, body) = made.split_last().unwrap();
        prop_assert_eq!(*end, b'\n');
        prop_assert!(body.iter().all(|byte| (b' '..=b'~').contains(byte)));
        let read: FlowLineV1 = serde_json::from_slice(body).unwrap();
        prop_assert_eq!(read, record);
    }

    #[test]
    fn text_keeps_valid_utf8_up_to_the_cap(text in "\\PC{0,300}") {
        let kept = Text::from(text.as_str());
        prop_assert!(text.starts_with(kept.as_str()));
        prop_assert!(kept.as_str().len() + 4 > TEXT_BYTES_MAX.min(text.len()));
        prop_assert_eq!(&Text::from(text.clone()), &kept);
        prop_assert_eq!(&Text::from_bytes(text.as_bytes()), &kept);
    }

    #[test]
    fn timestamps_read_as_the_calendar_says(ms in 0..=253_402_300_799_999_u64) {
        let nanos = i128::from(ms) * 1_000_000;
        let time = time::OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap();
        let expected = format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            time.year(), u8::from(time.month()), time.day(), time.hour(), time.minute(), time.second(), time.millisecond(),
        );
        prop_assert_eq!(Timestamp::from_unix_ms(ms).to_string(), expected);
    }

    #[test]
    fn timestamps_survive_a_round_trip(ms in 0..=253_402_300_799_999u64) {
        let time = Timestamp::from_unix_ms(ms);
        prop_assert_eq!(Timestamp::parse(&time.to_string()).unwrap(), time);
    }
}
