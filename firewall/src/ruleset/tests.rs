use std::collections::BTreeSet;
use std::fmt::Write;

use super::*;

fn full() -> Layout {
    Layout {
        queues: 4,
        uplink: Some("ens6".to_owned()),
        flowtable: vec!["ens5".to_owned(), "ens6".to_owned()],
        served: vec![
            "10.0.0.0/8".parse().unwrap(),
            "10.1.0.0/16".parse().unwrap(),
            "fd00:1::/64".parse().unwrap(),
        ],
        users: Users {
            daemon: 990,
            resolving: vec![991],
            connecting: vec![992, 123],
            metadata: vec![992],
        },
        ..Layout::default()
    }
}

fn shim() -> Layout {
    Layout {
        queue_form: QueueForm::IptablesShim,
        ..Layout::default()
    }
}

/// One object a line, so that a change shows as the lines it changes.
fn golden(layout: &Layout) -> String {
    let ruleset = Ruleset::render(layout);
    let mut text = String::new();
    for object in ruleset.objects() {
        writeln!(text, "{object}").unwrap();
    }
    for command in ruleset.shim().into_iter().flat_map(Shim::apply) {
        writeln!(text, "{} {}", command.program, command.arguments.join(" ")).unwrap();
    }
    text
}

#[test]
fn rendered_rulesets_are_those_reviewed() {
    insta::assert_snapshot!("native", golden(&full()));
    insta::assert_snapshot!("shim", golden(&shim()));
}

/// The objects of a kind.
fn those(ruleset: &Ruleset, kind: &str) -> Vec<Value> {
    let objects = ruleset.objects().map(serde_json::from_str::<Value>);
    objects
        .filter_map(|object| object.unwrap().get(kind).cloned())
        .collect()
}

fn rules(ruleset: &Ruleset, chain: &str) -> Vec<Value> {
    let mut rules = those(ruleset, "rule");
    rules.retain(|rule| rule.get("chain").unwrap() == chain);
    rules
}

#[test]
fn conntrack_state_is_the_first_thing_that_can_drop() {
    let ruleset = Ruleset::render(&full());
    let early = rules(&ruleset, "early");
    assert!(early[0].to_string().contains("mangle"));
    assert!(early[1].to_string().contains(r#"["invalid","untracked"]"#));
}

#[test]
fn stale_syn_is_found_before_the_judged_mark_is_honoured() {
    let ruleset = Ruleset::render(&full());
    let place = |chain: &str, comment: &str| {
        rules(&ruleset, chain)
            .iter()
            .position(|rule| rule.get("comment").unwrap() == comment)
            .unwrap()
    };
    let judged = place("early", "judged");
    assert!(place("early", "first of its connection") < judged);
    assert!(place("early", "of another flow") < judged);
    let stale = place(
        "bare_syn",
        "old entry: the daemon deletes it and drops the SYN",
    );
    assert!(place("bare_syn", "split handshake") < stale);
    place("related", "errors about a flow are not the flow");
}

#[test]
fn last_chain_drops_by_policy_and_stops_what_was_not_queued_first() {
    let ruleset = Ruleset::render(&full());
    let chains = those(&ruleset, "chain");
    let decide = chains
        .iter()
        .find(|chain| chain.get("name").unwrap() == "decide");
    assert_eq!(decide.unwrap().get("policy").unwrap(), "drop");
    let first = rules(&ruleset, "decide")[0].to_string();
    assert!(
        first.contains("not_queued") && first.contains("1792"),
        "{first}"
    );
}

#[test]
fn queue_statement_never_bypasses_and_never_fans_out() {
    let native = golden(&full());
    assert!(native.contains(r#"{"queue":{"num":{"range":[0,3]}}}"#));
    for layout in [full(), shim()] {
        let text = golden(&layout);
        assert!(!text.contains("\"bypass\"") && !text.contains("\"fanout\""));
        assert!(!text.contains("--queue-bypass") && !text.contains("fanout\n"));
    }
}

#[test]
fn one_queue_is_no_range() {
    let text = golden(&Layout {
        queues: 1,
        ..full()
    });
    assert!(text.contains(r#"{"queue":{"num":0}}"#));
    let Some(shim) = Ruleset::render(&shim()).shim().cloned() else {
        panic!("no shim");
    };
    assert!(
        shim.apply()[0]
            .arguments
            .join(" ")
            .ends_with("--queue-num 0")
    );
    let balanced = Shim::new(4).apply()[1].arguments.join(" ");
    assert!(balanced.ends_with("--queue-balance 0:3"), "{balanced}");
}

#[test]
fn every_counter_is_counted_by_some_rule_and_no_other_is() {
    let layout = Layout {
        ipv6_egress: Ipv6Egress::Off,
        ..full()
    };
    let ruleset = Ruleset::render(&layout);
    let rules = those(&ruleset, "rule");
    let counted: BTreeSet<&str> = rules
        .iter()
        .flat_map(|rule| rule.get("expr").unwrap().as_array().unwrap())
        .filter_map(|statement| statement.get("counter")?.as_str())
        .collect();
    let known: BTreeSet<&str> = Counter::ALL.into_iter().map(Counter::name).collect();
    assert_eq!(counted, known);
}

#[test]
fn everything_that_drops_counts() {
    let ruleset = Ruleset::render(&full());
    for rule in those(&ruleset, "rule") {
        let text = rule.to_string();
        assert!(
            !text.contains("\"drop\"") || text.contains("\"counter\""),
            "{text}"
        );
    }
}

#[test]
fn stripped_kinds_are_all_but_those_of_plain_tcp() {
    let stripped: Vec<u8> = options::stripped_kinds().collect();
    assert_eq!(stripped.len(), 249);
    for kind in [0, 1, 2, 3, 4, 5, 8] {
        assert!(!stripped.contains(&kind));
    }
    for kind in [6, 7, 9, 19, 30, 34, 253, 254, 255] {
        assert!(stripped.contains(&kind));
    }
}

#[test]
fn no_rule_exceeds_the_kernels_number_of_expressions() {
    // NFT_RULE_MAXEXPRS is 128; a statement of ours is at most three expressions, a strip is one.
    let ruleset = Ruleset::render(&full());
    for rule in those(&ruleset, "rule") {
        let statements = rule.get("expr").unwrap().as_array().unwrap();
        assert!(statements.len() <= 120);
    }
}

#[test]
fn nested_served_prefixes_are_merged() {
    let text = golden(&full());
    assert!(text.contains(r#""elem":[{"prefix":{"addr":"10.0.0.0","len":8}}]"#));
    let single = replace_served(&["192.0.2.1/32".parse().unwrap()]);
    assert!(single.contains(r#""elem":["192.0.2.1"]"#), "{single}");
}

/// What nftables makes of a rendered ruleset when it lists it.
fn listed(ruleset: &Ruleset) -> Value {
    let mut objects = vec![json!({"metainfo": {"version": "1.1.3"}})];
    for (handle, object) in ruleset.objects().enumerate() {
        let mut object: Value = serde_json::from_str(object).unwrap();
        for (kind, fields) in object.as_object_mut().unwrap() {
            let fields = fields.as_object_mut().unwrap();
            fields.insert("handle".to_owned(), json!(handle));
            if kind == "counter" {
                fields.insert("packets".to_owned(), json!(7));
                fields.insert("bytes".to_owned(), json!(700));
            }
            if kind == "set" {
                fields.remove("elem");
            }
        }
        objects.push(object);
    }
    json!({"nftables": objects})
}

#[test]
fn handles_counts_and_the_order_of_kinds_are_no_difference() {
    let ruleset = Ruleset::render(&full());
    let mut listing = listed(&ruleset);
    assert_eq!(ruleset.differences(&listing.to_string()).unwrap(), []);
    // 1.1.3 prints chains before counters, flags or-ed, and `dynamic` on its own.
    let text = listing
        .to_string()
        .replace(
            r#"["fin","syn","rst","ack"]"#,
            r#"{"|":["fin","syn","rst","ack"]}"#,
        )
        .replace(r#""flags":["timeout"]"#, r#""flags":["timeout","dynamic"]"#)
        .replace(
            r#"{"key":"l4proto"}},"op":"==","right":6"#,
            r#"{"key":"l4proto"}},"op":"==","right":"tcp""#,
        );
    listing = serde_json::from_str(&text).unwrap();
    let objects = listing.get_mut("nftables").unwrap().as_array_mut().unwrap();
    objects.sort_by_key(|object| object.get("rule").is_some() || object.get("set").is_some());
    assert_eq!(ruleset.differences(&listing.to_string()).unwrap(), []);
}

#[test]
fn any_change_of_any_object_is_a_difference() {
    let whole = Ruleset::render(&full());
    // A few objects at a time, and none of the long rules: two hundred comparisons of all would take half a minute.
    let short: Vec<String> = whole
        .objects()
        .filter(|object| object.len() <= 4_000)
        .map(str::to_owned)
        .collect();
    for objects in short.chunks(24) {
        let ruleset = Ruleset {
            objects: objects.to_vec(),
            shim: None,
        };
        let listing = listed(&ruleset);
        let objects = listing.get("nftables").unwrap().as_array().unwrap();
        let differs = |objects: Vec<Value>| {
            let listing = json!({"nftables": objects}).to_string();
            !ruleset.differences(&listing).unwrap().is_empty()
        };
        assert!(!differs(objects.clone()));
        for place in 1..objects.len() {
            let mut without = objects.clone();
            let removed = without.remove(place);
            let mut twice = objects.clone();
            twice.push(removed.clone());
            assert!(differs(without) && differs(twice), "{removed}");
        }
    }
    let changed = listed(&whole)
        .to_string()
        .replacen("\"drop\":null", "\"accept\":null", 1);
    assert_eq!(whole.differences(&changed).unwrap().len(), 2);
}

#[test]
fn exchanged_rules_are_a_difference() {
    let ruleset = Ruleset::render(&full());
    let mut listing = listed(&ruleset);
    let objects = listing.get_mut("nftables").unwrap().as_array_mut().unwrap();
    let last = objects.len() - 1;
    objects.swap(last, last - 1);
    let differences = ruleset.differences(&listing.to_string()).unwrap();
    assert!(!differences.is_empty());
}

#[test]
fn repair_deletes_nothing_and_flushes_every_chain() {
    let ruleset = Ruleset::render(&full());
    let text = ruleset.repair();
    assert!(!text.contains("\"delete\""));
    let chains = those(&ruleset, "chain");
    assert_eq!(text.matches("\"flush\"").count(), chains.len());
}
