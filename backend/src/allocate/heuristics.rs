//! Quick plans: incumbents for the exact search, and all there is for instances too large for it.
//!
//! Every heuristic is an order. *First fit* takes the buffers in that order and puts each into the lowest gap
//! that holds it. Any canonical plan is first fit under some order, that of its offsets. Nothing here depends
//! on time or chance.

use std::cmp::Reverse;

use crate::allocate::instance::{Block, Instance};

/// A plan for one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packing {
    /// An offset for each block.
    pub(super) offsets: Vec<u64>,
    /// One past the last byte used.
    pub(super) peak: u64,
}

/// The static orders, each a permutation of the block indices: combinations of the load around a buffer (T),
/// its area (A) and its duration in sections (W), from large to small.
pub(super) fn orders(instance: &Instance) -> Vec<Vec<u32>> {
    let loads = instance.loads();
    let sparse = Sparse::new(&loads);
    let total = |block: &Block| sparse.max(block.first as usize, block.end as usize);
    let width = |block: &Block| u64::from(block.end - block.first);
    let area = |block: &Block| u128::from(width(block)) * u128::from(block.size);
    type Key<'a> = &'a dyn Fn(&Block) -> [u128; 3];
    let keys: [Key<'_>; 3] = [
        &|b| [total(b).into(), area(b), width(b).into()],
        &|b| [width(b).into(), area(b), total(b).into()],
        &|b| [total(b).into(), width(b).into(), area(b)],
    ];
    let order = |key: &Key<'_>| {
        let mut order: Vec<u32> = (0..).take(instance.blocks.len()).collect();
        order.sort_by_cached_key(|&index| {
            let block = &instance.blocks[index as usize];
            (block.fixed.is_none(), Reverse(key(block)), index)
        });
        order
    };
    keys.iter().map(order).collect()
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
pub(super) fn pack(instance: &Instance, order: &[u32]) -> Packing {
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
        let offset = block.fixed.unwrap_or_else(|| gap(&placed, block));
        offsets[index as usize] = offset;
        let top = offset + block.size;
        peak = peak.max(top);
        let position = placed.partition_point(|entry| entry.0 < offset);
        placed.insert(position, (offset, top, block.first, block.end));
    }
    Packing { offsets, peak }
}

/// The lowest offset for a block above, below or between what is placed.
fn gap(placed: &[(u64, u64, u32, u32)], block: &Block) -> u64 {
    let mut floor = 0;
    for &(offset, top, first, end) in placed {
        if first >= block.end || block.first >= end {
            continue;
        }
        if floor + block.size <= offset {
            return floor;
        }
        floor = floor.max(block.align(top));
    }
    floor
}

/// Tries every order, and returns the lowest plan; stops at `target`.
pub(super) fn portfolio(instance: &Instance, orders: &[Vec<u32>], target: u64) -> Packing {
    let mut best = Packing { offsets: Vec::new(), peak: u64::MAX };
    for order in orders {
        let packing = pack(instance, order);
        if packing.peak < best.peak {
            best = packing;
        }
        if best.peak <= target {
            break;
        }
    }
    best
}
