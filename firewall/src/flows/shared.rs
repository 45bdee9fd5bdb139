//! What is remembered of a flow, in few bytes: whatever flows have in common is there once.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
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
#[derive(Debug)]
struct Common(FlowRecord);

impl Common {
    fn of(record: &FlowRecord) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self(FlowRecord {
            unix_ms: 0,
            src: nowhere,
            dst: nowhere,
            dhost: None,
            instance: None,
            suppressed: 0,
            gid: record.gid.as_ref().map(own),
            rule: record.rule.as_ref().map(own),
            ..record.clone()
        })
    }

    /// Whether it is what would be made of this record.
    fn is_of(&self, record: &FlowRecord) -> bool {
        let own = &self.0;
        // Every field by name, so that one more is not forgotten here.
        let FlowRecord {
            unix_ms: _,
            src: _,
            dst: _,
            dhost: _,
            instance: _,
            suppressed: _,
            category,
            outcome,
            transport,
            proto,
            proto_v,
            gid,
            rule,
            generation,
            policy_id,
            pqc,
            rescued,
            see_thru,
            would_reason,
            http,
            also,
            logged,
        } = record;
        let judged = (own.category, own.outcome, own.transport, own.proto, own.pqc)
            == (*category, *outcome, *transport, *proto, *pqc);
        let by = own.generation == *generation && own.rule == *rule && own.gid == *gid;
        let said = own.proto_v == *proto_v && own.http == *http && own.also == *also;
        judged
            && by
            && said
            && (own.rescued, own.logged) == (*rescued, *logged)
            && own.policy_id == *policy_id
            && own.see_thru == *see_thru
            && own.would_reason == *would_reason
    }
}

/// What tells the [`Common`] of one record from that of another.
struct Telling<'a>(&'a FlowRecord);

impl Hash for Telling<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let record = self.0;
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
    hasher: RandomState,
}

impl Parts {
    /// What a record says beyond its time and its ends.
    pub(super) fn share(&mut self, record: &FlowRecord) -> Known {
        let hash = self.hasher.hash_one(Telling(record));
        let is = |common: &Common| common.is_of(record);
        let common = self.commons.share(hash, is, || Common::of(record));
        Known {
            dhost: self.text(record.dhost.as_ref()),
            instance: self.text(record.instance.as_ref()),
            common,
        }
    }

    fn text(&mut self, text: Option<&Arc<str>>) -> Option<Text> {
        let text = text?;
        let hash = self.hasher.hash_one(&**text);
        let is = |other: &Arc<str>| other == text;
        Some(self.texts.share(hash, is, || own(text)))
    }
}

/// A copy of this thread's own. What a queue thread has allocated lies among records that are gone in a moment, and one text
/// that stays keeps a whole page of them.
fn own(text: &Arc<str>) -> Arc<str> {
    Arc::from(&**text)
}

/// Values that are kept once, for as long as somebody else has them and until the next look.
#[derive(Debug)]
struct Pool<T> {
    /// With their hashes.
    values: HashTable<(u64, Arc<T>)>,
    /// So many values are a reason to look which of them nobody has any more.
    look_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self {
            values: HashTable::new(),
            look_at: LOOK_MIN,
        }
    }
}

impl<T> Pool<T> {
    /// The one value with this hash that `is` accepts; if there is none, `make` makes it.
    fn share(&mut self, hash: u64, is: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some((_, known)) = self.values.find(hash, |(_, value)| is(value)) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.look_at {
            self.values
                .retain(|(_, value)| Arc::strong_count(value) > 1);
            self.look_at = self.values.len().saturating_mul(2).max(LOOK_MIN);
            self.values.shrink_to(self.look_at, |(hash, _)| *hash);
        }
        let value = Arc::new(make());
        let fresh = (hash, Arc::clone(&value));
        self.values.insert_unique(hash, fresh, |(hash, _)| *hash);
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
