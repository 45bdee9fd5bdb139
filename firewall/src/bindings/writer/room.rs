//! How many addresses a name may have, and how many new ones before somebody is told.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use policy::Name;

use super::BindingWriter;

impl BindingWriter {
    /// Counts new addresses in windows of ten minutes; true the first time there are too many.
    pub(super) fn count_new(&mut self, name: &Name, new: usize, now_ms: u64) -> bool {
        let Some(learnt) = self.names.get_mut(name) else {
            return false;
        };
        if now_ms.saturating_sub(learnt.window_ms) >= ALARM_WINDOW_MS {
            learnt.window_ms = now_ms;
            learnt.recent = 0;
            learnt.alarmed = false;
        }
        learnt.recent = learnt.recent.saturating_add(new);
        let alarm = learnt.recent > NEW_ADDRESSES_ALARM && !learnt.alarmed;
        learnt.alarmed |= alarm;
        alarm
    }

    /// Forgets the addresses seen longest ago once a name has more than it may keep; some more
    /// than need be, so that the next answer does not sort them all again.
    pub(super) fn make_room(&mut self, name: &Name) {
        let total = self.store.sightings.len();
        let Some(learnt) = self.names.get_mut(name) else {
            return;
        };
        let crowded = total > ADDRESSES_MAX
            || (learnt.under_pattern && self.under_patterns > ADDRESSES_UNDER_PATTERNS_MAX);
        let keeps = if crowded {
            ADDRESSES_PER_NAME_WHEN_CROWDED
        } else {
            ADDRESSES_PER_NAME_MAX
        };
        let held = learnt.addresses.len();
        if held <= keeps {
            return;
        }
        let excess = held.saturating_sub(keeps.saturating_sub(keeps / 16));
        let sightings = self.store.sightings.pin();
        let fresh = |addr: IpAddr| {
            let sighting = sightings.get(&(name.clone(), addr));
            sighting.map_or(0, |sighting| {
                sighting.fresh_until_ms.load(Ordering::Relaxed)
            })
        };
        let mut by_age: Vec<(u64, IpAddr)> = learnt
            .addresses
            .iter()
            .map(|&addr| (fresh(addr), addr))
            .collect();
        by_age.sort_unstable();
        by_age.truncate(excess);
        for (_, addr) in &by_age {
            learnt.addresses.remove(addr);
        }
        let under_pattern = learnt.under_pattern;
        drop(sightings);
        for (_, addr) in by_age {
            self.unbind(name, addr, under_pattern);
        }
        self.shut_doors();
    }
}

/// Addresses kept for one name; DESIGN asks for 4,096 at least.
pub const ADDRESSES_PER_NAME_MAX: usize = 8_192;
/// Addresses of all names together; past it a name that brings more than
/// [`ADDRESSES_PER_NAME_WHEN_CROWDED`] loses its oldest.
pub const ADDRESSES_MAX: usize = 1 << 20;
/// The same for all names together that only a pattern covers: whoever owns the zone makes up as
/// many as it likes.
pub const ADDRESSES_UNDER_PATTERNS_MAX: usize = 1 << 16;
/// Addresses that any name may keep, however many others there are.
pub const ADDRESSES_PER_NAME_WHEN_CROWDED: usize = 256;
/// More new addresses of one name than this in ten minutes are reported.
pub const NEW_ADDRESSES_ALARM: usize = 1_024;
const ALARM_WINDOW_MS: u64 = 600_000;
