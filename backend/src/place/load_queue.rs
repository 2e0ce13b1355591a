//! When the load of each block of tables is queued.
//!
//! The machine runs loads in the order in which they are queued, so a block that is needed later is never
//! queued earlier.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::model::StageId;
use crate::model::tables::{TableKey, table_key};
use crate::place::PlacementProblem;

/// The tables of a stage, or of several that share theirs.
#[derive(Clone, Debug)]
pub(super) struct WeightBlock {
    pub(super) key: TableKey,
    /// Stages that use it, in order.
    pub(super) stages: Vec<StageId>,
    /// First and last phase that uses it.
    pub(super) phase: usize,
    pub(super) last: usize,
    /// Phase in which its load is queued.
    pub(super) queued: usize,
    /// Of all its tables, each aligned.
    pub(super) bytes: u64,
}

/// Every stage's block, in order of use, queued in the phase that first needs it.
pub(super) fn blocks(problem: &PlacementProblem<'_>) -> Vec<WeightBlock> {
    let mut blocks: Vec<WeightBlock> = Vec::new();
    let mut block_of: BTreeMap<TableKey, usize> = BTreeMap::new();
    for (phase, stages) in problem.phases.iter().enumerate() {
        for &stage in stages {
            let tables = &problem.graph.stages[stage].table_bytes;
            let bytes = tables.values().map(|&b| problem.align(u64::from(b))).sum();
            if bytes == 0 {
                continue;
            }
            let key = table_key(problem.graph, stage);
            let held = block_of.get(&key).copied();
            if let Some(at) = held.filter(|&at: &usize| blocks[at].last + 1 >= phase) {
                blocks[at].last = phase;
                blocks[at].stages.push(stage);
                continue;
            }
            block_of.insert(key, blocks.len());
            blocks.push(WeightBlock { key, stages: vec![stage], phase, last: phase, queued: phase, bytes });
        }
    }
    blocks
}

/// Blocks queued up to `ahead` phases early where the sum of what is live fills no more than so much of
/// weight SRAM. That they have addresses is not said.
pub(super) fn queued_by_size(
    problem: &PlacementProblem<'_>,
    needed: &[WeightBlock],
    ahead: usize,
    fill_percent: u64,
) -> Vec<WeightBlock> {
    let capacity = (u128::from(problem.target.memory.weight) * u128::from(fill_percent) / 100) as u64;
    let mut live = vec![0u64; problem.phases.len()];
    for block in needed {
        live[block.phase..=block.last].iter_mut().for_each(|bytes| *bytes += block.bytes);
    }
    let mut blocks = needed.to_vec();
    let mut earliest = 0;
    for block in &mut blocks {
        while block.queued > earliest
            && block.phase - block.queued < ahead
            && live[block.queued - 1] + block.bytes <= capacity
        {
            block.queued -= 1;
            live[block.queued] += block.bytes;
        }
        earliest = block.queued;
    }
    blocks
}

/// Bytes that are loaded ahead, once for each phase.
pub(super) fn bytes_ahead(blocks: &[WeightBlock]) -> u128 {
    blocks.iter().map(|block| u128::from(block.bytes) * (block.phase - block.queued) as u128).sum()
}

/// Blocks that are queued, and their addresses.
pub(super) struct Placed {
    pub(super) blocks: Vec<WeightBlock>,
    pub(super) bases: Vec<u64>,
}

impl Placed {
    /// Gaps that are large enough for a block from some phase to its last.
    fn gaps(&self, queued: usize, block: &WeightBlock, capacity: u64) -> Vec<Range<u64>> {
        let beside = self.blocks.iter().zip(&self.bases);
        let beside = beside.filter(|(other, _)| other.last >= queued && other.queued <= block.last);
        let mut taken: Vec<Range<u64>> = beside.map(|(other, &base)| base..base + other.bytes).collect();
        taken.sort_unstable_by_key(|range| range.start);
        let mut gaps = Vec::new();
        let mut top = 0;
        for range in taken.into_iter().chain(std::iter::once(capacity..capacity)) {
            if range.start >= top + block.bytes {
                gaps.push(top..range.start);
            }
            top = top.max(range.end);
        }
        gaps
    }
}

/// Which of several gaps a block is put into.
#[derive(Clone, Copy, Debug)]
enum Fit {
    /// The first above the block before, or else the lowest.
    Next,
    /// The lowest.
    First,
    /// The smallest.
    Best,
}

impl Fit {
    const ALL: [Self; 3] = [Self::Next, Self::First, Self::Best];

    /// The address for so many bytes in one of some gaps, which are in order and large enough.
    fn base(self, gaps: &[Range<u64>], bytes: u64, top_of_last: u64) -> Option<u64> {
        let above = |gap: &&Range<u64>| gap.end >= top_of_last + bytes;
        let lowest = gaps.first().map(|gap| gap.start);
        match self {
            Self::Next => gaps.iter().find(above).map(|gap| gap.start.max(top_of_last)).or(lowest),
            Self::First => lowest,
            Self::Best => gaps.iter().map(|gap| (gap.end - gap.start, gap.start)).min().map(|(_, base)| base),
        }
    }
}

/// Blocks placed one after another, each queued up to `ahead` phases early, as early as an address is free:
/// of all ways to choose among gaps, the one that loads the most ahead. `None` if a block finds no address
/// even in the phase that needs it.
pub(super) fn queued_one_by_one(
    problem: &PlacementProblem<'_>,
    needed: &[WeightBlock],
    ahead: usize,
) -> Option<Placed> {
    let placed = Fit::ALL.iter().filter_map(|&fit| placed_by(problem, needed, ahead, fit));
    // Of equals, the first.
    placed.reduce(
        |best, other| if bytes_ahead(&other.blocks) > bytes_ahead(&best.blocks) { other } else { best },
    )
}

fn placed_by(
    problem: &PlacementProblem<'_>,
    needed: &[WeightBlock],
    ahead: usize,
    fit: Fit,
) -> Option<Placed> {
    let mut placed = Placed { blocks: Vec::with_capacity(needed.len()), bases: Vec::new() };
    let (mut earliest, mut top_of_last) = (0, 0);
    for block in needed {
        let from = earliest.max(block.phase.saturating_sub(ahead));
        let (queued, base) = (from..=block.phase).find_map(|queued| {
            let gaps = placed.gaps(queued, block, problem.target.memory.weight);
            Some((queued, fit.base(&gaps, block.bytes, top_of_last)?))
        })?;
        placed.blocks.push(WeightBlock { queued, ..block.clone() });
        placed.bases.push(base);
        (earliest, top_of_last) = (queued, base + block.bytes);
    }
    Some(placed)
}
