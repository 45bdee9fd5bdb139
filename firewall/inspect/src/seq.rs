//! TCP sequence numbers, which wrap.

/// A sequence number (RFC 9293, section 3.4). Deliberately not `Ord`: order is only defined
/// within half the space, relative to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seq(pub(crate) u32);

impl Seq {
    /// This number plus `n` bytes.
    pub(crate) const fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// The number `n` before this one.
    pub(crate) const fn minus(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }

    /// Distance from `base` to here, negative when this number is older.
    #[expect(
        clippy::cast_possible_wrap,
        reason = "the sign is the point: RFC 1982 arithmetic"
    )]
    pub(crate) const fn since(self, base: Self) -> i32 {
        self.0.wrapping_sub(base.0) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_right_across_the_wrap() {
        let base = Seq(u32::MAX - 3);
        assert_eq!(base.plus(10).since(base), 10);
        assert_eq!(base.since(base.plus(10)), -10);
        assert_eq!(base.plus(10), Seq(6));
    }
}
