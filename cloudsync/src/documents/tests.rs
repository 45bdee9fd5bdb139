//! A store made by hand, and what is in force after each of its answers.

use std::cell::RefCell;
use std::collections::HashMap;

use policy::preferences::Ech;

use super::*;

/// Answers what a test put in; everything else is missing.
#[derive(Debug, Default)]
struct Shelf(RefCell<HashMap<String, Result<String, CloudErrorKind>>>);

impl Shelf {
    fn put(&self, name: &str, answer: Result<&str, CloudErrorKind>) {
        let answer = answer.map(ToOwned::to_owned);
        self.0.borrow_mut().insert(name.to_owned(), answer);
    }

    fn answer(&self, name: &str) -> Result<String, CloudError> {
        let known = self.0.borrow().get(name).cloned();
        known
            .unwrap_or(Err(CloudErrorKind::Missing))
            .map_err(|kind| CloudError {
                call: format!("reading {name}"),
                kind,
                detail: "by hand".to_owned(),
            })
    }
}

impl Store for Shelf {
    async fn preferences(&self, name: &str) -> Result<Option<String>, CloudError> {
        match self.answer(name) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind == CloudErrorKind::Missing => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, reference: &ListReference) -> Result<String, CloudError> {
        self.answer(&reference.to_string())
    }
}

struct Scene {
    shelf: Rc<Shelf>,
    documents: Documents<Shelf>,
    config: Rc<Config>,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "deployment = \"blue\"\nstate_dir = {:?}\n[preferences]\nech = \"allow_outer\"\n",
            folder.path()
        );
        let config = Rc::new(Config::parse(&text, std::path::Path::new("x")).unwrap());
        let shelf = Rc::new(Shelf::default());
        Self {
            documents: Documents::new(Some(Rc::clone(&shelf)), Rc::clone(&config)),
            shelf,
            config,
            _folder: folder,
        }
    }

    /// As after a restart.
    fn restart(&mut self) {
        self.documents = Documents::new(Some(Rc::clone(&self.shelf)), Rc::clone(&self.config));
    }

    /// Everything is due.
    fn read(&mut self, lists: &[&str]) -> Kept {
        let wanted = lists.iter().map(|name| ListReference::parse(name).unwrap());
        let wanted = wanted.collect();
        let now = Instant::now();
        self.documents.preferences_due = now;
        for list in self.documents.lists.values_mut() {
            list.due = now;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, self.documents.refresh(&wanted))
    }
}

fn body(kept: &Kept, name: &str) -> Result<String, String> {
    let reference = ListReference::parse(name).unwrap();
    kept.lists[&reference].clone().map(|body| body.to_string())
}

fn document(ech: &str) -> String {
    format!("{{\"%default\":{{\"ech\":\"{ech}\"}}}}")
}

#[test]
fn the_first_document_that_is_there_wins_whole() {
    let mut scene = Scene::new();
    let configured = scene.read(&[]);
    assert_eq!(configured.preferences.ech, Ech::AllowOuter);
    scene.shelf.put("DiscrimiNAT", Ok(&document("allow_outer")));
    scene.shelf.put("DiscrimiNAT_blue", Ok(&document("refuse")));
    assert_eq!(scene.read(&[]).preferences.ech, Ech::Refuse);
    scene.shelf.put("postern", Ok(&document("allow_outer")));
    assert_eq!(scene.read(&[]).preferences.ech, Ech::AllowOuter);
    scene.shelf.put("postern_blue", Ok(&document("refuse")));
    let kept = scene.read(&[]);
    assert_eq!(kept.preferences.ech, Ech::Refuse);
    assert!(kept.faults.is_empty(), "{:?}", kept.faults);
}

#[test]
fn unreadable_preferences_stay_as_they_were_across_a_restart() {
    let mut scene = Scene::new();
    scene
        .shelf
        .put("postern", Ok("{\"%default\":{\"quic\":\"inspect\"}}"));
    let good = scene.read(&[]).preferences;
    scene.shelf.put("postern_blue", Err(CloudErrorKind::Denied));
    scene.restart();
    let kept = scene.read(&[]);
    assert_eq!(kept.preferences, good);
    assert_eq!(kept.faults[0].kind, FaultKind::PreferencesUnreadable);
    scene.shelf.put("postern_blue", Ok("{\"%default\": half"));
    assert_eq!(scene.read(&[]).preferences, good);
    // One key that cannot be so keeps its last good value, and costs the others nothing.
    let text = "{\"%default\":{\"quic\":\"maybe\",\"ech\":\"allow_outer\"}}";
    scene.shelf.put("postern_blue", Ok(text));
    let kept = scene.read(&[]);
    assert_eq!(kept.preferences.quic, good.quic);
    assert_eq!(kept.preferences.ech, Ech::AllowOuter);
    assert_eq!(kept.faults[0].kind, FaultKind::InvalidPreference);
}

#[test]
fn an_unreadable_list_says_what_it_said_last_across_a_restart() {
    let mut scene = Scene::new();
    scene.shelf.put("team1", Ok("a.example.com"));
    assert_eq!(
        body(&scene.read(&["team1"]), "team1").unwrap(),
        "a.example.com"
    );
    scene.shelf.put("team1", Err(CloudErrorKind::Denied));
    scene.restart();
    for _ in 0..4 {
        let kept = scene.read(&["team1"]);
        assert_eq!(body(&kept, "team1").unwrap(), "a.example.com");
        assert_eq!(kept.faults[0].kind, FaultKind::ListUnreadable);
    }
    let too_long = "a.example.com\n".repeat(6_000);
    scene.shelf.put("team1", Ok(&too_long));
    assert_eq!(
        body(&scene.read(&["team1"]), "team1").unwrap(),
        "a.example.com"
    );
    scene.shelf.put("team1", Ok("b.example.com"));
    let kept = scene.read(&["team1"]);
    assert_eq!(body(&kept, "team1").unwrap(), "b.example.com");
    assert!(kept.faults.is_empty(), "{:?}", kept.faults);
}

#[test]
fn a_list_that_its_owner_deleted_allows_nothing_from_the_second_reading_on() {
    let mut scene = Scene::new();
    scene.shelf.put("team1", Ok("a.example.com"));
    scene.read(&["team1"]);
    scene.shelf.put("team1", Err(CloudErrorKind::Missing));
    assert!(body(&scene.read(&["team1"]), "team1").is_ok());
    let gone = body(&scene.read(&["team1"]), "team1");
    assert!(gone.unwrap_err().contains("does not exist"));
}

#[test]
fn a_list_never_read_is_covered_once_it_was_asked_for() {
    let mut scene = Scene::new();
    let kept = scene.read(&["team1", "secret:team2"]);
    let wanted = ["team1", "secret:team2"].map(|name| ListReference::parse(name).unwrap());
    assert!(kept.covers(&wanted.into()));
    let more = [ListReference::parse("team3").unwrap()];
    assert!(!kept.covers(&more.into()));
    assert!(body(&kept, "team1").is_err());
}
