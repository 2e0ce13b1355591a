//! Bases of blocks that change their extent as time goes by.
//!
//! First fit, over and over: blocks are placed one after another, each as near to the bottom (or the top) of
//! memory as what is placed already lets it be over all of its life; those that find no room are taken
//! earlier in the next round, and now and then from the other end. Where streams grow into one another all
//! through a program, few orders leave room for all of them, and those that were in each other's way tell
//! which.
//!
//! It proves nothing: where it finds no bases there may be some. What it finds is judged by the allocator, as
//! what is fixed.

use std::cmp::Reverse;

use crate::place::occupancy::{Occupancy, Span};

/// Rounds under each first order.
const ROUNDS: usize = 100;

/// A block that found no room this often is placed from the other end.
const TURNS_EVERY: u32 = 5;

/// A block that found no room rises by this part of the highest priority.
const RISE: u128 = 10;

/// Bytes of drift that double a block's first priority in the order by drift.
const DOUBLING_DRIFT: u128 = 10_000;

/// The bytes that a block takes during some phases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// The first phase.
    pub(super) lower: usize,
    /// One past the last phase.
    pub(super) upper: usize,
    /// The first byte, counted from where the block's first stream begins.
    pub(super) from: i64,
    /// One past the last byte.
    pub(super) to: i64,
}

impl Extent {
    /// The bytes of memory, if the block stands at `base`; `None` if some are before its beginning.
    fn at(&self, base: i64) -> Option<Span> {
        let from = u64::try_from(self.from + base).ok()?;
        Some(Span { from, to: u64::try_from(self.to + base).ok()? })
    }
}

/// The base of each block, from what it takes over time counted from its base; `None` if no round found room
/// for all. `extents` are in order of time. Blocks end no higher than `capacity`.
pub(super) fn pack(blocks: &[Vec<Extent>], n_phases: usize, capacity: i64) -> Option<Vec<i64>> {
    let areas: Vec<u128> = blocks.iter().map(|extents| area(extents)).collect();
    let by_drift = areas.iter().zip(blocks).map(|(&area, extents)| {
        let drift = extents.first().zip(extents.last()).map_or(0, |(first, last)| first.from - last.from);
        area * (DOUBLING_DRIFT + u128::from(drift.unsigned_abs())) / DOUBLING_DRIFT
    });
    let by_drift = by_drift.collect();
    [areas, by_drift].into_iter().find_map(|priorities| rounds(blocks, priorities, n_phases, capacity))
}

/// Bytes times phases.
fn area(extents: &[Extent]) -> u128 {
    let of = |e: &Extent| (e.to - e.from) as u128 * (e.upper - e.lower) as u128;
    extents.iter().map(of).sum()
}

/// First fit by priority, with priorities that follow from what found no room.
fn rounds(
    blocks: &[Vec<Extent>],
    mut priorities: Vec<u128>,
    n_phases: usize,
    capacity: i64,
) -> Option<Vec<i64>> {
    let mut n_failures = vec![0_u32; blocks.len()];
    for _ in 0..ROUNDS {
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        order.sort_by_key(|&block| Reverse(priorities[block]));
        let mut memory = Occupancy::new(n_phases, capacity as u64);
        let mut bases = vec![0; blocks.len()];
        let mut failed = Vec::new();
        for block in order {
            let to_top = n_failures[block] / TURNS_EVERY % 2 == 1;
            match place(&mut memory, &blocks[block], to_top) {
                Some(base) => bases[block] = base,
                None => failed.push(block),
            }
        }
        if failed.is_empty() {
            return Some(bases);
        }
        let highest = priorities.iter().copied().max().unwrap_or(0);
        for block in failed {
            n_failures[block] += 1;
            priorities[block] += highest / RISE + 1;
        }
    }
    None
}

/// Places a block as near to an end of memory as it can be: there it touches the end itself, or something
/// that is placed.
pub(super) fn place(memory: &mut Occupancy, extents: &[Extent], to_top: bool) -> Option<i64> {
    let capacity = memory.capacity() as i64;
    let at_end = extents.iter().map(|e| if to_top { capacity - e.to } else { -e.from });
    let at_end = if to_top { at_end.min() } else { at_end.max() };
    let mut bases: Vec<i64> = at_end.into_iter().collect();
    for extent in extents {
        bases.extend(memory.taken(extent.lower..extent.upper).map(|taken| match to_top {
            true => taken.from as i64 - extent.to,
            false => taken.to as i64 - extent.from,
        }));
    }
    bases.sort_unstable();
    bases.dedup();
    if to_top {
        bases.reverse();
    }
    let is_free = |extent: &Extent, base: i64| {
        extent.at(base).is_some_and(|span| memory.is_free(extent.lower..extent.upper, span))
    };
    let base = bases.into_iter().find(|&base| extents.iter().all(|extent| is_free(extent, base)))?;
    for extent in extents {
        memory.take(extent.lower..extent.upper, extent.at(base)?);
    }
    Some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(phases: std::ops::Range<usize>, bytes: std::ops::Range<i64>) -> Extent {
        Extent { lower: phases.start, upper: phases.end, from: bytes.start, to: bytes.end }
    }

    /// Chains of tensors of 16 bytes, each a phase long, that drift down by a byte a phase.
    fn chain(n: usize, drift: i64) -> Vec<Extent> {
        (0..n)
            .map(|at| {
                let top = 16 - at as i64 * drift;
                // A tensor grows into the one before it, which is there until it is whole.
                extent(at..at + 1, top - 16..top + if at > 0 { drift } else { 0 })
            })
            .collect()
    }

    fn assert_apart(blocks: &[Vec<Extent>], bases: &[i64], capacity: i64) {
        let all: Vec<(usize, Extent)> = blocks
            .iter()
            .enumerate()
            .flat_map(|(block, extents)| extents.iter().map(move |&extent| (block, extent)))
            .collect();
        for (at, &(block, one)) in all.iter().enumerate() {
            assert!(one.from + bases[block] >= 0 && one.to + bases[block] <= capacity);
            for &(other_block, other) in all[at + 1..].iter().filter(|(other, _)| *other != block) {
                let at_once = one.lower < other.upper && other.lower < one.upper;
                let (base, other_base) = (bases[block], bases[other_block]);
                let apart =
                    one.to + base <= other.from + other_base || other.to + other_base <= one.from + base;
                assert!(!at_once || apart, "{one:?} at {base} and {other:?} at {other_base}");
            }
        }
    }

    #[test]
    fn chains_that_drift_are_packed_tightly() {
        // They drift down by at most 14 bytes, and one of them stands a byte off another while a tensor grows
        // between.
        let blocks = vec![chain(8, 0), chain(8, 1), chain(8, 2), vec![extent(0..8, 0..4)]];
        let capacity = 16 * 3 + 4 + 14 + 1;
        let bases = pack(&blocks, 8, capacity).expect("there is room");
        assert_apart(&blocks, &bases, capacity);
        assert_eq!(pack(&blocks, 8, capacity - 1), None);
    }

    #[test]
    fn what_found_no_room_is_taken_earlier() {
        // The long one is small, so that it comes last by its area, and then finds no room in one piece.
        let blocks = vec![
            vec![extent(0..2, 0..6)],
            vec![extent(2..4, 0..4)],
            vec![extent(2..4, 0..4)],
            vec![extent(0..4, 0..2)],
        ];
        let bases = pack(&blocks, 4, 10).expect("there is room");
        assert_apart(&blocks, &bases, 10);
    }

    #[test]
    fn what_cannot_fit_is_given_up() {
        assert_eq!(pack(&[vec![extent(0..1, 0..6)], vec![extent(0..1, 0..5)]], 1, 10), None);
    }
}
