//! The double's one server, and what tests ask of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::double::Pace;
use super::super::http::Message;
use super::answer::{error, missing};
use super::call::call;
use super::compute::{self, Call};
use super::fault::{GoogleBreak, GoogleFault, instead, throttled, unauthenticated};
use super::logging::Counted;
use super::model::{Policy, World};
use super::quota::Quota;
use super::{logging, metadata, secrets};

#[derive(Debug, Default)]
pub(super) struct State {
    /// What there is.
    pub(super) world: World,
    faults: Vec<GoogleFault>,
    calls: HashMap<&'static str, u32>,
    quota: Quota,
    throttled: u32,
    refused: Vec<String>,
    policy: Policy,
    used: BTreeSet<&'static str>,
    token_seconds: u32,
    expired: u32,
    is_holding: bool,
    held: u32,
}

/// The running double; its threads end with the process.
#[derive(Debug, Clone)]
pub struct Google {
    address: SocketAddr,
    pace: Pace,
    state: Arc<Mutex<State>>,
}

impl Google {
    /// The project everything of a test is in, unless it says otherwise.
    pub const PROJECT: &'static str = "net-1";

    /// Its network.
    pub const NETWORK: &'static str = "main";

    /// Its zone.
    pub const ZONE: &'static str = "europe-west1-b";

    /// Listens on loopback, as the instance `fw-1`.
    pub fn start(pace: Pace) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on loopback")?;
        let this = Self {
            address: listener.local_addr().context("its address")?,
            pace,
            state: Arc::default(),
        };
        this.state().token_seconds = metadata::TOKEN_SECONDS;
        let own = [
            ("project/project-id", Self::PROJECT),
            ("project/numeric-project-id", "1234567890"),
            ("instance/zone", "projects/1234567890/zones/europe-west1-b"),
            ("instance/name", "fw-1"),
            ("instance/id", "5550001"),
            (
                "instance/network-interfaces/0/network",
                "projects/1234567890/networks/main",
            ),
            ("universe/universe-domain", "googleapis.com"),
        ];
        for (path, value) in own {
            this.set_metadata(path, value);
        }
        let server = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                // A peer that was killed mid-way is part of the tests.
                std::thread::spawn(move || drop(server.serve(stream)));
            }
        });
        Ok(this)
    }

    /// Where every service is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For `GCE_METADATA_HOST`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Breaks answers from now on.
    pub fn fail(&self, fault: GoogleFault) {
        self.state().faults.push(fault);
    }

    /// Is well again.
    pub fn recover(&self) {
        self.state().faults.clear();
    }

    /// Lets nobody read all machines until told otherwise: whoever asks waits.
    pub fn hold(&self, is_holding: bool) {
        self.state().is_holding = is_holding;
    }

    /// How many have waited for that.
    pub fn held(&self) -> u32 {
        self.state().held
    }

    /// Whether every fault has struck as often as it was to.
    pub fn is_well(&self) -> bool {
        self.state()
            .faults
            .iter()
            .all(|fault| fault.times == Some(0))
    }

    /// How often a method was called.
    pub fn calls(&self, method: &str) -> u32 {
        self.state().calls.get(method).copied().unwrap_or_default()
    }

    /// Tokens of the global read quota that a project has spent.
    pub fn spent(&self, project: &str) -> u32 {
        self.state().quota.spent(project, None)
    }

    /// Tokens of a region's read quota that a project has spent.
    pub fn spent_in(&self, project: &str, region: &str) -> u32 {
        self.state().quota.spent(project, Some(region))
    }

    /// How many calls were over the quota.
    pub fn throttled(&self) -> u32 {
        self.state().throttled
    }

    /// What was refused as no request of the service's, in words.
    pub fn refused(&self) -> Vec<String> {
        self.state().refused.clone()
    }

    /// What the caller may do from now on.
    pub fn grant(&self, policy: Policy) {
        self.state().policy = policy;
    }

    /// Permissions that were needed so far.
    pub fn used(&self) -> BTreeSet<&'static str> {
        self.state().used.clone()
    }

    /// How long tokens last that are given out from now on, and that no earlier one is good any more.
    pub fn rotate_tokens(&self, seconds: u32) {
        let mut state = self.state();
        state.token_seconds = seconds;
        state.expired = state.world.tokens;
    }

    /// Tokens given out.
    pub fn tokens(&self) -> u32 {
        self.state().world.tokens
    }

    /// Sets a value of the metadata server.
    pub fn set_metadata(&self, path: &str, value: &str) {
        let metadata = &mut self.state().world.metadata;
        metadata.insert(path.to_owned(), value.to_owned());
    }

    /// The external address of a machine.
    pub fn external_address(&self, machine: &str) -> Option<String> {
        let state = self.state();
        let mut machines = state
            .world
            .machines
            .values()
            .flat_map(BTreeMap::values)
            .flatten();
        let machine = machines.find(|found| found["name"] == machine)?;
        let address = &machine["networkInterfaces"][0]["accessConfigs"][0]["natIP"];
        address.as_str().map(ToOwned::to_owned)
    }

    /// Puts a payload into `projects/P/secrets/S`.
    pub fn secret(&self, name: &str, payload: &str) {
        assert!(
            payload.len() <= secrets::PAYLOAD_BYTES_MAX,
            "the service takes no larger payload"
        );
        let secrets = &mut self.state().world.secrets;
        secrets.insert(name.to_owned(), payload.to_owned());
    }

    /// Counts entries from now on, and keeps none.
    pub fn count(&self) {
        self.state().world.is_counting = true;
    }

    /// What was written, in numbers.
    pub fn counted(&self) -> Counted {
        self.state().world.counted
    }

    /// Entries of a log of [`Google::PROJECT`], in the order of their arrival.
    pub fn entries(&self, log: &str) -> Vec<Value> {
        let name = format!("projects/{}/logs/{log}", Self::PROJECT);
        let state = self.state();
        let entries = state.world.entries.iter();
        entries
            .filter(|entry| entry["logName"] == name)
            .cloned()
            .collect()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let Some(request) = Message::read(&mut stream)? else {
            return Ok(());
        };
        let (mut answer, broken) = self.answer(&request);
        if broken == Some(GoogleBreak::Half) {
            answer.body.truncate(answer.body.len() / 2);
        }
        let bytes = answer.bytes();
        let end = match broken {
            Some(GoogleBreak::Cut) => bytes.len() - answer.body.len() / 2 - 1,
            Some(GoogleBreak::LostAnswer) => 0,
            _ => bytes.len(),
        };
        stream.write_all(&bytes[..end])?;
        Ok(())
    }

    fn answer(&self, request: &Message) -> (Message, Option<GoogleBreak>) {
        let mut words = request.line.split(' ');
        let (verb, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if let Some(path) = path.strip_prefix("/computeMetadata/v1/") {
            let mut state = self.state();
            let seconds = state.token_seconds;
            return (
                metadata::answer(&mut state.world, request, path, seconds),
                None,
            );
        }
        let Some(call) = call(verb, path, query, &request.body) else {
            let refusal = missing(path);
            self.state().refused.push(format!("{verb} {path}"));
            return (refusal, None);
        };
        let page = compute::page(&call.query);
        if let Some(refusal) = self.gate(request, &call) {
            return (refusal, None);
        }
        let broken = self.fault(call.method, page);
        if let Some(answer) = broken.and_then(|how| instead(call.method, how)) {
            return (answer, None);
        }
        if call.method.contains("ist") {
            std::thread::sleep(self.pace.page_time);
        }
        if call.method == "instances.aggregatedList" && !call.query.contains_key("filter") {
            self.wait_while_held();
        }
        let mut state = self.state();
        let answer = match call.method {
            "entries.write" => {
                let answer = logging::write(&mut state.world, &call.body);
                if state.world.is_counting {
                    self.count_later(call.body);
                }
                answer
            }
            "secrets.access" => secrets::access(&state.world, &call.place.join("/")),
            _ => compute::answer(&mut state.world, &call, self.pace.page_items, broken),
        };
        if (400..500).contains(&answer.status()) && answer.status() != 404 {
            let said = format!("{}: {}", call.method, answer.text());
            state.refused.push(said);
        }
        (answer, broken)
    }

    /// Counts entries beside the answer, which does not wait for it.
    fn count_later(&self, body: Vec<u8>) {
        let server = self.clone();
        std::thread::spawn(move || {
            let keys = logging::keys(&body);
            let mut state = server.state();
            match keys {
                Ok(keys) => state.world.count(keys),
                Err(error) => state.refused.push(error.to_string()),
            }
        });
    }

    fn wait_while_held(&self) {
        if !self.state().is_holding {
            return;
        }
        self.state().held += 1;
        while self.state().is_holding {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Counts the call; refuses it without a good token, a permission, or quota.
    fn gate(&self, request: &Message, call: &Call) -> Option<Message> {
        let mut state = self.state();
        *state.calls.entry(call.method).or_default() += 1;
        let bearer = request
            .headers
            .get("authorization")
            .cloned()
            .unwrap_or_default();
        let good = (state.expired + 1..=state.world.tokens).map(metadata::token);
        if !good
            .into_iter()
            .any(|token| bearer == format!("Bearer {token}"))
        {
            return Some(unauthenticated());
        }
        let needed = match call.method {
            "entries.write" => &["logging.logEntries.create"],
            "secrets.access" => &["secretmanager.versions.access"],
            method => compute::permissions(method),
        };
        state.used.extend(needed);
        if let Policy::Granted(granted) = &state.policy
            && let Some(lacking) = needed.iter().find(|needed| !granted.contains(**needed))
        {
            let message = format!(
                "Required '{lacking}' permission for 'projects/{}'",
                call.project
            );
            return Some(error(403, "PERMISSION_DENIED", "forbidden", &message));
        }
        if !state
            .quota
            .take(&call.project, call.method, call.place.first())
        {
            state.throttled += 1;
            return Some(throttled(call.method));
        }
        None
    }

    /// The fault that strikes now, if one does.
    fn fault(&self, method: &str, page: u32) -> Option<GoogleBreak> {
        let mut state = self.state();
        let fault = state
            .faults
            .iter_mut()
            .find(|fault| fault.applies(method, page))?;
        fault.times = fault.times.map(|times| times - 1);
        Some(fault.how)
    }
}
