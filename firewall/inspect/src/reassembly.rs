//! One direction's bytes, put in order from segments that may come in any.
//!
//! The first copy of a byte wins, and a later copy that differs is a [`Placed::Conflict`]: the
//! bytes judged here are the bytes the peer's TCP will hand to its application, whatever its
//! own overlap rule is. Bounded by the caller's `cap`; never looks at what the bytes mean.

use std::collections::BTreeMap;

use crate::seq::Seq;

/// Offset at which a stream that is no longer inspected is counted anew.
const REBASE_AT: usize = 1 << 30;

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It brought bytes, or a FIN, not seen before.
    New,
    /// Nothing new, and everything equal to what was kept.
    Repeat,
    /// All of it lies past the point from which bytes are no longer inspected.
    Opaque,
    /// All of it lies before the first byte still kept: a keep-alive probe, an old duplicate.
    Old,
    /// It begins before the stream's first byte and reaches into it.
    Straddles,
    /// Too far ahead, or more than fits.
    Outside,
    /// A byte differs from the first copy.
    Conflict,
    /// Bytes past the FIN, or a second FIN elsewhere.
    AfterFin,
}

/// A stream under reassembly. Offsets count from the first byte still kept.
#[derive(Debug)]
pub(crate) struct Stream {
    base: Seq,
    kept: Vec<u8>,
    later: BTreeMap<usize, Vec<u8>>,
    later_bytes: usize,
    released: usize,
    fin: Option<usize>,
    opaque_from: Option<usize>,
    /// End of the furthest byte seen past `opaque_from`.
    seen_to: usize,
    has_forgotten: bool,
}

impl Stream {
    /// A stream whose first byte has number `base`.
    pub(crate) const fn new(base: Seq) -> Self {
        Self {
            base,
            kept: Vec::new(),
            later: BTreeMap::new(),
            later_bytes: 0,
            released: 0,
            fin: None,
            opaque_from: None,
            seen_to: 0,
            has_forgotten: false,
        }
    }

    /// The bytes in order from the first one kept, without a gap.
    pub(crate) fn contiguous(&self) -> &[u8] {
        &self.kept
    }

    /// The number of the first byte still kept.
    pub(crate) const fn at_start(&self) -> Seq {
        self.base
    }

    /// How many bytes of [`contiguous`](Self::contiguous) have been let through.
    pub(crate) const fn released(&self) -> usize {
        self.released
    }

    /// Bytes of memory taken by payload.
    pub(crate) const fn bytes(&self) -> usize {
        self.kept.len().saturating_add(self.later_bytes)
    }

    /// Whether the peer has ended the stream and every byte before the end is here.
    pub(crate) fn is_finished(&self) -> bool {
        self.fin.is_some_and(|fin| fin <= self.front())
    }

    /// The number after the last byte in order: what the receiver expects once it has all
    /// that is here.
    pub(crate) fn expected(&self) -> Seq {
        self.at(self.front())
    }

    /// The number after the last byte let through, the FIN included once it is.
    pub(crate) fn released_to(&self) -> Seq {
        let end = self.released.max(self.seen_to);
        let fin = usize::from(self.fin.is_some_and(|fin| fin <= end));
        self.at(end.saturating_add(fin))
    }

    /// Lets through everything below `offset`.
    pub(crate) fn release_to(&mut self, offset: usize) {
        self.released = self.released.max(offset.min(self.kept.len()));
    }

    /// From the end of what is in order on, bytes are neither inspected nor kept.
    pub(crate) fn stop_inspecting(&mut self) {
        let end = self.kept.len();
        self.release_to(end);
        self.opaque_from = Some(end);
        self.seen_to = self
            .later
            .iter()
            .map(|(at, b)| at.saturating_add(b.len()))
            .max()
            .unwrap_or(end);
        self.later = BTreeMap::new();
        self.later_bytes = 0;
    }

    /// Whether [`stop_inspecting`](Self::stop_inspecting) was called.
    pub(crate) const fn is_opaque(&self) -> bool {
        self.opaque_from.is_some()
    }

    /// Forgets every byte, as if nothing had arrived. Only for a stream of which nothing was
    /// let through.
    pub(crate) fn restart(&mut self) {
        debug_assert_eq!(self.released, 0);
        *self = Self::new(self.base);
    }

    /// Forgets released bytes the peer has acknowledged up to `ack`: no copy of them can
    /// reach its application any more.
    pub(crate) fn acknowledged(&mut self, ack: Seq) {
        let Ok(n) = usize::try_from(ack.since(self.base)) else {
            return;
        };
        let n = n.min(self.released);
        if n == 0 || self.opaque_from.is_some() || self.fin.is_some() {
            return;
        }
        self.base = self.at(n);
        self.has_forgotten = true;
        self.kept.drain(..n);
        self.released = self.released.saturating_sub(n);
        self.later = std::mem::take(&mut self.later)
            .into_iter()
            .map(|(at, bytes)| (at.saturating_sub(n), bytes))
            .collect();
    }

    /// Whether acknowledged bytes have been forgotten.
    pub(crate) const fn has_forgotten(&self) -> bool {
        self.has_forgotten
    }

    /// Whether every byte of a segment that ends at `end` has been let through.
    pub(crate) fn is_released(&self, end: Seq) -> bool {
        let Ok(end) = usize::try_from(end.since(self.base)) else {
            return true;
        };
        let fin = usize::from(self.fin.is_some_and(|fin| fin <= self.released));
        end <= self.released.saturating_add(fin) || self.opaque_from.is_some()
    }

    /// Takes in one segment. At most `cap` bytes are kept, counted from the first.
    pub(crate) fn insert(&mut self, seq: Seq, payload: &[u8], fin: bool, cap: usize) -> Placed {
        let Ok(start) = usize::try_from(seq.since(self.base)) else {
            return self.insert_below(seq, payload, fin, cap);
        };
        let end = start.saturating_add(payload.len());
        if let Some(at) = self.fin
            && (end > at || (fin && end != at))
        {
            return Placed::AfterFin;
        }
        if fin && self.furthest() > end {
            return Placed::AfterFin;
        }
        if let Some(opaque) = self.opaque_from {
            return self.insert_opaque(start, payload, fin, opaque);
        }
        if end > cap {
            return Placed::Outside;
        }
        if self.differs(start, payload) {
            return Placed::Conflict;
        }
        let before = self.bytes();
        self.fill(start, payload);
        let new_fin = fin && self.fin.is_none();
        if new_fin {
            self.fin = Some(end);
        }
        if self.bytes() > before || new_fin {
            Placed::New
        } else {
            Placed::Repeat
        }
    }

    fn insert_below(&mut self, seq: Seq, payload: &[u8], fin: bool, cap: usize) -> Placed {
        let before = usize::try_from(self.base.since(seq)).unwrap_or(usize::MAX);
        match payload.get(before..) {
            None | Some([]) if !fin => Placed::Old,
            // What comes before has been acknowledged: no receiver looks at it again.
            Some(rest) if self.has_forgotten => self.insert(self.base, rest, fin, cap),
            None | Some(_) => Placed::Straddles,
        }
    }

    fn insert_opaque(&mut self, start: usize, payload: &[u8], fin: bool, opaque: usize) -> Placed {
        if self.differs(start, payload) {
            return Placed::Conflict;
        }
        let end = start.saturating_add(payload.len());
        if fin {
            self.fin = Some(end);
        }
        self.seen_to = self.seen_to.max(end);
        if end > REBASE_AT && self.fin.is_none() {
            self.rebase(end);
        }
        if end > opaque || fin {
            Placed::Opaque
        } else {
            Placed::Repeat
        }
    }

    /// Counts from `end` on, so that offsets of a long download stay within half the sequence
    /// space. No window reaches back this far (RFC 7323, section 2.3).
    fn rebase(&mut self, end: usize) {
        self.base = self.at(end);
        self.kept = Vec::new();
        self.released = 0;
        self.seen_to = 0;
        self.opaque_from = Some(0);
        self.has_forgotten = true;
    }

    fn at(&self, offset: usize) -> Seq {
        // Offsets stay below the cap or below half the sequence space, so nothing is cut.
        self.base.plus(u32::try_from(offset).unwrap_or(u32::MAX))
    }

    fn front(&self) -> usize {
        self.kept.len().max(self.seen_to)
    }

    fn furthest(&self) -> usize {
        let later = self
            .later
            .iter()
            .next_back()
            .map_or(0, |(at, b)| at.saturating_add(b.len()));
        later.max(self.front())
    }

    /// Whether any byte of `payload` contradicts one that is kept.
    fn differs(&self, start: usize, payload: &[u8]) -> bool {
        if overlap(start, payload, 0, &self.kept).is_some_and(|(a, b)| a != b) {
            return true;
        }
        let end = start.saturating_add(payload.len());
        self.later
            .range(..end)
            .any(|(at, bytes)| overlap(start, payload, *at, bytes).is_some_and(|(a, b)| a != b))
    }

    /// Keeps those bytes of `payload` that are not here yet, then closes what gaps it can.
    fn fill(&mut self, start: usize, payload: &[u8]) {
        if self.later.is_empty() && start <= self.kept.len() {
            // In order, as nearly all are; what was here already is left as it is.
            let known = self.kept.len().saturating_sub(start);
            let fresh = payload.get(known..).unwrap_or_default();
            return self.kept.extend_from_slice(fresh);
        }
        let end = start.saturating_add(payload.len());
        let mut at = start.max(self.kept.len());
        let mut gaps = Vec::new();
        for (&have, bytes) in self.later.range(..end) {
            if have > at {
                gaps.push(at..have);
            }
            at = at.max(have.saturating_add(bytes.len()));
        }
        if at < end {
            gaps.push(at..end);
        }
        for gap in gaps {
            let from = gap.start.saturating_sub(start);
            let to = gap.end.saturating_sub(start);
            let Some(bytes) = payload.get(from..to) else {
                continue;
            };
            if gap.start == self.kept.len() {
                self.kept.extend_from_slice(bytes);
            } else if !bytes.is_empty() {
                self.later_bytes = self.later_bytes.saturating_add(bytes.len());
                self.later.insert(gap.start, bytes.to_vec());
            }
            self.absorb();
        }
    }

    fn absorb(&mut self) {
        while let Some(entry) = self.later.first_entry()
            && *entry.key() == self.kept.len()
        {
            let bytes = entry.remove();
            self.later_bytes = self.later_bytes.saturating_sub(bytes.len());
            self.kept.extend_from_slice(&bytes);
        }
    }
}

/// The parts of `a` (at `a_at`) and `b` (at `b_at`) that cover the same offsets.
fn overlap<'s>(a_at: usize, a: &'s [u8], b_at: usize, b: &'s [u8]) -> Option<(&'s [u8], &'s [u8])> {
    let from = a_at.max(b_at);
    let to = a_at
        .saturating_add(a.len())
        .min(b_at.saturating_add(b.len()));
    if from >= to {
        return None;
    }
    let part_a = a.get(from.checked_sub(a_at)?..to.checked_sub(a_at)?)?;
    let part_b = b.get(from.checked_sub(b_at)?..to.checked_sub(b_at)?)?;
    Some((part_a, part_b))
}

#[cfg(test)]
mod tests;
