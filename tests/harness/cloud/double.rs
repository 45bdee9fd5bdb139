//! The proxy in front of moto: one thread per connection, one exchange per connection.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::fault::{Break, Fault, ec2_error, error, logs_error};
use super::http::{Message, exchange, form};
use super::large::Large;
use super::{limits, pages, roles, scaling};

/// How the service behaves when it is well.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Items on a page, however many were asked for.
    pub page_items: usize,
    /// What each page takes.
    pub page_time: Duration,
}

impl Default for Pace {
    /// Pages small enough that a handful of objects has several, and the time a page takes in a large account.
    fn default() -> Self {
        Self {
            page_items: 2,
            page_time: Duration::from_millis(300),
        }
    }
}

/// Something to do between two pages.
type Interlude = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    interludes: Vec<(String, u32, Interlude)>,
    calls: HashMap<String, u32>,
    throttled: u32,
    refused: Vec<String>,
    acknowledged: HashSet<String>,
    log_lines: usize,
    used: BTreeSet<String>,
    denied: BTreeSet<String>,
    foreign: HashMap<String, String>,
    launches: BTreeSet<[String; 3]>,
    scaling: scaling::Groups,
    roles: roles::Roles,
    delegated: Vec<(String, String)>,
    date: Option<&'static str>,
}

/// The running proxy; its threads end with the process.
#[derive(Clone)]
pub struct Double {
    address: SocketAddr,
    moto: SocketAddr,
    pace: Pace,
    buckets: Arc<limits::Buckets>,
    large: Option<Arc<Large>>,
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for Double {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Double")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Double {
    /// Listens on loopback, in front of moto.
    pub(super) fn start(moto: SocketAddr, pace: Pace) -> Result<Self> {
        Self::start_with(moto, pace, None)
    }

    /// A large account and nothing else: no documents, no logs, no moto.
    pub fn large(pace: Pace) -> Result<Self> {
        Self::part_of_large(pace, 1)
    }

    /// As [`Self::large`], with one of `part` of its interfaces and groups.
    pub fn part_of_large(pace: Pace, part: usize) -> Result<Self> {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        Self::start_with(nowhere, pace, Some(Arc::new(Large::new(part))))
    }

    /// Edits a description of the large account, to allow this name.
    pub fn edit(&self, name: &str) {
        if let Some(large) = &self.large {
            large.edit(name);
        }
    }

    /// Adds an interface to the large account, and says which address it has.
    pub fn launch(&self) -> Option<Ipv4Addr> {
        self.large.as_ref().map(|large| large.launch())
    }

    /// Lines that PutLogEvents took in a large account, which keeps none of them.
    pub fn log_lines(&self) -> usize {
        self.state().log_lines
    }

    fn start_with(moto: SocketAddr, pace: Pace, large: Option<Arc<Large>>) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on loopback")?;
        let this = Self {
            address: listener.local_addr().context("its address")?,
            moto,
            pace,
            buckets: Arc::default(),
            large,
            state: Arc::default(),
        };
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, for `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks answers from now on.
    pub fn fail(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Is well again.
    pub fn recover(&self) {
        self.state().faults.clear();
    }

    /// Does something after this page of the next answer to `action`, before the page that follows.
    pub fn after_page(&self, action: &str, page: u32, work: impl FnOnce() + Send + 'static) {
        self.state()
            .interludes
            .push((action.to_owned(), page, Box::new(work)));
    }

    /// How often an action was called.
    pub fn calls(&self, action: &str) -> u32 {
        self.state().calls.get(action).copied().unwrap_or_default()
    }

    /// Every IAM action that was called and not denied, such as `ec2:DescribeVpcs`.
    pub fn used(&self) -> BTreeSet<String> {
        self.state().used.clone()
    }

    /// Denies an IAM action from now on, or no longer.
    pub fn deny(&self, permission: &str, denied: bool) {
        let mut state = self.state();
        if denied {
            state.denied.insert(permission.to_owned());
        } else {
            state.denied.remove(permission);
        }
    }

    /// Delegates a prefix to an interface, as a CNI asks for; moto knows of none.
    pub fn delegate(&self, interface: &str, prefix: &str) {
        let delegated = (interface.to_owned(), prefix.to_owned());
        self.state().delegated.push(delegated);
    }

    /// Roles trust only who knows this external id.
    pub fn trust(&self, external_id: &str) {
        self.state().roles.trust(external_id);
    }

    /// Another account lets its role do nothing from now on.
    pub fn close(&self, account: &str) {
        self.state().roles.close(account);
    }

    /// Has a parameter or secret of another account, which answers to its ARN in its own region alone.
    pub fn foreign(&self, arn: &str, body: &str) {
        self.state().foreign.insert(arn.to_owned(), body.to_owned());
    }

    /// Has an autoscaling group wait for the launch hook of an instance.
    pub fn launching(&self, group: &str, hook: &str, instance: &str) {
        let launch = [group, hook, instance].map(ToOwned::to_owned);
        self.state().launches.insert(launch);
    }

    /// Whether a launch waits still.
    pub fn is_launching(&self, instance: &str) -> bool {
        let state = self.state();
        state.launches.iter().any(|launch| launch[2] == instance)
    }

    /// How many calls were throttled because a bucket was empty.
    pub fn throttled(&self) -> u32 {
        self.state().throttled
    }

    /// What was refused for being outside a limit, in words.
    pub fn refused(&self) -> Vec<String> {
        self.state().refused.clone()
    }

    /// Whether PutLogEvents has stored this message, answer lost or not.
    pub fn has_acknowledged(&self, message: &str) -> bool {
        self.state().acknowledged.contains(message)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let Some(request) = Message::read(&mut stream)? else {
            return Ok(());
        };
        let (mut answer, cut) = self.answer(&request)?;
        if let Some(date) = self.state().date {
            answer.headers.insert("date".to_owned(), date.to_owned());
        }
        let bytes = answer.bytes();
        let end = match cut {
            Some(Break::Cut) => bytes.len() - answer.body.len() / 2 - 1,
            Some(Break::LostAnswer) => 0,
            _ => bytes.len(),
        };
        stream.write_all(&bytes[..end])?;
        Ok(())
    }

    /// Has every answer say it was sent then (RFC 9110, section 6.6.1).
    pub fn say_date(&self, date: &'static str) {
        self.state().date = Some(date);
    }

    /// The answer, and whether it is to be cut on its way.
    fn answer(&self, request: &Message) -> Result<(Message, Option<Break>)> {
        let service = service_of(request);
        let target = request
            .headers
            .get("x-amz-target")
            .and_then(|target| target.split('.').nth(1));
        if let Some(refusal) = self.state().roles.refusal(&service, request) {
            return Ok((refusal, None));
        }
        match (service.as_str(), target) {
            (_, Some(action)) => self.json(&service, action, request),
            ("ec2", None) => self.ec2(request),
            (_, None) => self.query(&service, request),
        }
    }

    /// A service of the Query protocol that does not page here.
    fn query(&self, service: &str, request: &Message) -> Result<(Message, Option<Break>)> {
        let arguments = form(&request.body);
        let found = arguments.iter().find(|(key, _)| key == "Action");
        let action = found.map(|(_, value)| value.clone()).unwrap_or_default();
        if let Some(refusal) = self.gate(service, &action, false, None) {
            return Ok((refusal, None));
        }
        let fault = self.fault(&action, 1);
        if let Some(broken) = fault.and_then(|how| error(false, how)) {
            return Ok((broken, None));
        }
        if action == "AssumeRole" {
            if let Some(refusal) = self.state().roles.distrust(&arguments) {
                return Ok((refusal, fault));
            }
            let answer = exchange(self.moto, request)?;
            self.state().roles.note(&arguments, &answer);
            return Ok((answer, fault));
        }
        if action == "CompleteLifecycleAction" {
            return Ok((self.complete(&arguments), fault));
        }
        if let Some(answer) = self.state().scaling.answer(&action, &arguments) {
            return Ok((answer, fault));
        }
        Ok((exchange(self.moto, request)?, fault))
    }

    /// Has an autoscaling group with these instances.
    pub fn scaling(&self, group: &str, instances: &[&str]) {
        self.state().scaling.add(group, instances);
    }

    /// Instances that were said to be unhealthy, in order.
    pub fn unhealthy(&self) -> Vec<String> {
        self.state().scaling.unhealthy().to_vec()
    }

    /// moto answers this one with 500; the service takes it once for each launch that waits.
    fn complete(&self, arguments: &[(String, String)]) -> Message {
        let argument = |name: &str| {
            let found = arguments.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let launch = ["AutoScalingGroupName", "LifecycleHookName", "InstanceId"].map(argument);
        let instance = launch[2].clone();
        let result = argument("LifecycleActionResult");
        if !["CONTINUE", "ABANDON"].contains(&result.as_str()) {
            return scaling_error("Lifecycle action result must be CONTINUE or ABANDON");
        }
        if !self.state().launches.remove(&launch) {
            return scaling_error(&format!(
                "No active Lifecycle Action found with instance ID {instance}"
            ));
        }
        let body = "<CompleteLifecycleActionResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
                    <CompleteLifecycleActionResult/></CompleteLifecycleActionResponse>";
        Message::answer(200, "text/xml", body)
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each action")]
    fn ec2(&self, request: &Message) -> Result<(Message, Option<Break>)> {
        let arguments = form(&request.body);
        let argument = |name: &str| {
            arguments
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let action = argument("Action").unwrap_or_default().to_owned();
        if let Some(refusal) = self.gate("ec2", &action, false, limits::ec2(&arguments)) {
            return Ok((refusal, None));
        }
        let token = argument("NextToken")
            .map(|token| pages::unhex(token).context("a token of ours"))
            .transpose();
        let Ok(token) = token else {
            return Ok((
                ec2_error(
                    400,
                    "InvalidPaginationToken",
                    "The pagination token is invalid",
                ),
                None,
            ));
        };
        // The token carries the number of its page in front of the id.
        let (page, after) = match token.as_deref().and_then(|token| token.split_once('|')) {
            Some((page, after)) => (page.parse().unwrap_or(1), Some(after.to_owned())),
            None => (1, None),
        };
        let fault = self.fault(&action, page);
        if let Some(broken) = fault.and_then(|how| error(false, how)) {
            return Ok((broken, None));
        }
        if let Some(large) = &self.large {
            let start = after.as_deref().and_then(|after| after.parse().ok());
            let size = self.pace.page_items;
            let read = large.page(&action, &arguments, (start.unwrap_or(0), size));
            let (mut body, next) = read.context("a listing")?;
            if let Some(next) = next {
                let token = pages::hex(&format!("{}|{next}", page + 1));
                body += &format!("<nextToken>{token}</nextToken>");
            }
            body += &format!("</{action}Response>");
            std::thread::sleep(self.pace.page_time);
            return Ok((Message::answer(200, "text/xml", body), fault));
        }
        let mut answer = exchange(self.moto, request)?;
        if pages::listing(&action).is_some() && answer.status() == 200 {
            std::thread::sleep(self.pace.page_time);
            let asked = argument("MaxResults").and_then(|size| size.parse().ok());
            let size = self.pace.page_items.min(asked.unwrap_or(1_000));
            let whole = pages::with_prefixes(answer.text(), &self.state().delegated);
            answer.body = one_page(&whole, &action, (page, after.as_deref()), size)?;
            self.interlude(&action, page);
        }
        match fault {
            Some(Break::Half) => answer.body.truncate(answer.body.len() / 2),
            Some(Break::NoList) => {
                answer.body = pages::without_list(&answer.text(), &action).into_bytes()
            }
            _ => {}
        }
        Ok((answer, fault))
    }

    fn json(
        &self,
        service: &str,
        action: &str,
        request: &Message,
    ) -> Result<(Message, Option<Break>)> {
        let is_put = action == "PutLogEvents";
        let refusal = (is_put && self.large.is_none())
            .then(|| limits::put_log_events(&request.body))
            .flatten();
        if let Some(refusal) = self.gate(service, action, true, refusal) {
            return Ok((refusal, None));
        }
        let fault = self.fault(action, 1);
        if let Some(broken) = fault.and_then(|how| error(true, how)) {
            return Ok((broken, None));
        }
        if let Some(answer) = self.document(request) {
            return Ok((answer, fault));
        }
        if is_put && self.large.is_some() {
            // Reading the batch would take longer than all that is measured here.
            let lines = String::from_utf8_lossy(&request.body);
            self.state().log_lines += lines.matches("\"timestamp\":").count();
            return Ok((
                Message::answer(200, "application/x-amz-json-1.1", "{}"),
                fault,
            ));
        }
        if self.large.is_some() {
            let absent = logs_error(400, "ParameterNotFound", "there are no documents");
            return Ok((absent, fault));
        }
        let mut answer = exchange(self.moto, request)?;
        if is_put && answer.status() == 200 {
            let events: Value = serde_json::from_slice(&request.body)?;
            let messages = events["logEvents"].as_array().into_iter().flatten();
            let messages =
                messages.filter_map(|event| event["message"].as_str().map(ToOwned::to_owned));
            self.state().acknowledged.extend(messages);
            answer.body = limits::rejected_as_the_service_counts(&answer.body)?;
        }
        if fault == Some(Break::Half) {
            answer.body.truncate(answer.body.len() / 2);
        }
        Ok((answer, fault))
    }

    /// A document of another account, asked for where it is.
    fn document(&self, request: &Message) -> Option<Message> {
        let asked: Value = serde_json::from_slice(&request.body).ok()?;
        let arn = asked["Name"]
            .as_str()
            .or_else(|| asked["SecretId"].as_str())?;
        let body = self.state().foreign.get(arn)?.clone();
        let signed_for = request.headers.get("authorization")?.split('/').nth(2)?;
        if arn.split(':').nth(3) != Some(signed_for) {
            let words = format!("{arn} asked for in {signed_for}");
            return Some(logs_error(400, "ValidationException", &words));
        }
        let value = serde_json::json!({"Parameter": {"Value": body}, "SecretString": body});
        Some(Message::answer(
            200,
            "application/x-amz-json-1.1",
            value.to_string(),
        ))
    }

    /// Counts the call, and refuses it when it is over a limit or a bucket is empty.
    fn gate(
        &self,
        service: &str,
        action: &str,
        is_logs: bool,
        refusal: Option<Message>,
    ) -> Option<Message> {
        *self.state().calls.entry(action.to_owned()).or_default() += 1;
        let permission = format!("{service}:{action}");
        if self.state().denied.contains(&permission) {
            return Some(denied(is_logs, &permission));
        }
        self.state().used.insert(permission);
        if let Some(refusal) = refusal {
            self.state()
                .refused
                .push(format!("{action}: {}", refusal.text()));
            return Some(refusal);
        }
        if self.buckets.take(action) {
            return None;
        }
        self.state().throttled += 1;
        error(is_logs, Break::Throttled)
            .or_else(|| Some(logs_error(400, "ThrottlingException", "Rate exceeded")))
    }

    /// The fault that strikes now, if one does.
    fn fault(&self, action: &str, page: u32) -> Option<Break> {
        let mut state = self.state();
        let fault = state
            .faults
            .iter_mut()
            .find(|fault| fault.applies(action, page))?;
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        Some(fault.how)
    }

    fn interlude(&self, action: &str, page: u32) {
        let mut state = self.state();
        let found = state
            .interludes
            .iter()
            .position(|(of, after, _)| of == action && *after == page);
        let work = found.map(|index| state.interludes.remove(index).2);
        drop(state);
        if let Some(work) = work {
            work();
        }
    }

    /// Waits until an action has been called `more` times from now on.
    pub fn wait_calls(&self, action: &str, more: u32, limit: Duration) -> bool {
        let wanted = self.calls(action) + more;
        let deadline = Instant::now() + limit;
        while self.calls(action) < wanted {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

/// The service a request was signed for: `Credential=key/date/region/service/aws4_request`.
fn service_of(request: &Message) -> String {
    let scope = request.headers.get("authorization");
    let service = scope.and_then(|scope| scope.split('/').nth(3));
    service.unwrap_or("ec2").to_owned()
}

/// What a caller without the permission is told.
pub(super) fn denied(is_json: bool, permission: &str) -> Message {
    let words = format!("not authorized to perform: {permission}");
    if is_json {
        logs_error(400, "AccessDeniedException", &words)
    } else if permission.starts_with("ec2:") {
        ec2_error(403, "UnauthorizedOperation", &words)
    } else {
        ec2_error(403, "AccessDenied", &words)
    }
}

/// An error as Auto Scaling writes it.
pub(super) fn scaling_error(words: &str) -> Message {
    let body = format!(
        "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error><Type>Sender</Type>\
         <Code>ValidationError</Code><Message>{words}</Message></Error></ErrorResponse>"
    );
    Message::answer(400, "text/xml", body)
}

/// One page of a whole answer; its token carries the number of the next page in front of the id.
fn one_page(
    whole: &str,
    action: &str,
    (page, after): (u32, Option<&str>),
    size: usize,
) -> Result<Vec<u8>> {
    let cut = pages::page(whole, action, after, size);
    let (body, next) = cut.with_context(|| format!("cutting {whole}"))?;
    let Some(id) = next else {
        return Ok(body.into_bytes());
    };
    let plain = format!("<nextToken>{}<", pages::hex(&id));
    let numbered = pages::hex(&format!("{}|{id}", page + 1));
    Ok(body
        .replace(&plain, &format!("<nextToken>{numbered}<"))
        .into_bytes())
}
