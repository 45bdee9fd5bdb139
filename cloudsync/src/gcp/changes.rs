//! Which machines of a zone changed since it was last asked, out of the zone's operations.
//!
//! Whatever changes a machine is an operation
//! (<https://cloud.google.com/compute/docs/api/how-tos/api-requests-responses>: "methods that mutate data … return
//! an Operation"), and a zone lists its newest for one token of its region's quota, where a list of all machines
//! costs two tokens a page of the project's. What operations do not tell, the list of all machines still does.

use std::collections::{BTreeMap, BTreeSet};

use google_cloud_compute_v1::client::ZoneOperations;
use google_cloud_compute_v1::model::Operation;
use google_cloud_compute_v1::model::operation::Status;

use super::error::{call, incomplete};
use super::firewalls::NOTHING_HERE;
use super::instances::Scope;
use super::names;
use crate::cloud::CloudError;

const CALL: &str = "zoneOperations.list";

/// Operations to look back over. Whoever finds nothing familiar among them reads the zone.
const OPERATIONS: usize = 100;

/// Pages to look back over, where the service makes small ones.
const PAGES: u32 = 3;

/// What changes neither who has an address nor what is allowed to whom; most of what happens in a zone is one
/// of these.
const HARMLESS: [&str; 12] = [
    "addAccessConfig",
    "attachDisk",
    "deleteAccessConfig",
    "detachDisk",
    "reset",
    "setDeletionProtection",
    "setDiskAutoDelete",
    "setLabels",
    "setMetadata",
    "setScheduling",
    "setShieldedInstanceIntegrityPolicy",
    "updateAccessConfig",
];

/// What is to be read again of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Changed {
    /// These machines.
    Machines(BTreeSet<String>),
    /// All of it: more happened than the list holds.
    Everything,
}

impl Changed {
    /// This, and what was to be read already.
    pub(super) fn and(self, before: Option<Self>) -> Self {
        match (self, before) {
            (Self::Machines(mut names), Some(Self::Machines(more))) => {
                names.extend(more);
                Self::Machines(names)
            }
            (Self::Machines(names), None) => Self::Machines(names),
            (Self::Everything, _) | (_, Some(Self::Everything)) => Self::Everything,
        }
    }
}

/// One operation, as much of it as matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    id: u64,
    is_done: bool,
    /// The machine it changes; none when it changes nothing that matters.
    machine: Option<String>,
}

/// The newest operations of a zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Newest {
    seen: Vec<Seen>,
    /// Whether there are older ones.
    is_cut: bool,
}

/// What was seen of one zone's operations.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    /// Those that had ended, of the newest.
    done: BTreeSet<u64>,
    /// Those that had not, and what they change.
    running: BTreeMap<u64, Option<String>>,
    is_begun: bool,
}

impl Journal {
    /// Whether this operation was among the newest before.
    fn knows(&self, id: u64) -> bool {
        self.done.contains(&id) || self.running.contains_key(&id)
    }

    /// Whether these newest operations say all there is to say: they go back to one that had ended, and to each
    /// that had not. At first anything will do.
    fn is_told_by(&self, seen: &[Seen]) -> bool {
        let is_listed = |id: &u64| seen.iter().any(|seen| seen.id == *id);
        !self.is_begun
            || (seen.iter().any(|seen| self.done.contains(&seen.id))
                && self.running.keys().all(is_listed))
    }

    /// Takes note of the newest operations, and says what they changed. An operation changes its machine when
    /// it ends, and when nobody can see any more whether it has.
    pub(super) fn note(&mut self, newest: Newest) -> Option<Changed> {
        let is_familiar = newest.seen.iter().any(|seen| self.knows(seen.id));
        let is_missing_some = self.is_begun && newest.is_cut && !is_familiar;
        let listed: BTreeSet<u64> = newest.seen.iter().map(|seen| seen.id).collect();
        let mut machines: BTreeSet<String> = std::mem::take(&mut self.running)
            .into_iter()
            .filter(|(id, _)| !listed.contains(id))
            .filter_map(|(_, machine)| machine)
            .collect();
        let mut done = BTreeSet::new();
        for Seen {
            id,
            is_done,
            machine,
        } in newest.seen
        {
            if !is_done {
                self.running.insert(id, machine);
                continue;
            }
            if !self.done.contains(&id) {
                machines.extend(machine);
            }
            done.insert(id);
        }
        self.done = done;
        self.is_begun = true;
        if is_missing_some {
            return Some(Changed::Everything);
        }
        (!machines.is_empty()).then_some(Changed::Machines(machines))
    }
}

/// The newest operations of a zone, back to one that `journal` knows; and how many pages that took.
pub(super) async fn newest(
    client: &ZoneOperations,
    scope: &Scope,
    journal: &Journal,
) -> Result<(Newest, u32), CloudError> {
    let mut newest = Newest::default();
    let mut token: Option<String> = None;
    let mut page = 1;
    loop {
        // Newest first; a filter beside the order is refused.
        let request = client
            .list()
            .set_project(&scope.project)
            .set_zone(&scope.zone)
            .set_order_by("creationTimestamp desc")
            .set_max_results(u32::try_from(OPERATIONS).unwrap_or(u32::MAX))
            .set_or_clear_page_token(token);
        let answer = call(CALL, page, request.send()).await?;
        if answer.kind.as_deref() != Some("compute#operationList") {
            return Err(incomplete(CALL, page, "operationList"));
        }
        if let Some(warning) = &answer.warning {
            let code = warning.code.as_ref().and_then(|code| code.name());
            if code != Some(NOTHING_HERE) {
                let detail = warning.message.as_deref().or(code).unwrap_or("a warning");
                return Err(incomplete(CALL, page, &format!("whole answer: {detail}")));
            }
        }
        for raw in &answer.items {
            newest
                .seen
                .push(seen(raw).ok_or_else(|| incomplete(CALL, page, "id"))?);
        }
        token = answer.next_page_token.filter(|token| !token.is_empty());
        newest.is_cut = token.is_some();
        let is_enough =
            newest.seen.len() >= OPERATIONS || page >= PAGES || journal.is_told_by(&newest.seen);
        if is_enough || !newest.is_cut {
            return Ok((newest, page));
        }
        page += 1;
    }
}

/// As much of an operation as matters.
fn seen(raw: &Operation) -> Option<Seen> {
    let kind = raw.operation_type.as_deref().unwrap_or_default();
    let target = raw.target_link.as_deref().unwrap_or_default();
    let machine = names::last(target);
    let is_machine = target.ends_with(&format!("/instances/{machine}")) && !machine.is_empty();
    Some(Seen {
        id: raw.id?,
        is_done: raw.status == Some(Status::Done),
        machine: (is_machine && !HARMLESS.contains(&kind)).then(|| machine.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(id: u64, is_done: bool, machine: &str) -> Seen {
        Seen {
            id,
            is_done,
            machine: Some(machine.to_owned()),
        }
    }

    fn newest(seen: &[Seen]) -> Newest {
        Newest {
            seen: seen.to_vec(),
            is_cut: true,
        }
    }

    fn machines(names: &[&str]) -> Option<Changed> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Some(Changed::Machines(names))
    }

    #[test]
    fn a_machine_changes_when_its_operation_ends_and_only_once() {
        let mut journal = Journal::default();
        assert_eq!(journal.note(Newest::default()), None);
        let old = operation(1, true, "a");
        assert_eq!(
            journal.note(newest(std::slice::from_ref(&old))),
            Some(Changed::Everything)
        );
        let running = [operation(2, false, "b"), old.clone()];
        assert_eq!(journal.note(newest(&running)), None);
        let done = [operation(2, true, "b"), old];
        assert_eq!(journal.note(newest(&done)), machines(&["b"]));
        assert_eq!(journal.note(newest(&done)), None);
    }

    #[test]
    fn what_was_there_before_anybody_looked_is_read_once() {
        let mut journal = Journal::default();
        let there = [operation(7, true, "b"), operation(6, true, "a")];
        assert_eq!(journal.note(newest(&there)), machines(&["a", "b"]));
        assert_eq!(journal.note(newest(&there)), None);
    }

    #[test]
    fn a_zone_where_more_happened_than_is_listed_is_read_whole() {
        let mut journal = Journal::default();
        journal.note(newest(&[operation(1, true, "a")]));
        let later = newest(&[operation(300, true, "z")]);
        assert_eq!(journal.note(later), Some(Changed::Everything));
    }

    #[test]
    fn a_running_operation_that_leaves_the_list_counts_as_ended() {
        let mut journal = Journal::default();
        let old = operation(1, true, "a");
        journal.note(newest(&[operation(2, false, "b"), old.clone()]));
        let without = newest(&[operation(3, true, "c"), old]);
        assert_eq!(journal.note(without), machines(&["b", "c"]));
    }

    #[test]
    fn only_operations_on_machines_that_can_matter_count() {
        let raw = |kind: &str, target: &str| {
            Operation::new()
                .set_id(1_u64)
                .set_operation_type(kind)
                .set_status(Status::Done)
                .set_target_link(target)
        };
        let of = |kind: &str, target: &str| seen(&raw(kind, target)).unwrap().machine;
        let link = "https://www.googleapis.com/compute/v1/projects/p/zones/z/instances/vm-1";
        assert_eq!(of("setTags", link).as_deref(), Some("vm-1"));
        assert_eq!(of("somethingNew", link).as_deref(), Some("vm-1"));
        assert_eq!(of("setMetadata", link), None);
        let disk = "https://www.googleapis.com/compute/v1/projects/p/zones/z/disks/vm-1";
        assert_eq!(of("insert", disk), None);
        assert_eq!(seen(&Operation::new()), None);
    }
}
