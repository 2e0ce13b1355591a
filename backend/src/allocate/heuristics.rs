//! Quick plans: incumbents for the exact search, and all there is for instances too large for it.
//!
//! Every heuristic is an order. *First fit* takes the buffers in that order and puts each into the lowest gap
//! that holds it; *best fit* into the narrowest. Any canonical plan is first fit under some order (that of
//! its offsets), so hill climbing over orders can reach every plan worth having. Nothing here depends on time
//! or chance: the climber's moves come from a fixed sequence.

use std::cmp::Reverse;

use crate::allocate::instance::{Block, Instance};
use crate::allocate::memo::scramble;

/// A plan for one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packing {
    /// An offset for each block.
    pub(super) offsets: Vec<u64>,
    /// One past the last byte used.
    pub(super) peak: u64,
}

/// Which gap a buffer goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The lowest that holds it.
    First,
    /// The narrowest that holds it; the lowest of those.
    Best,
}

/// The static orders, each a permutation of the block indices: combinations of the load around a buffer (T),
/// its area (A), its duration in sections (W) and its size (S), from large to small, and the order of time.
/// The last three count durations and areas in the problem's own time.
pub(super) fn orders(instance: &Instance) -> Vec<Vec<u32>> {
    let loads = instance.loads();
    let sparse = Sparse::new(&loads);
    let total = |block: &Block| sparse.max(block.first as usize, block.end as usize);
    let width = |block: &Block| u64::from(block.end - block.first);
    let area = |block: &Block| u128::from(width(block)) * u128::from(block.size);
    type Key<'a> = Box<dyn Fn(&Block, u128) -> [u128; 3] + 'a>;
    let keys: [Key<'_>; 10] = [
        Box::new(|b, _| [total(b).into(), area(b), width(b).into()]),
        Box::new(|b, _| [width(b).into(), area(b), total(b).into()]),
        Box::new(|b, _| [total(b).into(), width(b).into(), area(b)]),
        Box::new(|b, _| [b.size.into(), width(b).into(), total(b).into()]),
        Box::new(|b, _| [area(b), total(b).into(), b.size.into()]),
        Box::new(|b, _| [total(b).into(), b.size.into(), width(b).into()]),
        Box::new(|b, _| [Reverse(b.first).0.abs_diff(u32::MAX).into(), width(b).into(), b.size.into()]),
        Box::new(|b, duration| [total(b).into(), duration, duration * u128::from(b.size)]),
        Box::new(|b, duration| [duration, duration * u128::from(b.size), total(b).into()]),
        Box::new(|b, duration| [total(b).into(), duration * u128::from(b.size), duration]),
    ];
    keys.iter()
        .map(|key| {
            let mut order: Vec<u32> = (0..).take(instance.blocks.len()).collect();
            order.sort_by_cached_key(|&index| {
                let block = &instance.blocks[index as usize];
                let duration = u128::from(instance.durations[index as usize]);
                (block.fixed.is_none(), Reverse(key(block, duration)), index)
            });
            order
        })
        .collect()
}

/// The place of each block in an order.
pub(super) fn ranks(order: &[u32]) -> Vec<u32> {
    let mut ranks = vec![0; order.len()];
    for (rank, &block) in (0..).zip(order) {
        ranks[block as usize] = rank;
    }
    ranks
}

/// Range maxima by doubling.
struct Sparse {
    levels: Vec<Vec<u64>>,
}

impl Sparse {
    fn new(values: &[u64]) -> Self {
        let mut levels = vec![values.to_vec()];
        let mut width = 1;
        while 2 * width <= values.len() {
            let last = &levels[levels.len() - 1];
            let next = (0..=values.len() - 2 * width).map(|i| last[i].max(last[i + width])).collect();
            levels.push(next);
            width *= 2;
        }
        Self { levels }
    }

    /// The maximum over a range that is not empty.
    fn max(&self, from: usize, to: usize) -> u64 {
        let level = (to - from).ilog2() as usize;
        let values = &self.levels[level];
        values[from].max(values[to - (1 << level)])
    }
}

/// Places the blocks one by one in the given order; fixed blocks first, whatever the order says.
pub(super) fn pack(instance: &Instance, order: &[u32], fit: Fit) -> Packing {
    let blocks = &instance.blocks;
    let mut offsets = vec![0; blocks.len()];
    let mut peak = 0;
    // What is placed, by offset.
    let mut placed: Vec<(u64, u64, u32, u32)> = Vec::with_capacity(blocks.len());
    let is_fixed = |index: &&u32| blocks[**index as usize].fixed.is_some();
    let fixed = order.iter().filter(is_fixed);
    let free = order.iter().filter(|index| !is_fixed(index));
    for &index in fixed.chain(free) {
        let block = &blocks[index as usize];
        let offset = block.fixed.unwrap_or_else(|| gap(&placed, block, fit));
        offsets[index as usize] = offset;
        let top = offset + block.size;
        peak = peak.max(top);
        let position = placed.partition_point(|entry| entry.0 < offset);
        placed.insert(position, (offset, top, block.first, block.end));
    }
    Packing { offsets, peak }
}

/// Finds the offset for a block above, below or between what is placed.
fn gap(placed: &[(u64, u64, u32, u32)], block: &Block, fit: Fit) -> u64 {
    let mut floor = 0;
    let mut best: Option<(u64, u64)> = None;
    for &(offset, top, first, end) in placed {
        if first >= block.end || block.first >= end {
            continue;
        }
        if floor + block.size <= offset {
            match fit {
                Fit::First => return floor,
                Fit::Best => {
                    let slack = offset - floor - block.size;
                    if best.is_none_or(|(least, _)| slack < least) {
                        best = Some((slack, floor));
                    }
                }
            }
        }
        floor = floor.max(block.align(top));
    }
    best.map_or(floor, |(_, offset)| offset)
}

/// Tries every order under both fits, and returns the lowest plan with the order it came from; stops at
/// `target`.
pub(super) fn portfolio(instance: &Instance, orders: &[Vec<u32>], target: u64) -> (Packing, usize) {
    let mut best: Option<(Packing, usize)> = None;
    for (index, order) in orders.iter().enumerate() {
        for fit in [Fit::First, Fit::Best] {
            let packing = pack(instance, order, fit);
            if best.as_ref().is_none_or(|(least, _)| packing.peak < least.peak) {
                best = Some((packing, index));
            }
            if best.as_ref().is_some_and(|(least, _)| least.peak <= target) {
                break;
            }
        }
    }
    best.unwrap_or((Packing { offsets: Vec::new(), peak: 0 }, 0))
}

/// Improves a plan by moving buffers in its order: something that reaches the peak goes before something it
/// meets.
///
/// Sideways moves are taken, so that plateaus are crossed. Stops at `target` or after `rounds` moves.
pub(super) fn climb(instance: &Instance, start: &Packing, target: u64, rounds: u64) -> Packing {
    let blocks = &instance.blocks;
    let mut order: Vec<u32> = (0..).take(blocks.len()).collect();
    order.sort_by_key(|&index| (start.offsets[index as usize], index));
    let mut current = pack(instance, &order, Fit::First);
    let mut best = if current.peak < start.peak { current.clone() } else { start.clone() };
    let mut cost = cost_of(instance, &current);
    for round in 0..rounds {
        if best.peak <= target {
            break;
        }
        let draw = |salt: u64, bound: usize| (scramble(round * 3 + salt) % bound as u64) as usize;
        let critical: Vec<usize> = (0..order.len())
            .filter(|&position| {
                let index = order[position] as usize;
                current.offsets[index] + blocks[index].size == current.peak
            })
            .collect();
        let from = critical[draw(1, critical.len())];
        let moved = blocks[order[from] as usize];
        let met: Vec<usize> =
            (0..from).filter(|&position| blocks[order[position] as usize].meets(&moved)).collect();
        let mut candidate = order.clone();
        if met.is_empty() || draw(2, 4) == 0 {
            candidate.swap(draw(0, order.len()), draw(3, order.len()));
        } else {
            let to = met[draw(0, met.len())];
            candidate[to..=from].rotate_right(1);
        }
        let packing = pack(instance, &candidate, Fit::First);
        let candidate_cost = cost_of(instance, &packing);
        if candidate_cost <= cost {
            order = candidate;
            cost = candidate_cost;
            if packing.peak < best.peak {
                best = packing.clone();
            }
            current = packing;
        }
    }
    best
}

/// What the climber goes down: the peak, then how many buffers reach it.
fn cost_of(instance: &Instance, packing: &Packing) -> (u64, usize) {
    let reaching = instance
        .blocks
        .iter()
        .zip(&packing.offsets)
        .filter(|(block, offset)| *offset + block.size == packing.peak)
        .count();
    (packing.peak, reaching)
}
