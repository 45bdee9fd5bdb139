//! Plain HTTP requests and responses, read just far enough to judge and to log.
//!
//! Strict where two readers could differ: bare CR, folded or malformed headers, several Host
//! headers, an absolute target that names another host. Never reads a body.

use policy::{InvalidName, Name, Reason};

use crate::escape::escape;
use crate::progress::Progress;

/// Greatest request or response head, from the first byte to the empty line.
pub const HEAD_MAX: usize = 16 * 1024;

/// Methods of the IANA registry, and the `PRI` of HTTP/2's preface (RFC 9113, section 3.4).
const METHODS: [&str; 40] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];
const METHOD_MAX: usize = 17;

/// Whether a stream begins with a method and a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// It does.
    Known(&'static str),
    /// It may yet.
    Partial,
    /// It does not.
    Unknown,
}

/// Looks for a registered method at the start of a stream. Methods are case-sensitive
/// (RFC 9110, section 9.1).
#[must_use]
pub fn method(stream: &[u8]) -> Method {
    let head = stream.get(..=METHOD_MAX).unwrap_or(stream);
    let Some(end) = head.iter().position(|&byte| byte == b' ') else {
        let begun = METHODS
            .iter()
            .any(|method| method.as_bytes().starts_with(head));
        return if begun {
            Method::Partial
        } else {
            Method::Unknown
        };
    };
    let token = head.get(..end).unwrap_or_default();
    METHODS
        .iter()
        .find(|method| method.as_bytes() == token)
        .map_or(Method::Unknown, |method| Method::Known(method))
}

/// The host a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// One well-formed DNS name.
    Claimed(Name),
    /// No Host header, or an empty one.
    Absent,
    /// More than one, or one that differs from an absolute target: text for the log.
    Multiple(Box<str>),
    /// Not a DNS name: text for the log.
    Malformed(Box<str>),
    /// An IP address: text for the log.
    IpLiteral(Box<str>),
}

impl Host {
    fn read(authority: &[u8]) -> Self {
        let host = without_port(authority);
        if host.is_empty() {
            return Self::Absent;
        }
        match Name::parse(host) {
            Ok(name) => Self::Claimed(name),
            Err(InvalidName::IpLiteral) => Self::IpLiteral(escape(authority)),
            Err(_) => Self::Malformed(escape(authority)),
        }
    }

    /// The name, if it is one that can be judged.
    #[must_use]
    pub const fn name(&self) -> Option<&Name> {
        match self {
            Self::Claimed(name) => Some(name),
            Self::Absent | Self::Multiple(_) | Self::Malformed(_) | Self::IpLiteral(_) => None,
        }
    }

    /// What the log's `dhost` says; empty when nothing was claimed.
    #[must_use]
    pub fn log_text(&self) -> &str {
        match self {
            Self::Claimed(name) => name.as_str(),
            Self::Absent => "",
            Self::Multiple(text) | Self::Malformed(text) | Self::IpLiteral(text) => text,
        }
    }
}

/// `host` of `host:port`, or the whole when no decimal port follows a single colon.
fn without_port(authority: &[u8]) -> &[u8] {
    let mut parts = authority.rsplitn(2, |&byte| byte == b':');
    match (parts.next(), parts.next()) {
        (Some(port), Some(host)) if port.iter().all(u8::is_ascii_digit) => host,
        _ => authority,
    }
}

/// A request head, or as much of it as had come when it was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// Path of the target without its query, escaped and capped at 253 bytes.
    pub path: Box<str>,
    /// Host asked for.
    pub host: Host,
    /// User-Agent, escaped and capped at 253 bytes; empty when there is none.
    pub user_agent: Box<str>,
    /// Stream bytes of the head, the empty line included.
    pub bytes: usize,
}

impl Request {
    /// Whether this is the preface of HTTP/2 with prior knowledge.
    #[must_use]
    pub fn is_http2_preface(&self) -> bool {
        self.method == "PRI"
    }
}

/// What is known of a request that cannot be read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRequest {
    /// The reason: always `plaintext_http`, for it is that whatever else it is.
    pub reason: Reason,
    /// The request line and the headers before the fault, if the line was whole.
    pub seen: Option<Box<Request>>,
}

/// Reads the request head at the start of a client's stream.
#[must_use]
pub fn request(stream: &[u8]) -> Progress<Request, BadRequest> {
    let method = match method(stream) {
        Method::Partial => return Progress::Incomplete,
        Method::Unknown => return refused(None),
        Method::Known(method) => method,
    };
    let (head, is_whole) = match head(stream) {
        Head::Whole(head) => (head, true),
        Head::Partial => return Progress::Incomplete,
        Head::TooLong(head) => (head, false),
    };
    let mut lines = Lines { rest: head };
    let line = lines.next().and_then(|line| request_line(line, method));
    let Some((target, authority)) = line else {
        return refused(None);
    };
    let mut request = Request {
        method,
        path: escape(target),
        host: authority.map_or(Host::Absent, Host::read),
        user_agent: Box::default(),
        bytes: head.len(),
    };
    let headers = read_headers(lines, &mut request, authority.is_some());
    if is_whole && headers.is_some() {
        Progress::Complete(request)
    } else {
        refused(Some(Box::new(request)))
    }
}

/// The request line alone, for a refusal that does not wait for the headers.
///
/// Complete as soon as its line feed is there; host and user agent are filled in as far as
/// whole header lines have come.
#[must_use]
pub fn request_so_far(stream: &[u8]) -> Option<Request> {
    let Method::Known(method) = method(stream) else {
        return None;
    };
    let whole_lines = stream.iter().rposition(|&byte| byte == b'\n')? + 1;
    let mut lines = Lines {
        rest: stream.get(..whole_lines.min(HEAD_MAX))?,
    };
    let (target, authority) = request_line(lines.next()?, method)?;
    let mut request = Request {
        method,
        path: escape(target),
        host: authority.map_or(Host::Absent, Host::read),
        user_agent: Box::default(),
        bytes: whole_lines,
    };
    // What cannot be read is left out: this is for the log only.
    let _readable = read_headers(lines, &mut request, authority.is_some()).is_some();
    Some(request)
}

fn refused(seen: Option<Box<Request>>) -> Progress<Request, BadRequest> {
    Progress::Refused(BadRequest {
        reason: Reason::PlaintextHttp,
        seen,
    })
}

enum Head<'a> {
    Whole(&'a [u8]),
    Partial,
    TooLong(&'a [u8]),
}

/// Everything up to and with the empty line, if it comes within [`HEAD_MAX`] bytes.
fn head(stream: &[u8]) -> Head<'_> {
    let searched = stream.get(..HEAD_MAX).unwrap_or(stream);
    let end = searched.windows(4).position(|window| window == b"\r\n\r\n");
    match end.and_then(|end| searched.get(..end + 4)) {
        Some(head) => Head::Whole(head),
        None if searched.len() == HEAD_MAX => Head::TooLong(searched),
        None => Head::Partial,
    }
}

/// Lines ended by CR LF; a CR or LF elsewhere yields a line that no reader accepts.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| byte == b'\n')?;
        let (line, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.get(1..)?;
        Some(line.strip_suffix(b"\r").unwrap_or(b"\n"))
    }
}

/// Target without query, and the authority if the target carries one.
fn request_line<'a>(line: &'a [u8], method: &str) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let target = line.strip_prefix(method.as_bytes())?.strip_prefix(b" ")?;
    let target = [b" HTTP/1.1".as_slice(), b" HTTP/1.0", b" HTTP/2.0"]
        .iter()
        .find_map(|version| target.strip_suffix(*version))?;
    let legal = !target.is_empty() && target.iter().all(|byte| matches!(byte, 0x21..=0x7e));
    if !legal {
        return None;
    }
    let path_of = |target: &'a [u8]| target.split(|&byte| byte == b'?').next().unwrap_or(target);
    if method == "CONNECT" {
        return Some((target, Some(target)));
    }
    let scheme = target
        .get(..7)
        .filter(|scheme| scheme.eq_ignore_ascii_case(b"http://"));
    let Some(absolute) = scheme.and_then(|_| target.get(7..)) else {
        return Some((path_of(target), None));
    };
    let end = absolute
        .iter()
        .position(|&byte| matches!(byte, b'/' | b'?'));
    let (authority, path) = absolute.split_at_checked(end.unwrap_or(absolute.len()))?;
    Some((path_of(path), Some(authority)))
}

/// Reads header lines up to the empty one; `None` when one of them is malformed.
fn read_headers(lines: Lines<'_>, request: &mut Request, absolute: bool) -> Option<()> {
    let mut hosts = 0;
    for line in lines {
        if line.is_empty() {
            return Some(());
        }
        let (name, value) = header(line)?;
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
            let host = Host::read(value);
            if hosts > 1 || (absolute && host != request.host) {
                request.host = Host::Multiple(escape(value));
            } else {
                request.host = host;
            }
        } else if name.eq_ignore_ascii_case(b"user-agent") {
            request.user_agent = escape(value);
        }
    }
    None
}

/// Name and value of a header line (RFC 9112, section 5): no space before the colon, no
/// folding, no control characters.
fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let value = value.get(1..)?.trim_ascii();
    let legal = !name.is_empty()
        && name.iter().all(is_token)
        && value
            .iter()
            .all(|&byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f));
    legal.then_some((name, value))
}

/// Reads the status line at the start of a server's stream: the response code.
///
/// HTTP/2 has none in clear text: `plaintext_http` is refused on the client's side already.
#[must_use]
pub fn status(stream: &[u8]) -> Progress<u16> {
    const VERSION: &[u8] = b"HTTP/1.";
    let begun = stream.get(..VERSION.len()).unwrap_or(stream);
    if !VERSION.starts_with(begun) {
        return Progress::Refused(Reason::ProtocolUnknown);
    }
    let Some(rest) = stream.get(VERSION.len()..12) else {
        return Progress::Incomplete;
    };
    match rest {
        [b'0' | b'1', b' ', hundreds @ b'1'..=b'9', tens, units]
            if tens.is_ascii_digit() && units.is_ascii_digit() =>
        {
            let digit = |byte: &u8| u16::from(byte - b'0');
            Progress::Complete(digit(hundreds) * 100 + digit(tens) * 10 + digit(units))
        }
        _ => Progress::Refused(Reason::ProtocolUnknown),
    }
}

#[cfg(test)]
mod tests;
