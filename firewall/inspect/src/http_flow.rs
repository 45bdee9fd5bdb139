//! Plain HTTP to listed names (preference `plaintext_http = "allow_listed"`).
//!
//! A connection may carry any number of requests, and each may name another host, so such a
//! flow is never handed to the kernel: every request head is judged before it leaves. What a
//! reader could take for either body or request is refused: transfer codings, upgrades,
//! tunnels, two lengths. A second host is judged by the bindings as they are, without a
//! look-up. Answers pass unread once their status line has been. Bytes of a request are kept
//! until the server acknowledges them with a packet that carries payload, so an upload of
//! more than is kept for one direction (64 KiB) before the answer begins is `hello_too_big`.

use std::sync::Arc;

use policy::Reason;

use crate::claim::Claim;
use crate::conclude::Facts;
use crate::env::Env;
use crate::flow::Side;
use crate::http;
use crate::inspector::Inspector;
use crate::judge::judge;
use crate::progress::Progress;
use crate::record::{Category, FlowRecord};
use crate::ruling::Ruling;
use crate::stage::{Flow, Stage};

/// Idle time after which a kept-alive connection is forgotten, as a multiple of the time an
/// answer may take.
const IDLE_FACTOR: u64 = 5;

#[derive(Debug)]
pub(crate) struct HttpFlow {
    pub(crate) ruling: Ruling,
    facts: Facts,
    /// Offset in the client's stream up to which everything is judged.
    at: usize,
    /// Bytes of the current request's body still to come.
    body_left: usize,
    requests: usize,
    answered: bool,
    /// The first request's line, where it waits for its answer.
    pub(crate) session: Option<Arc<FlowRecord>>,
}

/// What a request head is refused for, or the size of the body that follows it.
fn body_bytes(head: &[u8], request: &http::Request) -> Option<usize> {
    if matches!(request.method, "CONNECT" | "PRI") {
        return None;
    }
    let mut length = None;
    for line in head.split(|&byte| byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at_checked(colon)?;
        let value = value.get(1..)?.trim_ascii();
        if name.eq_ignore_ascii_case(b"transfer-encoding") || name.eq_ignore_ascii_case(b"upgrade")
        {
            return None;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(value).ok().filter(|_| digits)?;
            if length.replace(text.parse::<usize>().ok()?).is_some() {
                return None;
            }
        }
    }
    Some(length.unwrap_or(0))
}

impl HttpFlow {
    /// A flow whose first request has been allowed and logged.
    pub(crate) const fn new(
        ruling: Ruling,
        facts: Facts,
        session: Option<Arc<FlowRecord>>,
    ) -> Self {
        Self {
            ruling,
            facts,
            at: 0,
            body_left: 0,
            requests: 0,
            answered: false,
            session,
        }
    }

    pub(crate) fn facts(&self) -> Facts {
        self.facts.clone()
    }

    /// `n` bytes at the start of one side's stream are gone.
    pub(crate) const fn forgotten(&mut self, side: Side, n: usize) {
        if matches!(side, Side::Client) {
            self.at = self.at.saturating_sub(n);
        }
    }
}

/// What became of the client's bytes.
enum Read {
    /// As far as they go they are judged, or wait for more.
    Judged,
    /// This request is refused.
    Refused(Box<Ruling>, Box<Facts>),
}

impl Inspector {
    /// One side of a plain HTTP flow has sent something.
    pub(crate) fn advance_http(&mut self, env: &Env<'_>, mut flow: Box<Flow>, side: Side) {
        let Stage::Http(mut http) = flow.take_stage() else {
            debug_assert!(false, "only an HTTP flow is advanced as one");
            return self.refuse_for(env, flow, Side::Client, Reason::Internal);
        };
        flow.deadline = self.http_deadline(env);
        let read = self.read_requests(env, &mut flow, &mut http);
        if let Read::Refused(ruling, facts) = read {
            flow.stage = Stage::Http(http);
            return self.refuse(env, flow, Category::Client, &ruling, &facts);
        }
        if side == Side::Server && !http.answered {
            match http::status(flow.server.stream.contiguous()) {
                Progress::Incomplete => {}
                Progress::Refused(reason) => {
                    let ruling = Ruling::refusal(env, flow.key.client.ip(), reason);
                    let facts = http.facts();
                    flow.stage = Stage::Http(http);
                    return self.refuse(env, flow, Category::Server, &ruling, &facts);
                }
                Progress::Complete(code) => {
                    http.answered = true;
                    let mut facts = http.facts();
                    if let Some(record) = &mut facts.http {
                        record.code = Some(code);
                    }
                    self.log(env, &flow.key, Category::Server, &http.ruling, &facts);
                    self.log_session(http.session.take(), &facts);
                    flow.server.stream.stop_inspecting();
                }
            }
        }
        flow.stage = Stage::Http(http);
        let Some(flow) = self.flush(env, flow, Side::Client) else {
            return;
        };
        let Some(flow) = self.flush(env, flow, Side::Server) else {
            return;
        };
        self.keep(env, flow);
    }

    /// When an idle HTTP flow is forgotten.
    pub(crate) fn http_deadline(&self, env: &Env<'_>) -> u64 {
        let idle = self.limits.answer_ms.saturating_mul(IDLE_FACTOR);
        env.now.mono_ms.saturating_add(idle).max(1)
    }

    fn read_requests(&mut self, env: &Env<'_>, flow: &mut Flow, http: &mut HttpFlow) -> Read {
        loop {
            let rest = flow
                .client
                .stream
                .contiguous()
                .get(http.at..)
                .unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            if http.body_left > 0 {
                let body = http.body_left.min(rest.len());
                http.at = http.at.saturating_add(body);
                http.body_left = http.body_left.saturating_sub(body);
                continue;
            }
            let (claim, bytes, body) = match http::request(rest) {
                Progress::Incomplete => break,
                Progress::Refused(bad) => {
                    let facts = bad.seen.map_or_else(
                        || Facts {
                            http: None,
                            ..http.facts()
                        },
                        |seen| Claim::of_request(seen, None).facts(),
                    );
                    return self.refused_request(env, flow, facts);
                }
                Progress::Complete(request) => {
                    let head = rest.get(..request.bytes).unwrap_or_default();
                    let (bytes, body) = (request.bytes, body_bytes(head, &request));
                    (Claim::of_request(Box::new(request), None), bytes, body)
                }
            };
            let Some(body) = body else {
                return self.refused_request(env, flow, claim.facts());
            };
            if http.requests > 0 {
                let judgement = judge(env, &flow.key, &claim);
                if !judgement.ruling.is_allowed() {
                    return Read::Refused(Box::new(judgement.ruling), Box::new(claim.facts()));
                }
                http.ruling = judgement.ruling;
                http.facts = claim.facts();
                self.log(env, &flow.key, Category::Client, &http.ruling, &http.facts);
            }
            http.requests = http.requests.saturating_add(1);
            http.at = http.at.saturating_add(bytes);
            http.body_left = body;
        }
        flow.client.stream.release_to(http.at);
        Read::Judged
    }

    fn refused_request(&self, env: &Env<'_>, flow: &Flow, facts: Facts) -> Read {
        let ruling = Ruling::refusal(env, flow.key.client.ip(), Reason::PlaintextHttp);
        Read::Refused(Box::new(ruling), Box::new(facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Option<usize> {
        match http::request(text.as_bytes()) {
            Progress::Complete(request) => body_bytes(text.as_bytes(), &request),
            Progress::Incomplete | Progress::Refused(_) => None,
        }
    }

    #[test]
    fn a_body_has_one_length_and_no_coding() {
        assert_eq!(body("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), Some(0));
        assert_eq!(
            body("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 12\r\n\r\n"),
            Some(12)
        );
        for header in [
            "Content-Length: 1\r\ncontent-length: 1",
            "Content-Length: +1",
            "Content-Length: 1, 1",
            "Content-Length:",
            "Transfer-Encoding: chunked",
            "Upgrade: h2c",
        ] {
            let text = format!("POST / HTTP/1.1\r\nHost: a.example\r\n{header}\r\n\r\n");
            assert_eq!(body(&text), None, "{header}");
        }
    }
}
