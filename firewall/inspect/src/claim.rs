//! What a client's first message claims.

use std::sync::Arc;

use policy::{AppProto, HostKeyPin, Name, Reason, Transport};

use crate::conclude::Facts;
use crate::detect::{Detected, detect};
use crate::progress::Progress;
use crate::record::HttpRecord;
use crate::{http, ssh, tls};

/// A client's complete first message, sound or not.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) proto: AppProto,
    pub(crate) proto_v: &'static str,
    /// What the log shows as name asked for.
    pub(crate) text: Arc<str>,
    /// Why no rule by name can admit it.
    pub(crate) fault: Option<Reason>,
    pub(crate) pqc: bool,
    pub(crate) message: Message,
}

/// The message itself, as far as it can be followed from here.
#[derive(Debug)]
pub(crate) enum Message {
    Tls(Box<tls::ClientHello>),
    Ssh,
    Http(Box<http::Request>),
    /// Nothing that can be followed.
    Opaque,
}

/// A name bound to the destination that an SSH client may reach there.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) name: Name,
    pub(crate) pins: Vec<HostKeyPin>,
}

impl Claim {
    /// Reads the start of a client's stream; `None` while the message is not complete.
    pub(crate) fn read(stream: &[u8]) -> Option<Self> {
        match detect(stream) {
            Detected::NeedMore => None,
            Detected::Tls => Self::read_tls(stream),
            Detected::Ssh => Self::read_ssh(stream),
            Detected::Http => Self::read_http(stream),
            Detected::Sslv2 => Some(Self {
                proto_v: tls::TlsVersion(0x0002).as_str(),
                ..Self::faulty(AppProto::Tls, Reason::Sslv2Hello)
            }),
            Detected::Unknown => Some(Self::faulty(AppProto::Unknown, Reason::ProtocolUnknown)),
        }
    }

    fn faulty(proto: AppProto, reason: Reason) -> Self {
        Self {
            proto,
            proto_v: "",
            text: Arc::default(),
            fault: Some(reason),
            pqc: false,
            message: Message::Opaque,
        }
    }

    fn read_tls(stream: &[u8]) -> Option<Self> {
        let (seen, fault, message) = match tls::client_hello(stream, &tls::Limits::default()) {
            Progress::Incomplete => return None,
            Progress::Refused(rejected) => (*rejected.seen, Some(rejected.reason), Message::Opaque),
            Progress::Complete(hello) => {
                (hello.seen(), hello.fault(), Message::Tls(Box::new(hello)))
            }
        };
        Some(Self {
            proto: AppProto::Tls,
            proto_v: seen.version.map_or("", tls::TlsVersion::as_str),
            text: seen.server_name,
            fault,
            pqc: seen.pqc,
            message,
        })
    }

    fn read_ssh(stream: &[u8]) -> Option<Self> {
        match ssh::client_identification(stream) {
            Progress::Incomplete => None,
            Progress::Refused(reason) => Some(Self::faulty(AppProto::Ssh, reason)),
            Progress::Complete(_) => Some(Self {
                proto: AppProto::Ssh,
                proto_v: "2.0",
                text: Arc::default(),
                fault: None,
                pqc: false,
                message: Message::Ssh,
            }),
        }
    }

    fn read_http(stream: &[u8]) -> Option<Self> {
        let (request, fault) = match http::request(stream) {
            Progress::Incomplete => return None,
            Progress::Refused(bad) => (bad.seen, Some(bad.reason)),
            Progress::Complete(request) => (Some(Box::new(request)), None),
        };
        let Some(request) = request else {
            return Some(Self::faulty(AppProto::Http, Reason::PlaintextHttp));
        };
        Some(Self::of_request(request, fault))
    }

    /// The claim of a request head.
    pub(crate) fn of_request(request: Box<http::Request>, fault: Option<Reason>) -> Self {
        let named = request.host.name().is_some() && !request.is_http2_preface();
        Self {
            proto: AppProto::Http,
            proto_v: "",
            text: request.host.log_text().into(),
            fault: fault.or_else(|| (!named).then_some(Reason::PlaintextHttp)),
            pqc: false,
            message: Message::Http(request),
        }
    }

    /// The same from what has come of it, when no more may come.
    pub(crate) fn read_partial(stream: &[u8]) -> Facts {
        let proto = match detect(stream) {
            Detected::Tls | Detected::Sslv2 => AppProto::Tls,
            Detected::Ssh => AppProto::Ssh,
            Detected::Http => AppProto::Http,
            Detected::NeedMore | Detected::Unknown => AppProto::Unknown,
        };
        let request = http::request_so_far(stream).map(Box::new);
        match request {
            Some(request) => Self::of_request(request, None).facts(),
            None => Facts {
                proto,
                ..Facts::default()
            },
        }
    }

    /// The name claimed, where the protocol states one and it is well formed.
    pub(crate) fn name(&self) -> Option<&Name> {
        match &self.message {
            Message::Tls(hello) => hello.server_name.name(),
            Message::Http(request) => request.host.name(),
            Message::Ssh | Message::Opaque => None,
        }
    }

    /// Whether the hello may hide another name.
    pub(crate) fn hides_a_name(&self) -> bool {
        matches!(&self.message, Message::Tls(hello) if hello.ech == tls::Ech::Present)
    }

    /// What a record says of it.
    pub(crate) fn facts(&self) -> Facts {
        let http = match &self.message {
            Message::Http(request) => Some(HttpRecord {
                method: request.method.into(),
                path: request.path.clone(),
                user_agent: request.user_agent.clone(),
                code: None,
            }),
            Message::Tls(_) | Message::Ssh | Message::Opaque => None,
        };
        Facts {
            transport: Transport::Tcp,
            proto: self.proto,
            proto_v: self.proto_v,
            dhost: (!self.text.is_empty()).then(|| Arc::clone(&self.text)),
            pqc: self.pqc,
            rescued: false,
            http,
            also: None,
        }
    }
}
