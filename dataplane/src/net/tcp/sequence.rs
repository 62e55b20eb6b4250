//! Sequence numbers (RFC 9293 section 3.4): arithmetic modulo 2^32. Two numbers can be ordered only while they are
//! less than 2^31 apart, which windows of at most 2^30 bytes keep them (RFC 7323 section 2.3).

/// A sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence(pub u32);

impl Sequence {
    /// The number this many bytes on.
    #[inline]
    #[must_use]
    pub const fn plus(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// The number this many bytes back.
    #[inline]
    #[must_use]
    pub const fn minus(self, bytes: u32) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }

    /// Bytes from `earlier` to this, which must not be before it.
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// True when this comes before `other`.
    #[inline]
    #[must_use]
    pub const fn before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// True when this comes after `other`.
    #[inline]
    #[must_use]
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// The later of the two.
    #[inline]
    #[must_use]
    pub const fn max(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    #[inline]
    #[must_use]
    pub const fn min(self, other: Self) -> Self {
        if other.before(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_survives_the_wrap(start in any::<u32>(), bytes in 1u32..1 << 31) {
            let (first, last) = (Sequence(start), Sequence(start).plus(bytes));
            prop_assert!(first.before(last) && last.after(first) && !last.before(first));
            prop_assert_eq!(last.since(first), bytes);
            prop_assert_eq!(last.minus(bytes), first);
            prop_assert_eq!((first.max(last), first.min(last)), (last, first));
        }
    }
}
