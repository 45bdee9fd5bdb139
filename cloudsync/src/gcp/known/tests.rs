use super::*;

fn zone() -> Scope {
    Scope {
        project: "p".into(),
        zone: "europe-west1-b".into(),
    }
}

fn nic(instance: &str, tag: &str, net: &str) -> Nic {
    Nic {
        scope: zone(),
        instance: instance.into(),
        name: "nic0".into(),
        network: "p/n".into(),
        tags: vec![tag.into()],
        accounts: Vec::new(),
        nets: vec![net.parse().unwrap()],
    }
}

fn inventory(nics: &[Nic]) -> Inventory {
    Inventory {
        nics: nics.to_vec(),
        ..Inventory::default()
    }
}

fn known() -> Known {
    Known::new(["p/n".to_owned()].into(), Vec::new(), Vec::new())
}

fn machine(found: &[Nic]) -> BTreeMap<Machine, Vec<Nic>> {
    let name = found.first().unwrap().instance.clone();
    [((zone(), name), found.to_vec())].into()
}

fn tags(known: &Known) -> Vec<(String, String, usize)> {
    let nics = known.nics.values().flatten();
    nics.map(|nic| (nic.instance.clone(), nic.tags[0].clone(), nic.nets.len()))
        .collect()
}

#[test]
fn what_was_looked_up_while_every_machine_was_read_is_not_forgotten() {
    let mut known = known();
    let asked = Instant::now();
    known.put_inventory(inventory(&[]), asked).unwrap();
    let later = asked + Duration::from_millis(1);
    known.put_machines(machine(&[nic("a", "new", "10.0.0.1/32")]), later);
    // A reading asked for before that, and one after.
    let old = [nic("a", "old", "10.0.0.1/32"), nic("b", "b", "10.0.0.2/32")];
    known.put_inventory(inventory(&old), asked).unwrap();
    assert_eq!(
        tags(&known),
        [("a".into(), "new".into(), 1), ("b".into(), "b".into(), 1)]
    );
    let after = later + Duration::from_millis(1);
    known.put_inventory(inventory(&old[..1]), after).unwrap();
    assert_eq!(tags(&known), [("a".into(), "old".into(), 1)]);
}

#[test]
fn an_answer_that_was_asked_for_earlier_changes_nothing() {
    let mut known = known();
    let asked = Instant::now();
    known.put_inventory(inventory(&[]), asked).unwrap();
    let later = asked + Duration::from_millis(1);
    known.put_machines(machine(&[nic("a", "new", "10.0.0.1/32")]), later);
    known.put_machines(machine(&[nic("a", "old", "10.0.0.1/32")]), asked);
    assert_eq!(tags(&known), [("a".into(), "new".into(), 1)]);
}

#[test]
fn an_address_leaves_its_former_machine_and_a_shared_range_stays_with_both() {
    let mut known = known();
    let asked = Instant::now();
    let both = [nic("a", "a", "10.9.0.0/24"), nic("b", "b", "10.9.0.0/24")];
    known.put_inventory(inventory(&both), asked).unwrap();
    known.put_machines(machine(&[nic("a", "again", "10.9.0.0/24")]), asked);
    assert_eq!(
        tags(&known),
        [("a".into(), "again".into(), 1), ("b".into(), "b".into(), 1)]
    );
    known.put_machines(machine(&[nic("c", "c", "10.9.0.0/24")]), asked);
    let holders: Vec<usize> = tags(&known).iter().map(|(_, _, nets)| *nets).collect();
    assert_eq!(holders, [0, 0, 1]);
}

#[test]
fn a_machine_without_interfaces_is_gone() {
    let mut known = known();
    let asked = Instant::now();
    let both = [nic("a", "a", "10.0.0.1/32"), nic("b", "b", "10.0.0.2/32")];
    known.put_inventory(inventory(&both), asked).unwrap();
    known.put_machines([((zone(), "a".to_owned()), Vec::new())].into(), asked);
    assert_eq!(tags(&known), [("b".into(), "b".into(), 1)]);
}

#[test]
fn an_unchanged_reading_is_not_made_again() {
    let mut known = known();
    let asked = Instant::now();
    let one = [nic("a", "a", "10.0.0.1/32")];
    known.put_inventory(inventory(&one), asked).unwrap();
    assert_eq!(known.reading().interfaces.len(), 1);
    known.put_inventory(inventory(&one), asked).unwrap();
    assert!(known.reading.is_some());
    known.put_machines(machine(&[nic("a", "b", "10.0.0.1/32")]), asked);
    assert!(known.reading.is_none());
}
