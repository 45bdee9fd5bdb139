//! What the certificate a server shows to the witness means for flows to it.
//!
//! The witness asks beside the flow, never before it: the first flow to a server goes on while its certificate is
//! looked at. DNS stays the first authority, for a hostile address can relay a good certificate; so this is asked only
//! about flows that a name and a binding have let pass already.

use std::net::SocketAddr;

use policy::preferences::CertificateCheck;
use policy::{Name, Reason};

use crate::claim::{Claim, Message};
use crate::env::{Certificate, Env};
use crate::flow::FlowKey;
use crate::inspector::Inspector;
use crate::judge::Judgement;
use crate::machine::Machine;
use crate::output::Output;
use crate::ruling::Ruling;
use crate::stage::Conversing;

/// Whether what the witness has seen speaks against a server under a name. That it has seen nothing does so where the
/// address is known from history only: somebody else may have it by now, who lets no witness in.
fn is_distrusted(env: &Env<'_>, name: &Name, server: SocketAddr, certificate: Certificate) -> bool {
    match certificate {
        Certificate::Invalid => true,
        Certificate::Unseen => !env.bindings.is_current(name, server.ip(), env.now),
        Certificate::Unasked | Certificate::Asked | Certificate::Valid => false,
    }
}

/// Whether a ruling stands on a name and its binding, and on nothing that lets other bytes pass as well.
fn is_by_name(ruling: &Ruling, is_lenient: bool) -> bool {
    ruling.is_allowed() && ruling.would_reason.is_none() && !ruling.is_exerted() && !is_lenient
}

impl Inspector {
    /// Holds an allowed claim against what is known of the server's certificate, and asks for it where nothing is.
    pub(crate) fn weigh_certificate(
        &mut self,
        env: &Env<'_>,
        key: &FlowKey,
        claim: &Claim,
        judgement: &mut Judgement,
    ) {
        let check = env.policy.preferences().certificate_check;
        let is_tls = matches!(claim.message, Message::Tls(_));
        let Some(name) = claim.name().filter(|_| is_tls) else {
            return;
        };
        if check == CertificateCheck::Off || !is_by_name(&judgement.ruling, judgement.is_lenient) {
            return;
        }
        let certificate = env.bindings.certificate(name, key.server, env.now);
        if certificate == Certificate::Unasked {
            self.outputs.push_back(Output::Certify {
                name: name.clone(),
                server: key.server,
            });
        }
        if !is_distrusted(env, name, key.server, certificate) {
            return;
        }
        if check == CertificateCheck::Enforce {
            judgement.ruling = Ruling::refusal(env, key.client.ip(), Reason::CertificateInvalid);
        } else {
            judgement.ruling.would_reason = Some(Reason::CertificateInvalid);
        }
    }
}

/// Whether a flow that is about to be handed to the kernel is to a server whose certificate was found wanting while it
/// was judged.
pub(crate) fn ends_here(env: &Env<'_>, talk: &Conversing, server: SocketAddr) -> bool {
    let enforced = env.policy.preferences().certificate_check == CertificateCheck::Enforce;
    let is_tls = matches!(talk.machine, Machine::Tls(_));
    let name = talk.machine.name().filter(|_| is_tls);
    enforced
        && is_by_name(&talk.ruling, talk.is_lenient)
        && name.is_some_and(|name| {
            let certificate = env.bindings.certificate(name, server, env.now);
            is_distrusted(env, name, server, certificate)
        })
}
