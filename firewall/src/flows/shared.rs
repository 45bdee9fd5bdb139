//! What is remembered of a flow, in few bytes: whatever flows have in common is there once.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use foldhash::quality::RandomState;
use inspect::FlowRecord;

use super::table::Key;

/// A text behind a thin pointer.
type Text = Arc<Arc<str>>;

/// What a record says beyond its time and its ends.
#[derive(Debug)]
pub(super) struct Known {
    dhost: Option<Text>,
    instance: Option<Text>,
    common: Arc<Common>,
}

impl Known {
    /// The record of the flow with these ends, as it was before it came here.
    pub(super) fn record(&self, key: &Key, unix_ms: u64) -> FlowRecord {
        let text = |text: &Option<Text>| text.as_ref().map(|text| Arc::<str>::clone(text));
        FlowRecord {
            unix_ms,
            src: key.client,
            dst: key.server,
            dhost: text(&self.dhost),
            instance: text(&self.instance),
            ..self.common.0.clone()
        }
    }

    /// Whether it is a request of plain HTTP, of which a connection has many.
    pub(super) fn is_http(&self) -> bool {
        self.common.0.http.is_some()
    }
}

/// Everything that is the same in all flows of one rule: a record without time, ends, name and instance.
#[derive(Debug, PartialEq, Eq)]
struct Common(FlowRecord);

impl Hash for Common {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let record = &self.0;
        record.rule.hash(state);
        record.gid.hash(state);
        record.generation.hash(state);
        record.proto.as_str().hash(state);
        record.proto_v.hash(state);
        record.see_thru.hash(state);
        // From the wire: many that differ in nothing else must not be alike.
        record.http.hash(state);
        record.also.hash(state);
        (record.pqc, record.rescued, record.logged).hash(state);
    }
}

/// The parts that flows share.
#[derive(Debug, Default)]
pub(super) struct Parts {
    texts: Pool<Arc<str>>,
    commons: Pool<Common>,
}

impl Parts {
    /// What a record says beyond its time and its ends.
    pub(super) fn share(&mut self, record: &FlowRecord) -> Known {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let common = FlowRecord {
            unix_ms: 0,
            src: nowhere,
            dst: nowhere,
            dhost: None,
            instance: None,
            suppressed: 0,
            ..record.clone()
        };
        let mut text = |text: &Option<Arc<str>>| {
            let text = text.as_ref()?;
            Some(self.texts.share(Arc::clone(text)))
        };
        Known {
            dhost: text(&record.dhost),
            instance: text(&record.instance),
            common: self.commons.share(Common(common)),
        }
    }
}

/// Values that are kept once, for as long as somebody else has them and until the next look.
#[derive(Debug)]
struct Pool<T> {
    values: HashSet<Arc<T>, RandomState>,
    /// So many values are a reason to look which of them nobody has any more.
    look_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self {
            values: HashSet::default(),
            look_at: LOOK_MIN,
        }
    }
}

impl<T: Eq + Hash> Pool<T> {
    /// The one value that equals this.
    fn share(&mut self, value: T) -> Arc<T> {
        if let Some(known) = self.values.get(&value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.look_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.look_at = self.values.len().saturating_mul(2).max(LOOK_MIN);
            self.values.shrink_to(self.look_at);
        }
        let value = Arc::new(value);
        self.values.insert(Arc::clone(&value));
        value
    }
}

/// Below so many values nobody looks.
const LOOK_MIN: usize = 256;

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn record_comes_back_as_it_was() {
        let mut parts = Parts::default();
        let before = FlowRecord {
            unix_ms: 1_790_000_000_042,
            instance: Some(Arc::from("web-1")),
            gid: Some(Arc::from("web")),
            rule: Some(Arc::from("2")),
            pqc: true,
            also: Some([Arc::from("b.example.org")].into()),
            logged: false,
            ..record(Some("api.example.org"))
        };
        let known = parts.share(&before);
        let key = Key::of_record(&before);
        assert_eq!(known.record(&key, before.unix_ms), before);
    }

    #[test]
    fn flows_that_differ_in_time_and_ends_share_all_the_rest() {
        let mut parts = Parts::default();
        let named = |name: &str, port: u16| FlowRecord {
            unix_ms: u64::from(port),
            src: ([10, 0, 0, 1], port).into(),
            instance: Some(Arc::from("web-1")),
            ..record(Some(name))
        };
        let known: Vec<Known> = (0..1_000)
            .map(|port| parts.share(&named(&format!("{}.example.org", port % 10), port)))
            .collect();
        assert_eq!(parts.commons.values.len(), 1);
        assert_eq!(parts.texts.values.len(), 11);
        drop(known);
        // Nobody has them any more: the next look finds that.
        for port in 0..1_000 {
            drop(parts.share(&named(&format!("new-{port}.example.org"), port)));
        }
        assert!(parts.texts.values.len() <= LOOK_MIN);
    }
}
