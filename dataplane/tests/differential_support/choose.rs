//! Choices drawn from a seed.

use dataplane::port::sim::Random;

pub(crate) trait Choose {
    /// True once in so many times.
    fn one_in(&mut self, times: usize) -> bool;

    /// One of these.
    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T;
}

impl Choose for Random {
    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}
