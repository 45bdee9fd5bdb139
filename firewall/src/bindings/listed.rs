//! Every binding, page by page, for `postern status --json`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use inspect::Time;
use ipc::control::{BindingPlace, BindingState, BindingsReply};
use ipc::record::Timestamp;
use policy::Name;

use super::{Binding, BindingStore, Source};

/// The bindings that count now, in ascending order of names and addresses, from the first after a
/// place on; as many as fit a message. Walks all of them: for people.
pub fn list(store: &BindingStore, after: Option<&BindingPlace>, now: Time) -> BindingsReply {
    let after = after.and_then(|place| {
        let name = Name::parse(place.name.as_bytes()).ok()?;
        Some((name, place.address))
    });
    let mut page: BTreeMap<(Name, IpAddr), Binding> = BTreeMap::new();
    let mut more = false;
    for (key, sighting) in &store.sightings.pin() {
        let is_later = after.as_ref().is_none_or(|after| key > after);
        if !is_later || now.mono_ms > store.counts_until_ms(sighting) {
            continue;
        }
        page.insert(key.clone(), store.describe(key.1, sighting));
        if page.len() > PAGE_MAX {
            page.pop_last();
            more = true;
        }
    }
    let mut bindings = Vec::new();
    let mut bytes = 0_usize;
    for ((name, _), binding) in page {
        let chain = binding.chain.as_ref().map_or(0, |chain| chain.len());
        bytes = bytes
            .saturating_add(name.as_str().len())
            .saturating_add(chain);
        if bytes > PAGE_BYTES_MAX {
            more = true;
            break;
        }
        bindings.push(state(&name, &binding, now));
    }
    BindingsReply { bindings, more }
}

fn state(name: &Name, binding: &Binding, now: Time) -> BindingState {
    let calendar = |mono_ms: u64| {
        let ahead_ms = mono_ms.saturating_sub(now.mono_ms);
        let ago_ms = now.mono_ms.saturating_sub(mono_ms);
        let unix_ms = now.unix_ms.saturating_add(ahead_ms).saturating_sub(ago_ms);
        Timestamp::from_unix_ms(unix_ms)
    };
    let aliases = binding.chain.as_deref().unwrap_or_default();
    BindingState {
        name: name.to_string(),
        address: binding.addr,
        record: match binding.source {
            Source::A => "A",
            Source::Aaaa => "AAAA",
            Source::Hint => "HTTPS",
        }
        .to_owned(),
        chain: aliases.split_whitespace().map(str::to_owned).collect(),
        resolver: binding.resolver.as_deref().map(str::to_owned),
        learnt: calendar(binding.learnt_ms),
        fresh_until: calendar(binding.fresh_until_ms),
        expires: calendar(binding.until_ms),
        sightings: binding.sightings,
        judged: binding.judged,
    }
}

/// Bindings in one answer.
const PAGE_MAX: usize = 400;
/// Bytes of their names and aliases: with the rest of each, less than a message may have.
const PAGE_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{BindingWriter, Scope, Seen};
    use super::*;

    const NOW: Time = Time {
        mono_ms: 10_000_000,
        unix_ms: 1_800_000_000_000,
    };

    fn all(store: &BindingStore) -> (Vec<BindingState>, usize) {
        let (mut found, mut pages) = (Vec::new(), 0);
        let mut after = None;
        loop {
            let page = list(store, after.as_ref(), NOW);
            pages += 1;
            let json = serde_json::to_vec(&page).unwrap();
            assert!(
                json.len() < ipc::framing::MESSAGE_BYTES_MAX,
                "{}",
                json.len()
            );
            found.extend(page.bindings);
            if !page.more {
                return (found, pages);
            }
            after = found.last().map(BindingState::place);
        }
    }

    #[test]
    fn every_binding_is_listed_once_with_when_and_from_whom_it_was_learnt() {
        let store = Arc::new(BindingStore::new(3_600_000, Scope::default()));
        let mut writer = BindingWriter::new(Arc::clone(&store));
        let alias = format!("{}.example.net", "a".repeat(60));
        let chain: Arc<str> = vec![alias; 16].join(" ").into();
        for index in 0..1_000_u32 {
            let name = Name::parse(format!("n{index:04}.example.org").as_bytes()).unwrap();
            let addr = IpAddr::from((0x0808_0000 + index).to_be_bytes());
            let seen = Seen {
                resolver: Some("192.0.2.53:53".into()),
                ..Seen::from((addr, 60))
            };
            writer.learn(&name, [seen], Some(&chain), NOW.mono_ms - 5_000);
        }
        let (found, pages) = all(&store);
        assert_eq!(found.len(), 1_000);
        assert!(pages > 2);
        assert!(found.is_sorted_by(|a, b| a.name < b.name));
        let first = &found[0];
        assert_eq!(
            (first.name.as_str(), first.record.as_str()),
            ("n0000.example.org", "A")
        );
        assert_eq!(
            (first.chain.len(), first.resolver.as_deref()),
            (16, Some("192.0.2.53:53"))
        );
        let at = |ms: u64| Timestamp::from_unix_ms(NOW.unix_ms - 5_000 + ms);
        assert_eq!(
            (first.learnt, first.fresh_until, first.expires),
            (at(0), at(60_000), at(660_000))
        );
    }
}
