use super::*;
use crate::preferences::{AddressRules, FlowLogVerbosity, Quic};
use crate::{Entry, FaultKind};

/// The example of the documentation.
const EXAMPLE: &str = r#"served = ["10.0.0.0/8"]          # optional

[preferences]
flow_log_verbosity = "full"

[[group]]
id = "web"                       # what logs show as gid
  [[group.rule]]
  description = "postern:tls:api.github.com,*.example.org"
  protocol = "tcp"               # tcp | udp | all
  ports = "443"                  # "443", "8000-8100", "all"
  cidr = "0.0.0.0/0"

[[client]]
address = "10.0.1.5"             # address or CIDR, v4 or v6
instance = "web-1"
groups = ["web"]
"#;

fn no_lists(_: &ListReference) -> ListBody {
    Err("there are no lists here".to_owned())
}

fn whole(text: &str) -> Result<Draft, InvalidInventory> {
    read(text, Scope::Whole, &mut no_lists)
}

fn refusal(text: &str) -> String {
    whole(text).expect_err(text).to_string()
}

#[test]
fn the_documented_example_is_read_as_documented() {
    let draft = whole(EXAMPLE).unwrap();
    assert_eq!(draft.faults, []);
    assert_eq!(draft.preferences.flow_log_verbosity, FlowLogVerbosity::Full);
    assert_eq!(draft.served, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(draft.groups.len(), 1);
    let rule = &draft.groups[0].rules[0];
    assert_eq!(
        (rule.rule.as_str(), rule.ports),
        ("1", PortRange::single(443))
    );
    assert_eq!(rule.entries.len(), 2);
    assert_eq!(draft.clients[0].net, "10.0.1.5/32".parse().unwrap());
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_a_suggestion() {
    let text = EXAMPLE.replace("address = ", "adress = ");
    assert_eq!(
        refusal(&text),
        "line 15: unknown key \"adress\": did you mean \"address\"?"
    );
    assert_eq!(refusal("colour = 1"), "line 1: unknown key \"colour\"");
    assert_eq!(
        refusal("[preferences]\nquick = \"refuse\""),
        "line 2: unknown key \"quick\": did you mean \"quic\"?"
    );
    let text = EXAMPLE.replace("  ports", "  port");
    assert_eq!(
        refusal(&text),
        "line 11: unknown key \"port\": did you mean \"ports\"?"
    );
}

/// What is replaced in the example, by what, and how the refusal begins.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "protocol = \"tcp\"",
        "protocol = \"icmp\"",
        "line 10: protocol \"icmp\": expected tcp, udp or all",
    ),
    (
        "ports = \"443\"",
        "ports = \"https\"",
        "line 11: ports: \"https\" is not a port",
    ),
    (
        "cidr = \"0.0.0.0/0\"",
        "cidr = \"0.0.0.1/0\"",
        "line 12: \"0.0.0.1/0\" has bits behind",
    ),
    (
        "10.0.1.5",
        "10.0.1",
        "line 15: \"10.0.1\" is not an address",
    ),
    (
        "[\"web\"]",
        "[\"wbe\"]",
        "line 17: unknown group \"wbe\": did you mean \"web\"?",
    ),
    (
        "[\"web\"]",
        "\"web\"",
        "line 17: groups: expected a list, found string",
    ),
    (
        "[\"web\"]",
        "[1]",
        "line 17: groups: expected a string, found integer",
    ),
    (
        "id = \"web\"",
        "id = \"\"",
        "line 7: a group's id is not empty",
    ),
    (
        "id = \"web\"",
        "id = \"%default\"",
        "line 7: a group's id is not empty",
    ),
    (
        "\"full\"",
        "\"loud\"",
        "line 4: flow_log_verbosity: unknown word \"loud\"",
    ),
    (
        "\"full\"",
        "true",
        "line 4: flow_log_verbosity: expected a string",
    ),
    (
        "[\"10.0.0.0/8\"]",
        "[\"10.0.0.0/40\"]",
        "line 1: \"10.0.0.0/40\" is not an address",
    ),
    ("instance = \"web-1\"", "instance = ", "line 16: "),
    (
        "  protocol = \"tcp\"",
        "",
        "line 8: missing key \"protocol\"",
    ),
    ("groups = [\"web\"]", "", "line 14: missing key \"groups\""),
];

#[test]
fn every_mistake_names_its_line() {
    for (from, to, expected) in MISTAKES {
        let text = EXAMPLE.replacen(from, to, 1);
        assert_ne!(text, EXAMPLE, "{from}");
        assert!(
            refusal(&text).starts_with(expected),
            "{}\nis not\n{expected}",
            refusal(&text)
        );
    }
}

#[test]
fn two_groups_with_one_id_are_refused() {
    let text = format!("{EXAMPLE}\n[[group]]\nid = \"web\"\n");
    assert_eq!(
        refusal(&text),
        "line 20: duplicate group id \"web\", first on line 7"
    );
}

#[test]
fn a_mistake_in_a_description_is_a_fault_and_not_a_broken_inventory() {
    let draft = whole(&EXAMPLE.replace("api.github.com", "api..com")).unwrap();
    assert_eq!(draft.groups[0].rules[0].entries.len(), 1);
    let fault = &draft.faults[0];
    assert_eq!(
        fault.to_string(),
        "web rule 1 column 13: \"api..com\": a label is empty"
    );
}

#[test]
fn without_served_the_private_prefixes_and_every_client_are_served() {
    let text = EXAMPLE
        .replace("served = [\"10.0.0.0/8\"]", "")
        .replace("10.0.1.5", "203.0.113.7");
    let served = whole(&text).unwrap().served;
    assert_eq!(served.len(), PRIVATE_PREFIXES.len() + 1);
    assert!(served.contains(&"203.0.113.7/32".parse().unwrap()));
}

#[test]
fn ports_may_be_a_number_and_a_date_may_be_a_date() {
    let text = EXAMPLE
        .replace("ports = \"443\"", "ports = 443")
        .replace("flow_log_verbosity = \"full\"", "see_thru = 2027-01-31");
    let draft = whole(&text).unwrap();
    assert_eq!(draft.groups[0].rules[0].ports, PortRange::single(443));
    assert_eq!(
        draft.preferences.see_thru.unwrap().to_string(),
        "2027-01-31"
    );
}

#[test]
fn preferences_decide_about_descriptions_wherever_they_stand() {
    let address = EXAMPLE
        .replace("tls:api.github.com,*.example.org", "address:ntp")
        .replace("cidr = \"0.0.0.0/0\"", "cidr = \"192.0.2.0/24\"");
    assert_eq!(
        whole(&address).unwrap().faults[0].kind,
        FaultKind::AddressRules
    );
    let allowed = address.replace("flow_log_verbosity = \"full\"", "address_rules = \"allow\"");
    let draft = whole(&allowed).unwrap();
    assert_eq!(draft.preferences.address_rules, AddressRules::Allow);
    assert_eq!(
        draft.groups[0].rules[0].entries,
        [Entry::Address {
            comment: Some("ntp".to_owned())
        }]
    );
}

#[test]
fn an_overlay_names_the_clouds_groups_and_changes_its_preferences() {
    let preferences = Preferences {
        quic: Quic::Inspect,
        ..Preferences::default()
    };
    let text = "[preferences]\nech = \"allow_outer\"\n[[client]]\naddress = \"172.16.0.0/16\"\ngroups = [\"sg-1\"]\n";
    let draft = read(text, Scope::Overlay(&preferences), &mut no_lists).unwrap();
    assert_eq!(draft.preferences.quic, Quic::Inspect);
    assert_eq!(draft.preferences.ech.as_str(), "allow_outer");
    assert_eq!(draft.clients[0].groups, ["sg-1"]);
    assert_eq!(draft.served, []);
}

#[test]
fn lists_are_files_beside_the_inventory() {
    let directory = std::env::temp_dir().join(format!("policy-inventory-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("inventory.toml");
    std::fs::write(directory.join("team.txt"), "a.example.com\nb..example\n").unwrap();
    let text = EXAMPLE.replace("*.example.org", "@team.txt,@absent.txt");
    std::fs::write(&path, text).unwrap();
    let draft = read_file(&path, Scope::Whole).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(draft.groups[0].rules[0].entries.len(), 2);
    let kinds: Vec<_> = draft.faults.iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, [FaultKind::InvalidName, FaultKind::ListUnreadable]);
    assert_eq!(
        draft.faults[0].to_string(),
        "web rule 1 list @team.txt line 2 column 1: \"b..example\": a label is empty"
    );
}

#[test]
fn a_file_that_is_not_there_is_an_error_of_reading() {
    let error = read_file(Path::new("/nonexistent/inventory.toml"), Scope::Whole).unwrap_err();
    assert!(matches!(error, InventoryError::Read(_)));
}

#[test]
fn an_empty_inventory_allows_nothing_and_is_no_mistake() {
    let draft = whole("").unwrap();
    assert!(draft.groups.is_empty() && draft.clients.is_empty());
}
