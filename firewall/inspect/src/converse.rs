//! A flow whose client has been allowed: the server's answer, then the proof of both sides.

use policy::{AppProto, Name, Reason, Transport};

use crate::certificate;
use crate::conclude::Facts;
use crate::env::Env;
use crate::flow::Side;
use crate::inspector::Inspector;
use crate::machine::Machine;
use crate::record::Category;
use crate::ruling::Ruling;
use crate::stage::{Conversing, Flow, Stage};

impl Conversing {
    /// What the server's line says.
    pub(crate) fn facts(&self) -> Facts {
        let proto = match self.machine {
            Machine::Tls(_) => AppProto::Tls,
            Machine::Ssh(_) => AppProto::Ssh,
        };
        Facts {
            transport: Transport::Tcp,
            proto,
            proto_v: self.machine.version(),
            dhost: self.machine.name().map(Name::shared),
            pqc: self.machine.is_pqc(),
            rescued: self.rescued,
            http: None,
            also: None,
        }
    }

    /// Feeds what one side has sent since, and lets through what is understood.
    fn feed(&mut self, flow: &mut Flow, side: Side) -> Result<(), Reason> {
        let read = match side {
            Side::Client => &mut self.read_client,
            Side::Server => &mut self.read_server,
        };
        let stream = &mut flow.half_mut(side).stream;
        if stream.is_opaque() {
            return Ok(());
        }
        let fresh = stream.contiguous().get(*read..).unwrap_or_default();
        let framed = self.machine.take(side, fresh)?;
        *read = stream.contiguous().len();
        stream.release_to(usize::try_from(framed.safe).unwrap_or(0));
        match side {
            Side::Client => self.protected_client = framed.protected,
            Side::Server => self.protected_server = framed.protected,
        }
        Ok(())
    }
}

impl Inspector {
    /// One side of an allowed flow has sent something.
    pub(crate) fn converse(&mut self, env: &Env<'_>, mut flow: Box<Flow>, side: Side) {
        let Stage::Conversing(mut talk) = flow.take_stage() else {
            debug_assert!(false, "only an allowed flow converses");
            return self.refuse_for(env, flow, Side::Client, Reason::Internal);
        };
        // Bytes of the other side may have waited for these: a client that spoke second, a
        // server whose identification came first.
        let fed = talk
            .feed(&mut flow, side)
            .and_then(|()| talk.feed(&mut flow, side.other()));
        if let Err(reason) = fed {
            return self.fault(env, flow, talk, side, reason);
        }
        if !talk.answered && talk.machine.is_answered() {
            talk.answered = true;
            let server = Ruling {
                would_reason: None,
                ..talk.ruling.clone()
            };
            let facts = talk.facts();
            self.log(env, &flow.key, Category::Server, &server, &facts);
            self.log_session(talk.session.take(), &facts);
        }
        if talk.protected_client && talk.protected_server && talk.answered {
            if certificate::ends_here(env, &talk, flow.key.server) {
                flow.stage = Stage::Conversing(talk);
                return self.refuse_for(env, flow, Side::Server, Reason::CertificateInvalid);
            }
            flow.stage = Stage::Conversing(talk);
            return self.hand_over(env, flow, side);
        }
        for (side, protected) in [
            (Side::Client, talk.protected_client),
            (Side::Server, talk.protected_server),
        ] {
            let stream = &mut flow.half_mut(side).stream;
            if protected && talk.answered && !stream.is_opaque() {
                stream.stop_inspecting();
            }
        }
        flow.deadline = self.answer_deadline(env, &flow, &talk);
        flow.stage = Stage::Conversing(talk);
        let Some(flow) = self.flush(env, flow, Side::Client) else {
            return;
        };
        let Some(flow) = self.flush(env, flow, Side::Server) else {
            return;
        };
        self.keep(env, flow);
    }

    /// A held part of the server's first message has ten seconds to become whole; everything
    /// else has the time a handshake may take.
    fn answer_deadline(&self, env: &Env<'_>, flow: &Flow, talk: &Conversing) -> u64 {
        let waiting = !talk.answered && !flow.server.stream.contiguous().is_empty();
        let limit = if waiting {
            self.limits.hello_ms
        } else {
            self.limits.answer_ms
        };
        let fresh = env.now.mono_ms.saturating_add(limit).max(1);
        // Only progress buys time, and a hello is no faster for being sent byte by byte.
        if talk.answered {
            flow.deadline.max(fresh)
        } else {
            flow.deadline.min(fresh)
        }
    }

    /// A side has sent what its protocol does not allow there.
    fn fault(
        &mut self,
        env: &Env<'_>,
        mut flow: Box<Flow>,
        mut talk: Box<Conversing>,
        side: Side,
        reason: Reason,
    ) {
        let category = match side {
            Side::Client => Category::Client,
            Side::Server => Category::Server,
        };
        let facts = talk.facts();
        let is_lenient = talk.is_lenient;
        let ruling = talk.ruling.clone();
        let answered = talk.answered;
        let session = if is_lenient {
            talk.session.take()
        } else {
            None
        };
        flow.stage = Stage::Conversing(talk);
        if is_lenient {
            // Any bytes may pass here, and these are no longer ones we can follow.
            if !answered {
                let server = Ruling {
                    would_reason: None,
                    ..ruling
                };
                self.log(env, &flow.key, Category::Server, &server, &facts);
                self.log_session(session, &facts);
            }
            return self.hand_over(env, flow, side);
        }
        let refusal = Ruling::refusal(env, flow.key.client.ip(), reason);
        let refusal = Ruling {
            gid: None,
            rule: None,
            ..refusal
        };
        self.refuse(env, flow, category, &refusal, &facts);
    }
}
