//! Which bytes of a memory are taken in which phases: what everything that places streams asks of it.

use std::ops::Range;

/// Bytes of a memory, from one up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first byte.
    pub from: u64,
    /// One past the last byte.
    pub to: u64,
}

impl Span {
    /// So many bytes from `base` on.
    pub fn new(base: u64, bytes: u64) -> Self {
        Self { from: base, to: base + bytes }
    }

    /// Bytes of it.
    pub fn bytes(&self) -> u64 {
        self.to - self.from
    }

    /// Whether two spans share a byte.
    pub fn meets(&self, other: &Self) -> bool {
        self.from < other.to && other.from < self.to
    }
}

/// What is taken of a memory over the phases of a plan. Spans may be taken more than once, where streams
/// share bytes.
#[derive(Clone, Debug)]
pub struct Occupancy {
    capacity: u64,
    /// What is taken in each phase, in no order.
    taken: Vec<Vec<Span>>,
}

impl Occupancy {
    /// A memory of `capacity` bytes of which nothing is taken.
    pub fn new(n_phases: usize, capacity: u64) -> Self {
        Self { capacity, taken: vec![Vec::new(); n_phases] }
    }

    /// Bytes of the memory.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Takes bytes in some phases.
    pub fn take(&mut self, phases: Range<usize>, span: Span) {
        self.taken[phases].iter_mut().for_each(|taken| taken.push(span));
    }

    /// What is taken in some of the phases.
    pub fn taken(&self, phases: Range<usize>) -> impl Iterator<Item = Span> + '_ {
        self.taken[phases].iter().flatten().copied()
    }

    /// Whether bytes are within the memory, and free in all of the phases.
    pub fn is_free(&self, phases: Range<usize>, span: Span) -> bool {
        span.to <= self.capacity && self.taken(phases).all(|taken| !taken.meets(&span))
    }

    /// Bytes that are taken in each phase.
    pub fn bytes_in_use(&self) -> Vec<u64> {
        let in_use = |phase: usize| {
            let mut end = 0;
            let fresh = self.sorted(phase..phase + 1).into_iter().map(|span| {
                let fresh = span.to.saturating_sub(span.from.max(end));
                end = end.max(span.to);
                fresh
            });
            fresh.sum()
        };
        (0..self.taken.len()).map(in_use).collect()
    }

    /// The longest run of bytes that begins at a multiple of `alignment` and is free in all of the phases.
    pub fn largest_hole(&self, phases: Range<usize>, alignment: u64) -> Span {
        let (mut end, mut largest) = (0_u64, Span::new(0, 0));
        for taken in self.sorted(phases).into_iter().chain([Span::new(self.capacity, 0)]) {
            let base = end.next_multiple_of(alignment);
            let hole = Span::new(base, taken.from.saturating_sub(base));
            if hole.bytes() > largest.bytes() {
                largest = hole;
            }
            end = end.max(taken.to);
        }
        largest
    }

    fn sorted(&self, phases: Range<usize>) -> Vec<Span> {
        let mut spans: Vec<Span> = self.taken(phases).collect();
        spans.sort_unstable();
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_free_where_nothing_is_taken_in_any_of_the_phases() {
        let mut memory = Occupancy::new(3, 100);
        memory.take(0..2, Span::new(10, 20));
        memory.take(1..3, Span::new(50, 10));
        assert!(memory.is_free(0..1, Span::new(30, 70)) && memory.is_free(2..3, Span::new(0, 50)));
        assert!(!memory.is_free(0..3, Span::new(55, 1)) && !memory.is_free(0..1, Span::new(29, 1)));
        assert!(!memory.is_free(0..1, Span::new(90, 11)), "beyond the end");
        assert_eq!(memory.largest_hole(0..1, 1), Span::new(30, 70));
        assert_eq!(memory.largest_hole(0..3, 1), Span::new(60, 40));
        assert_eq!(memory.largest_hole(1..2, 32), Span::new(64, 36));
    }

    #[test]
    fn bytes_that_are_taken_twice_count_once() {
        let mut memory = Occupancy::new(2, 100);
        memory.take(0..1, Span::new(0, 30));
        memory.take(0..1, Span::new(20, 30));
        memory.take(0..2, Span::new(25, 5));
        assert_eq!(memory.bytes_in_use(), [50, 5]);
    }
}
