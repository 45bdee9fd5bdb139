use super::*;
use crate::inventory::{Scope, read};

const OLD: &str = r#"
[[group]]
id = "web"
[[group.rule]]
description = "postern:tls:a.example.com,b.example.com"
protocol = "tcp"
ports = "443"

[[client]]
address = "10.0.1.5"
instance = "web-1"
groups = ["web"]
"#;

fn draft(text: &str) -> Draft {
    read(text, Scope::Whole, &mut |_| Ok("c.example.com".into())).unwrap()
}

fn outcomes(changes: &[ConfigChange]) -> Vec<(Category, &str, &str)> {
    changes
        .iter()
        .map(|change| {
            let what = change.addr.as_deref().or(change.client.as_deref());
            (
                change.cat,
                change.outcome.as_str(),
                what.or(change.list.as_deref()).unwrap_or(""),
            )
        })
        .collect()
}

#[test]
fn nothing_changed_is_no_line() {
    assert_eq!(diff(Some(&draft(OLD)), &draft(OLD)), []);
}

#[test]
fn the_first_policy_is_new_as_a_whole() {
    let changes = diff(None, &draft(OLD));
    assert_eq!(
        outcomes(&changes),
        [
            (Category::Addr, ACCEPTED, "a.example.com"),
            (Category::Addr, ACCEPTED, "b.example.com"),
            (Category::Client, ACCEPTED, "10.0.1.5"),
        ]
    );
    assert_eq!(changes[0].gid.as_deref(), Some("web"));
    assert_eq!(changes[0].rule.as_deref(), Some("1"));
    assert_eq!(changes[0].proto.as_deref(), Some("tls"));
    assert_eq!(changes[2].instance.as_deref(), Some("web-1"));
}

#[test]
fn each_effective_change_is_one_line_and_removals_come_first() {
    let new = OLD
        .replace("b.example.com", "*.example.org,*.github.io,@team")
        .replace("10.0.1.5", "10.0.1.6")
        + "[preferences]\nquic = \"inspect\"\nsee_thru = \"2027-01-31\"\n";
    let changes = diff(Some(&draft(OLD)), &draft(&new));
    assert_eq!(
        outcomes(&changes),
        [
            (Category::Addr, REMOVED, "b.example.com"),
            (Category::Client, REMOVED, "10.0.1.5"),
            (Category::Addr, ACCEPTED, "*.example.org"),
            (Category::Addr, ACCEPTED, "c.example.com"),
            (Category::Client, ACCEPTED, "10.0.1.6"),
            (Category::List, ACCEPTED, "team"),
            (Category::SeeThru, ACCEPTED, "see_thru=2027-01-31"),
            (Category::Preference, ACCEPTED, "quic=inspect"),
            (
                Category::Fault,
                "publicsuffix[.]org list matched with `github.io`",
                "*.github.io"
            ),
        ]
    );
    let back = diff(Some(&draft(&new)), &draft(OLD));
    assert!(
        back.iter()
            .any(|change| change.cat == Category::SeeThru && change.outcome == REMOVED)
    );
    assert!(back.iter().all(|change| change.cat != Category::Fault));
}

#[test]
fn a_group_see_thru_and_a_pin_are_told_as_they_are_written() {
    let pin = format!("SHA256:{}", "A".repeat(43));
    let new = OLD.replace(
        "tls:a.example.com,b.example.com",
        &format!("ssh:git.example.com={pin}"),
    );
    let changes = diff(None, &draft(&new));
    assert_eq!(changes[0].addr, Some(format!("git.example.com={pin}")));
    let new = OLD.replace("tls:a.example.com,b.example.com", "see-thru:2027-1-31");
    let changes = diff(None, &draft(&new));
    assert_eq!(
        outcomes(&changes)[1],
        (Category::SeeThru, ACCEPTED, "2027-01-31")
    );
}

#[test]
fn only_what_differs_is_a_line_however_much_stays() {
    let mut old = draft(OLD);
    let group = |number: u32| {
        let mut group = old.groups[0].clone();
        group.gid = format!("web-{number}");
        group
    };
    let more: Vec<_> = (0..50).map(group).collect();
    old.groups.extend(more);
    let mut new = old.clone();
    // The order of a draft that is not compiled yet means nothing.
    new.groups.reverse();
    assert_eq!(diff(Some(&old), &new), []);
    new.groups[7].rules[0].entries.truncate(1);
    let mut second = new.clients[0].clone();
    second.instance = "web-2".to_owned();
    new.clients.push(second);
    assert_eq!(
        outcomes(&diff(Some(&old), &new)),
        [
            (Category::Addr, REMOVED, "b.example.com"),
            (Category::Client, ACCEPTED, "10.0.1.5"),
        ]
    );
}
