//! The documents beside the rules: preferences and external lists, each with its last good body.
//!
//! A document that cannot be read, or says nothing usable, is replaced by what it said last, on
//! disk across restarts, and by a fault that says so. A list that its owner has deleted allows
//! nothing once two readings in a row have found nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use policy::annotation::{ListBody, ListReference};
use policy::preferences::SCOPE;
use policy::{Fault, FaultKind, Preferences};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::cloud::{CloudError, CloudErrorKind, Store};
use crate::config::Config;
use crate::schedule;

mod good;

use good::Good;

/// How long one document may take.
const READING_TIME: Duration = Duration::from_secs(10);

/// Lists read at a time.
const READINGS_AT_ONCE: usize = 4;

/// Readings in a row that must find no list of a name before it allows nothing.
const MISSING_MAX: u32 = 2;

/// The documents as they are in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Kept {
    /// Settings of the deployment.
    pub(crate) preferences: Preferences,
    /// What is wrong with the documents, other than with the entries of a list.
    pub(crate) faults: Vec<Fault>,
    /// Each list that was asked for, by how descriptions refer to it.
    pub(crate) lists: BTreeMap<ListReference, ListBody>,
}

impl Kept {
    /// Whether each of these lists was asked for at least once.
    pub(crate) fn covers(&self, wanted: &BTreeSet<ListReference>) -> bool {
        wanted.iter().all(|list| self.lists.contains_key(list))
    }
}

/// One list.
#[derive(Debug, Clone)]
struct List {
    body: ListBody,
    fault: Option<Fault>,
    missing: u32,
    due: Instant,
}

/// Reads the documents, each as often as it should be.
#[derive(Debug)]
pub(crate) struct Documents<S> {
    store: Option<Rc<S>>,
    config: Rc<Config>,
    good: Good,
    preferences: (Preferences, Vec<Fault>),
    preferences_due: Instant,
    lists: BTreeMap<ListReference, List>,
    complaints: BTreeSet<String>,
}

impl<S: Store + 'static> Documents<S> {
    /// Reads from `store`; without one, what the configuration says is in force.
    pub(crate) fn new(store: Option<Rc<S>>, config: Rc<Config>) -> Self {
        Self {
            good: Good::open(&config.state_dir),
            preferences: config.preferences(),
            preferences_due: Instant::now(),
            lists: BTreeMap::new(),
            complaints: BTreeSet::new(),
            store,
            config,
        }
    }

    /// Reads for ever: what is due, and what somebody `wanted` for the first time at once.
    pub(crate) async fn run(
        mut self,
        mut wanted: watch::Receiver<BTreeSet<ListReference>>,
        kept: watch::Sender<Option<Rc<Kept>>>,
    ) {
        loop {
            let references = wanted.borrow_and_update().clone();
            let now = Rc::new(self.refresh(&references).await);
            kept.send_if_modified(|before| {
                let is_news = before.as_ref() != Some(&now);
                if is_news {
                    *before = Some(now);
                }
                is_news
            });
            tokio::select! {
                () = sleep_until(self.next_due()) => {}
                changed = wanted.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Reads what is due, and says what is in force.
    pub(crate) async fn refresh(&mut self, wanted: &BTreeSet<ListReference>) -> Kept {
        if let Some(store) = self.store.clone() {
            if self.preferences_due <= Instant::now() {
                self.read_preferences(&store).await;
            }
            self.read_lists(&store, wanted).await;
            self.good.keep(&self.preferences.0, wanted);
        }
        self.kept()
    }

    fn kept(&mut self) -> Kept {
        let list_faults = self.lists.values().filter_map(|list| list.fault.clone());
        let faults: Vec<Fault> = self
            .preferences
            .1
            .iter()
            .cloned()
            .chain(list_faults)
            .collect();
        self.complaints = faults.iter().map(Fault::to_string).collect();
        Kept {
            preferences: self.preferences.0.clone(),
            faults,
            lists: self
                .lists
                .iter()
                .map(|(reference, list)| (reference.clone(), list.body.clone()))
                .collect(),
        }
    }

    /// When the next document is due; far off when there is nothing to read from.
    fn next_due(&self) -> Instant {
        let lists = self.lists.values().map(|list| list.due);
        match &self.store {
            Some(_) => lists.fold(self.preferences_due, Instant::min),
            None => after(Duration::from_secs(86_400)),
        }
    }

    /// The first document that is there wins whole.
    async fn read_preferences(&mut self, store: &Rc<S>) {
        self.preferences_due = after(schedule::jittered(self.config.poll.preferences_interval()));
        let before = match self.good.preferences() {
            Some(good) => good,
            None => self.preferences.0.clone(),
        };
        for name in self.config.preference_names() {
            let read = match timeout(READING_TIME, store.preferences(&name)).await {
                Ok(read) => read,
                Err(_) => Err(overdue(&name)),
            };
            self.preferences = match read {
                Ok(None) => continue,
                Ok(Some(text)) => match Preferences::read_json(&text, &before) {
                    Ok(read) => read,
                    Err(error) => unreadable_preferences(before, &name, &crate::chain(&error)),
                },
                Err(error) => {
                    self.complain(&error);
                    unreadable_preferences(before, &name, &error.kind.to_string())
                }
            };
            return;
        }
        self.preferences = self.config.preferences();
    }

    /// Says once what the cloud said, in its words; the fault says less, so that it stays the same.
    fn complain(&mut self, error: &CloudError) {
        let place = format!("{}: {}", error.call, error.kind);
        if self.complaints.insert(place) {
            tracing::warn!(%error, "a document cannot be read; what it said last stays");
        }
    }

    /// Reads the lists that are due, a few at a time.
    async fn read_lists(&mut self, store: &Rc<S>, wanted: &BTreeSet<ListReference>) {
        self.lists.retain(|reference, _| wanted.contains(reference));
        let now = Instant::now();
        let is_due = |reference: &&ListReference| {
            self.lists
                .get(*reference)
                .is_none_or(|list| list.due <= now)
        };
        let mut due: Vec<ListReference> = wanted.iter().filter(is_due).cloned().collect();
        let poll = &self.config.poll;
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        let pause = schedule::interval(
            poll.lists_interval(),
            count,
            poll.appliances,
            poll.calls_per_second,
        );
        let mut under_way = JoinSet::new();
        while !due.is_empty() || !under_way.is_empty() {
            while under_way.len() < READINGS_AT_ONCE
                && let Some(reference) = due.pop()
            {
                let store = Rc::clone(store);
                under_way.spawn_local(async move {
                    let read = timeout(READING_TIME, store.list(&reference)).await;
                    let read = read.unwrap_or_else(|_| Err(overdue(&reference.to_string())));
                    (reference, read)
                });
            }
            if let Some(Ok((reference, read))) = under_way.join_next().await {
                self.note_list(reference, read, after(schedule::jittered(pause)));
            }
        }
    }

    /// Takes note of what one list says now.
    fn note_list(
        &mut self,
        reference: ListReference,
        read: Result<String, CloudError>,
        due: Instant,
    ) {
        let missing = self.lists.get(&reference).map_or(0, |list| list.missing);
        let usable = match read {
            Ok(body) => good::usable(&body, &reference).map(|()| body),
            Err(error) => {
                self.complain(&error);
                Err((
                    error.kind == CloudErrorKind::Missing,
                    error.kind.to_string(),
                ))
            }
        };
        let list = match usable {
            Ok(body) => {
                let body: std::sync::Arc<str> = body.into();
                self.good.note(&reference, &body);
                List {
                    body: Ok(body),
                    fault: None,
                    missing: 0,
                    due,
                }
            }
            Err((is_missing, why)) => {
                let missing = if is_missing {
                    missing.saturating_add(1)
                } else {
                    0
                };
                if missing >= MISSING_MAX {
                    self.good.forget(&reference);
                }
                self.without_body(&reference, &why, missing, due)
            }
        };
        self.lists.insert(reference, list);
    }

    /// What stands for a list that cannot be read: its last good body and a fault, or nothing.
    fn without_body(
        &self,
        reference: &ListReference,
        why: &str,
        missing: u32,
        due: Instant,
    ) -> List {
        let (body, fault) = match self.good.list(reference) {
            Some(good) => {
                let detail = format!("the list cannot be read ({why}); what it said last stays");
                let name = reference.to_string();
                let fault = Fault {
                    list: Some(name.clone()),
                    ..Fault::new(SCOPE, FaultKind::ListUnreadable, &name, detail)
                };
                (Ok(good), Some(fault))
            }
            // Each description that refers to it becomes a fault of its own.
            None => (Err(format!("the list cannot be read: {why}")), None),
        };
        List {
            body,
            fault,
            missing,
            due,
        }
    }
}

fn after(pause: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(pause).unwrap_or(now)
}

/// The last good preferences, and the fault of the document that should replace them.
fn unreadable_preferences(before: Preferences, name: &str, why: &str) -> (Preferences, Vec<Fault>) {
    let detail = format!("{name} cannot be read ({why}); the last good preferences stay");
    let fault = Fault::new(SCOPE, FaultKind::PreferencesUnreadable, name, detail);
    (before, vec![fault])
}

fn overdue(name: &str) -> CloudError {
    CloudError {
        call: format!("reading {name}"),
        kind: CloudErrorKind::Unavailable,
        detail: format!("no answer within {READING_TIME:?}"),
    }
}

#[cfg(test)]
mod tests;
