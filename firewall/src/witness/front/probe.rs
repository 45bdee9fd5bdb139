//! Whether a resolver that the front asks leads back to a front: then a question would go round for ever.
//!
//! Each resolver is asked for a name of our own under `loopcheck.invalid`, which nobody can answer (RFC 6761, section
//! 6.4). A front that sees its own name is asked by itself; another front answers with [`MARK`], and says so that way.

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;

use hickory_resolver::proto::rr::{Name, RecordType};
use ipc::witness::FrontStateV1;

use crate::witness::resolve::Upstreams;

/// What a front answers to the probe of another: an address that is nobody's (RFC 7600, section 4.8).
pub(super) const MARK: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// The zone of every probe.
const ZONE: &str = "loopcheck.invalid";

/// What the probes have shown.
#[derive(Debug)]
pub(super) struct LoopCheck {
    own: String,
    /// The resolver whose probe came to us since the round began.
    returned: Option<usize>,
    upstreams: Vec<String>,
}

impl Default for LoopCheck {
    fn default() -> Self {
        Self {
            own: fresh_label(),
            returned: None,
            upstreams: Vec::new(),
        }
    }
}

/// What a question about a name means to the check.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Nothing.
    Other,
    /// Another front's: it is to be marked.
    Foreign,
    /// Our own has come back.
    Own,
}

impl LoopCheck {
    /// Notes a question.
    pub(super) fn note(&mut self, name: &str) -> Probe {
        let name = name.to_ascii_lowercase();
        let Some(label) = name
            .strip_suffix(ZONE)
            .and_then(|rest| rest.strip_suffix('.'))
        else {
            return Probe::Other;
        };
        let own = label
            .strip_prefix(&self.own)
            .and_then(|rest| rest.strip_prefix('-'));
        match own.map(str::parse) {
            Some(Ok(number)) => {
                self.returned = Some(number);
                Probe::Own
            }
            _ => Probe::Foreign,
        }
    }

    /// Begins a round: asks every resolver; the future says which one answered as a front does.
    pub(super) fn begin(
        &mut self,
        upstreams: &Upstreams,
    ) -> impl Future<Output = Option<String>> + Send + 'static {
        self.returned = None;
        // A name that no resolver can have an answer to in its memory.
        self.own = fresh_label();
        self.upstreams = upstreams.addresses();
        let name = |number: usize| Name::from_ascii(format!("{}-{number}.{ZONE}.", self.own));
        let names: Vec<Name> = (0..self.upstreams.len())
            .filter_map(|it| name(it).ok())
            .collect();
        let upstreams = upstreams.clone();
        async move {
            let heard = upstreams.ask_each(&names, RecordType::A).await;
            let marked = |it: &(String, Vec<std::net::IpAddr>)| it.1.contains(&MARK.into());
            heard.into_iter().find(marked).map(|(upstream, _)| upstream)
        }
    }

    /// What a round has shown.
    pub(super) fn end(&self, marked: Option<String>) -> FrontStateV1 {
        let returned = self.returned.and_then(|number| self.upstreams.get(number));
        match returned.cloned().or(marked) {
            Some(upstream) => FrontStateV1::Looping(upstream),
            None => FrontStateV1::Serving,
        }
    }

    /// The resolver that has led back to us in this round.
    pub(super) fn returned(&self) -> Option<&str> {
        self.returned
            .and_then(|number| self.upstreams.get(number))
            .map(String::as_str)
    }
}

/// Nobody else can foresee it, so that nobody can turn a front off by asking.
fn fresh_label() -> String {
    format!("p{:016x}", RandomState::new().hash_one("own"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_probe_is_told_from_a_foreign_one_and_from_other_names() {
        let mut check = LoopCheck {
            upstreams: vec!["192.0.2.1:53".to_owned(), "192.0.2.2:53".to_owned()],
            ..LoopCheck::default()
        };
        assert_eq!(check.note("www.example.org"), Probe::Other);
        assert_eq!(check.note("notloopcheck.invalid"), Probe::Other);
        assert_eq!(check.note("p0123-1.loopcheck.invalid"), Probe::Foreign);
        assert_eq!(check.note("loopcheck.invalid"), Probe::Other);
        assert_eq!(check.end(None), FrontStateV1::Serving);
        let mark = "192.0.2.1:53".to_owned();
        assert_eq!(check.end(Some(mark.clone())), FrontStateV1::Looping(mark));
        // Resolvers may write it in another case.
        let own = format!("{}-1.LoopCheck.invalid", check.own.to_ascii_uppercase());
        assert_eq!(check.note(&own), Probe::Own);
        assert_eq!(
            check.end(None),
            FrontStateV1::Looping("192.0.2.2:53".to_owned())
        );
    }
}
