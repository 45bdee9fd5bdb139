use std::os::unix::fs::PermissionsExt;

use policy::{Client, Fault, FaultKind};

use super::*;

fn draft(instance: &str) -> Draft {
    let client = Client {
        net: "10.0.0.1/32".parse().unwrap(),
        instance: instance.to_owned(),
        groups: Vec::new(),
    };
    Draft {
        clients: vec![client],
        ..Draft::default()
    }
}

fn instance(store: &PolicyStore) -> Option<String> {
    let policy = store.current().load();
    let client = policy.client("10.0.0.1".parse().unwrap())?;
    Some(policy.instance(client).to_owned())
}

#[test]
fn without_a_policy_nothing_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let (store, found) = PolicyStore::open(dir.path()).unwrap();
    assert!(!found.in_force && found.faults.is_empty());
    assert_eq!(
        (store.current().load().generation(), instance(&store)),
        (0, None)
    );
}

#[test]
fn generation_counts_changes_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = PolicyStore::open(dir.path()).unwrap();
    assert_eq!(store.adopt(draft("a"), 1).unwrap().snapshot.generation(), 1);
    let again = store.adopt(draft("a"), 2).unwrap();
    assert_eq!((again.snapshot.generation(), again.changed), (1, false));
    assert_eq!(store.adopt(draft("b"), 3).unwrap().snapshot.generation(), 2);
    drop(store);
    let (mut store, found) = PolicyStore::open(dir.path()).unwrap();
    assert!(found.in_force);
    assert_eq!(
        (store.adopted_unix_ms(), instance(&store)),
        (Some(3), Some("b".to_owned()))
    );
    assert_eq!(store.adopt(draft("c"), 4).unwrap().snapshot.generation(), 3);
    let mode = fs::metadata(dir.path().join("snapshot.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn broken_snapshot_falls_back_to_the_previous_one_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = PolicyStore::open(dir.path()).unwrap();
    store.adopt(draft("a"), 1).unwrap();
    store.adopt(draft("b"), 2).unwrap();
    fs::write(dir.path().join("snapshot.json"), b"{\"version\":1,\"gener").unwrap();
    let (store, found) = PolicyStore::open(dir.path()).unwrap();
    assert_eq!((found.in_force, found.faults.len()), (true, 1));
    assert_eq!(instance(&store), Some("a".to_owned()));
}

#[test]
fn snapshot_of_a_later_build_falls_back_and_its_generation_is_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = PolicyStore::open(dir.path()).unwrap();
    store.adopt(draft("a"), 1).unwrap();
    store.adopt(draft("b"), 2).unwrap();
    let later = b"{\"version\":99,\"generation\":41,\"snapshot\":{\"new\":true}}";
    fs::write(dir.path().join("snapshot.json"), later).unwrap();
    let (mut store, found) = PolicyStore::open(dir.path()).unwrap();
    assert!(found.in_force);
    assert_eq!(instance(&store), Some("a".to_owned()));
    assert_eq!(
        store.adopt(draft("c"), 3).unwrap().snapshot.generation(),
        42
    );
}

#[test]
fn edited_snapshot_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = PolicyStore::open(dir.path()).unwrap();
    store.adopt(draft("a"), 1).unwrap();
    let path = dir.path().join("snapshot.json");
    let edited = fs::read_to_string(&path)
        .unwrap()
        .replace("10.0.0.1", "10.0.0.2");
    fs::write(&path, edited).unwrap();
    let (_, found) = PolicyStore::open(dir.path()).unwrap();
    assert!(!found.in_force);
    assert!(found.faults[0].contains("policy_id"), "{:?}", found.faults);
}

#[test]
fn new_faults_alone_are_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = PolicyStore::open(dir.path()).unwrap();
    store.adopt(draft("a"), 1).unwrap();
    let mut faulty = draft("a");
    faulty.faults.push(Fault::new(
        "sg-1",
        FaultKind::EmptyEntry,
        "",
        "nothing there",
    ));
    let adoption = store.adopt(faulty, 2).unwrap();
    assert_eq!(
        (adoption.changed, adoption.snapshot.generation()),
        (false, 1)
    );
    assert_eq!(store.current().load().draft().faults.len(), 1);
}

#[test]
fn policy_that_cannot_be_kept_is_not_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = PolicyStore::open(dir.path()).unwrap();
    store.adopt(draft("a"), 1).unwrap();
    fs::create_dir(dir.path().join("snapshot.json.new")).unwrap();
    assert!(matches!(
        store.adopt(draft("b"), 2),
        Err(AdoptError::Write { .. })
    ));
    assert_eq!(instance(&store), Some("a".to_owned()));
}

#[test]
fn a_policy_nobody_holds_is_freed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = PolicyStore::open(dir.path()).unwrap();
    let first = store.adopt(draft("a"), 1).unwrap().snapshot;
    let policy = Arc::downgrade(&first);
    store.adopt(draft("b"), 2).unwrap();
    store.free_retired();
    assert_eq!(store.retired.len(), 1, "somebody holds it");
    drop(first);
    assert!(
        policy.upgrade().is_some(),
        "it is not freed by whoever lets go of it last"
    );
    store.free_retired();
    assert!(policy.upgrade().is_none() && store.retired.is_empty());
}

#[test]
fn a_published_document_is_kept_as_it_came_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = PolicyStore::open(dir.path()).unwrap();
    let json = SnapshotV1::from(&draft("a")).to_json().unwrap();
    let document: Arc<[u8]> = json
        .replace(",\"clients\"", ", \"clients\"")
        .into_bytes()
        .into();
    let published = ipc::snapshot::read_draft(&document).unwrap();
    let writing = store.begin(Arc::clone(&document), 7);
    let adopted = store.adopt_published(published.clone(), writing).unwrap();
    assert_eq!((adopted.snapshot.generation(), adopted.changed), (1, true));
    // The same again is no change, and leaves no file behind.
    let writing = store.begin(document, 8);
    assert!(!store.adopt_published(published, writing).unwrap().changed);
    assert!(!dir.path().join("snapshot.json.new").exists());
    drop(store);
    let (store, found) = PolicyStore::open(dir.path()).unwrap();
    assert!(
        found.in_force && found.faults.is_empty(),
        "{:?}",
        found.faults
    );
    assert_eq!(
        (instance(&store), store.adopted_unix_ms()),
        (Some("a".to_owned()), Some(7))
    );
    assert_eq!(
        store.current().load().policy_id(),
        adopted.snapshot.policy_id()
    );
}

#[test]
fn a_document_that_is_refused_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = PolicyStore::open(dir.path()).unwrap();
    store.adopt(draft("a"), 1).unwrap();
    drop(store.begin(Arc::from(&b"{"[..]), 2).unwrap());
    assert!(!dir.path().join("snapshot.json.new").exists());
    assert_eq!(store.adopt(draft("b"), 3).unwrap().snapshot.generation(), 2);
}
